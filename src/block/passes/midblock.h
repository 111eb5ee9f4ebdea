/* inside.h - AdaScale between two steps, out and in: what training goes on from in another process.
 *
 * The state is cut into parts that do not know the grid.  For each of the four matrices these are the trained
 * values s2, beta, gamma and s3, each with its two Adam moments, and hi and lo, over all rows in their order:
 * s2 (rows, cols), the others (rows * groups, 1), linear behind linear.  A replica trains some rows of each.
 * Parts pass one by one through a matrix that is free between steps, so that no memory is added. */
#ifndef BQ_BLOCK_INSIDE_H
#define BQ_BLOCK_INSIDE_H

#include "block/passes/pass.h"

enum { BQ_INSIDE_VALUES = 14, BQ_ADASCALE_PARTS = BQ_MATS * BQ_INSIDE_VALUES };

struct bq_adascale_state {
    bq_dev *dev;
    const bq_comm *comm;
    const bq_quantized *q;
    const bq_adascale *linear; /* my rows of each */
    int64_t step;              /* steps done; restore sets this, */
    double previous;           /* the mean at the last check of the early stop (NaN: none yet), */
    double *losses;            /* and the first `step` of these */
};

/* Name ("gate_up_beta_m") and shape of a part, a view without data. */
bq_mat bq_adascale_part(const bq_quantized *q, int part, char name[32]);

/* The whole part, on all replicas; valid until the next call.  Collective over stage. */
bq_mat bq_adascale_gather(bq_adascale_state *s, int part);

/* Room for my rows of a part, of which the first has number *first (there may be none); when they are there,
 * take hands them to the training.  Local. */
bq_mat bq_adascale_room(bq_adascale_state *s, int part, int64_t *first);
void bq_adascale_take(bq_adascale_state *s, int part);

#endif
