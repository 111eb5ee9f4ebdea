/* SPDX-License-Identifier: Apache-2.0 */
/* ahead.h - read the next block's weights and copy them to a GPU while it works on this one.
 *
 * A thread reads pieces into pinned buffers and does nothing else.  The caller's thread, which alone uses the
 * device, copies full buffers whenever it calls bq_ahead_move.  Until the block is taken nobody else may read
 * the model.  Local.  */
#ifndef BQ_AHEAD_H
#define BQ_AHEAD_H

#include "driver/load/source.h"

#define BQ_AHEAD_SLOTS 2

typedef struct bq_ahead bq_ahead;

/* Push a block to the device's arena, and pin buffers of `values` floats (bq_source_piece_most).  NULL after
 * a warning if no memory can be pinned.  Close before the arena is reset; NULL is fine. */
bq_ahead *bq_ahead_open(const bq_source *src, bq_dev *dev, int64_t values);
void bq_ahead_close(bq_ahead *a);

/* Start to read block b, if the model has one.  */
void bq_ahead_start(bq_ahead *a, int b);
/* Copy what has been read.  Cheap: call it at every step and sample.  */
void bq_ahead_move(bq_ahead *a);
/* Block b's weights are in blk for all later ops: exchanged with the block read ahead; if that is another
 * one, or a is NULL, read now.  */
void bq_ahead_take(bq_ahead *a, const bq_source *src, bq_dev *dev, int b, bq_block *blk);

#endif
