/* midblock.h - the state of AdaScale's training between two steps, as parts that can be saved, and restored
 * in another process with another number of replicas.
 *
 * For each site the parts are s2, beta, gamma and s3, each with its two Adam moments, and hi
 * and lo.  s2 and its moments are (rows, cols) of the site, the others (rows * groups, 1), one linear after
 * the other.  A replica trains some rows of each part.  Parts go one by one through a matrix of s->q->fold,
 * which is free between two steps, so no memory is added. */
#ifndef BQ_BLOCK_MIDBLOCK_H
#define BQ_BLOCK_MIDBLOCK_H

#include "block/passes/pass.h"

enum { BQ_INSIDE_VALUES = 14, BQ_ADASCALE_PARTS_MAX = BQ_SITES * BQ_INSIDE_VALUES };

struct bq_adascale_state {
    bq_dev *dev;
    const bq_comm *comm;
    const bq_quantized *q;
    const bq_adascale *linear; /* [linears]: the values of my rows */
    int64_t step;              /* steps done; restore sets it */
    double previous;           /* mean at the last check for a plateau; NaN: there was none */
    double *losses;            /* restore sets the first `step` of them */
};

/* The number of parts; the shape of one, as a view without data, and its name, such as "gate_up_beta_m".
 * Local. */
static inline int bq_adascale_parts(const bq_quantized *q) { return q->arch->sites * BQ_INSIDE_VALUES; }
bq_mat bq_adascale_part(const bq_quantized *q, int part, char name[32]);

/* The whole part, on the device of all replicas; valid until the next call.  Collective over stage. */
bq_mat bq_adascale_gather(bq_adascale_state *s, int part);

/* Restore a part: the caller writes my rows of it, the first of which has number *first (there may be none),
 * into `room`, a view on the device; then `take` copies them to the training.  Local. */
bq_mat bq_adascale_room(bq_adascale_state *s, int part, int64_t *first);
void bq_adascale_take(bq_adascale_state *s, int part);

#endif
