/* ahead.h - the next block's weights on their way to a GPU while it works on this one.
 *
 * A thread reads pieces of them into pinned buffers and does nothing else; the caller's thread, which alone
 * talks to the device, hands full ones over whenever it comes by.  While a block is on its way nobody else
 * may read the model.  Local. */
#ifndef BQ_AHEAD_H
#define BQ_AHEAD_H

#include "driver/load/source.h"

#define BQ_AHEAD_SLOTS 2

typedef struct bq_ahead bq_ahead;

/* Pushes a block to the device's arena; the buffers take `values` floats each (bq_source_piece_most).  NULL,
 * after a warning, where the system pins no memory.  The caller closes before the arena is reset; NULL is
 * fine. */
bq_ahead *bq_ahead_open(const bq_source *src, bq_dev *dev, int64_t values);
void bq_ahead_close(bq_ahead *a);

/* Start on block b, if the model has one; ahead of the ops to come, if not of those before. */
void bq_ahead_start(bq_ahead *a, int b);
/* Hand over what has been read.  Cheap; at every step and sample. */
void bq_ahead_move(bq_ahead *a);
/* Block b's weights into blk, of which ops called from here on see them: exchanged with the block at hand,
 * or, when another one was on its way or none, read now.  a NULL: read now. */
void bq_ahead_take(bq_ahead *a, const bq_source *src, bq_dev *dev, int b, bq_block *blk);

#endif
