/* SPDX-License-Identifier: Apache-2.0 */
/* midblock.h - the state of a training between two steps, as parts that can be saved, and restored in another
 * process with another number of replicas.
 *
 * For each site the parts are the values of train.h: those of elements are (rows, cols) of the site, those of
 * rows (rows * groups, 1), one linear after the other.  A replica trains some rows of each part.  Parts go
 * one by one through a matrix of s->q->fold, which is free between two steps, so no memory is added. */
#ifndef BQ_BLOCK_MIDBLOCK_H
#define BQ_BLOCK_MIDBLOCK_H

#include "block/passes/train.h"

enum { BQ_TRAIN_PARTS_MAX = BQ_SITES * (BQ_TRAIN_ELEMENTS + BQ_TRAIN_ROWS) };

struct bq_train_state {
    bq_dev *dev;
    const bq_comm *comm;
    const bq_quantized *q;
    const bq_train_kind *kind;
    const bq_trained *linear; /* [linears]: the values of my rows */
    int64_t step;             /* steps done; restore sets it */
    double previous;          /* mean at the last check for a plateau; NaN: there was none */
    double *losses;           /* restore sets the first `step` of them */
};

/* The number of parts; the shape of one, as a view without data, and its name, such as "gate_up_beta_m".
 * Local. */
int bq_train_parts(const bq_train_kind *kind, const bq_quantized *q);
bq_mat bq_train_part(const bq_train_kind *kind, const bq_quantized *q, int part, char name[32]);

/* The whole part, on the device of all replicas; valid until the next call.  Collective over stage. */
bq_mat bq_train_gather(bq_train_state *s, int part);

/* Restore a part: the caller writes my rows of it, the first of which has number *first (there may be none),
 * into `room`, a view on the device; then `take` copies them to the training.  Local. */
bq_mat bq_train_room(bq_train_state *s, int part, int64_t *first);
void bq_train_take(bq_train_state *s, int part);

#endif
