/* adascale.h - the AdaScale pass: FlexRound plus learnable clipping, trained block by block (spec:
 * adascale.md 1, 2).
 *
 * All linears of a block are trained together so that block(mixed input, quantized weights) meets block(FP
 * input, FP weights).  Step t (from 0) of a batch of B takes samples { t mod (n/B) + k n/B, k < B } and adds
 * their gradients in the fixed tree of comm/treesum.h; B = 1 is AIMET's cyclic order.
 *
 * Over the replicas of a stage: each computes the samples of its share; gradients meet at the owners of row
 * slices, which hold the Adam state of their rows alone and send their rows of the new weights to everyone.
 * Rows do not interact, so any number of replicas gives the same bytes. */
#ifndef BQ_BLOCK_ADASCALE_H
#define BQ_BLOCK_ADASCALE_H

#include "block/passes/pass.h"

typedef enum {
    BQ_LOSS_SUM_SEQ, /* sum over tokens, mean over batch and hidden: AIMET since 2.34 */
    BQ_LOSS_MEAN,    /* mean over all: AIMET before */
} bq_loss;

typedef struct {
    int64_t iterations, batch; /* batch divides the samples */
    double lr_clip,
        lr_weight; /* of beta and gamma; of s2 and s3; both follow a cosine to 0 over the iterations */
    bq_loss loss;
    bool early_stop; /* look for a plateau */
    int64_t check_interval, window;
    double threshold;
    double anneal; /* steps after a plateau, as a share of those before: the rates fall to 0 over them; 0:
                      none, and the rates do not fall (AIMET) */
} bq_adascale_options;

/* Train and leave the result in c->q, on all replicas, starting from the min-max grid, or from c->q's where
 * c->grid is set.  Symmetric schemes only.  Collective over stage.  Fills c->losses.  Returns the steps done
 * (fewer after an early stop); BQ_PASS_NOT_FINITE when a loss was no number: the block is then left as it was
 * at the start, rounded to nearest; BQ_PASS_STOPPED after c->stop: there is no result, but c->keeper was
 * given the state after the last step. */
int64_t bq_pass_adascale(bq_pass_context *c, const bq_adascale_options *o);

/* Device bytes the pass takes beside block, result and workspace, on one of nreplica replicas of the stage.
 */
size_t bq_adascale_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                        int64_t batch, int replica, int nreplica);

/* True when the mean of the last `window` of the `count` losses has stopped falling (adascale.md 2.6);
 * *previous is the mean recorded before, NaN at the start.  Exposed for its test. */
bool bq_adascale_plateau(const bq_adascale_options *o, const double *losses, int64_t count, double *previous);

/* Steps in all, and where on the cosine (0 .. 1) a step is, after a plateau at step `flat` (0: there
 * has been none).  The rates go on from where they were. */
int64_t bq_adascale_end(const bq_adascale_options *o, int64_t flat);
double bq_adascale_phase(const bq_adascale_options *o, int64_t flat, int64_t step);

#endif
