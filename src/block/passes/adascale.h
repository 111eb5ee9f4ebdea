/* adascale.h - the pass adascale: AIMET's AdaScale, which is FlexRound (Lee et al., 2023) plus the learnable
 * weight clipping of OmniQuant (Shao et al., 2024), trained block by block.  The ops adascale_weights and
 * adascale_step have the formulas.
 *
 * All linears of a block are trained together, so that the block with quantized weights gives the targets.
 * Of n samples in all, step t (from 0) with batch B takes the samples t mod (n/B) + k n/B, k = 0 ... B - 1,
 * and adds their gradients by the fixed tree of comm/treesum.h.  B = 1 is AIMET's order.
 *
 * Each replica computes the samples of its share and owns some rows of each matrix.  It gets the gradients of
 * its rows from all, holds the Adam moments of these rows only, and sends the new weights of its rows to all.
 * Rows do not depend on each other, so any number of replicas gives the same bytes. */
#ifndef BQ_BLOCK_ADASCALE_H
#define BQ_BLOCK_ADASCALE_H

#include "base/shard.h"
#include "block/passes/pass.h"

typedef enum {
    BQ_LOSS_SUM_SEQ, /* sum over tokens, mean over batch and channels: AIMET since 2.34 */
    BQ_LOSS_MEAN,    /* mean over all of them: AIMET before 2.34 */
} bq_loss;

typedef struct {
    int64_t iterations, batch; /* steps, and samples in a step; batch divides the number of samples */
    double lr_clip,
        lr_weight; /* of beta and gamma; of s2 and s3; both fall to 0 over the iterations (cosine) */
    bq_loss loss;
    bool early_stop; /* look for a plateau of the loss, see bq_adascale_plateau */
    int64_t check_interval, window;
    double threshold;
    double anneal; /* steps after a plateau, as a share of the steps before it: the rates fall to 0 over them.
                      0: the training ends at the plateau, with the rates as they are (AIMET) */
} bq_adascale_options;

/* Train, and leave the result in c->q on all replicas.  Starts from c->q's grids where c->grid is set, else
 * from min-max.  Symmetric schemes only.  Fills c->losses.  Collective over stage.  Returns:
 *   the number of steps done, fewer than `iterations` after an early stop
 *   BQ_PASS_NOT_FINITE   a loss was NaN or infinite; c->q has the weights as they were at the start, rounded
 *                        to nearest on the grids of the start
 *   BQ_PASS_STOPPED      after c->stop; there is no result, but c->keeper, if any, has saved the state */
int64_t bq_pass_adascale(bq_pass_context *c, const bq_adascale_options *o);

/* Device bytes that the pass takes on a replica beside block, result and workspace. */
size_t bq_adascale_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                        int64_t batch, int replica, int nreplica);

/* A GPU alone, with a batch of one sample, takes so many steps before the host looks at their losses:
 * meanwhile it need not wait for the host.  Steps behind a loss that is not finite are in vain: the pass
 * drops all of them. */
enum { BQ_ADASCALE_AHEAD = 16 };

/* The shares of the replicas (adascale_need.c).
 *   rows      of a linear, those that lie in a range of rows of its matrix, with their numbers in the matrix
 *   leaves    of a step, those that a replica computes, whose samples are in its share: leaf k is sample
 *             step % stride + k * stride, stride = samples / batch; all_leaves: of every replica
 *   buffers   the most that the tree of a step needs */
bq_shard bq_adascale_rows(const bq_linear *l, bq_shard range);
bq_shard bq_adascale_leaves(int64_t samples, int64_t batch, int64_t step, int replica, int nreplica);
void bq_adascale_all_leaves(int64_t samples, int64_t batch, int64_t step, int nreplica, bq_shard *out);
int bq_adascale_buffers(int64_t samples, int64_t batch, int replica, int nreplica);

/* Has the loss stopped falling?  AIMET's rule: every check_interval losses, take the mean of the last
 * `window` of the `count` losses so far; it has stopped if count > window and that mean is less than
 * `threshold`, as a share, below the mean of the check before, *previous (NaN at the start; updated).  For
 * adascale.c and its test. */
bool bq_adascale_plateau(const bq_adascale_options *o, const double *losses, int64_t count, double *previous);

/* After a plateau at step `flat` (0: there was none): how many steps there are in all, and the place of a
 * step on the cosine, from 0 to 1.  The rates fall to 0 from where they were at the plateau. */
int64_t bq_adascale_end(const bq_adascale_options *o, int64_t flat);
double bq_adascale_phase(const bq_adascale_options *o, int64_t flat, int64_t step);

#endif
