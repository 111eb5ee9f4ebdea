/* gptq.h - the GPTQ pass (gptq.md): each linear's columns are quantized in turn, and what a column loses the
 * columns behind make up for, as the second moments of the linear's inputs say.
 *
 * The linears of a matrix share its inputs, so there is one factor for q, k, v and one for gate, up; each
 * linear has its own bits and groups.  The moments of all four matrices come from one pass over the samples
 * with the block's unquantized matrices.  With `sequential` they come from one walk (midway.h) that halts
 * before each matrix until it is quantized, so that each sees what the quantized ones before it give; at its
 * end are the block's outputs, which c->advance gets.  Samples that are not kept on the way start again for
 * each matrix, and so do, for `qep`, those of the FP stream.
 *
 * Grids: those of the pass before where c->grid is set; else, with order act, fitted to the weights before
 * the first column is quantized, and with none and gar, for a linear with groups, to the compensated weights
 * when the group's turn comes.  Scales are rounded to their type before codes are made.
 *
 * Over the replicas of a stage: each computes the samples of its share, factors every nreplica-th matrix and
 * quantizes panels of rows; any number of replicas gives the same bytes. */
#ifndef BQ_GPTQ_H
#define BQ_GPTQ_H

#include "block/passes/pass.h"

typedef struct {
    double
        damp; /* times the mean of the diagonal is added to it; more, in steps of 0.01, if that does not do */
    bq_order order;
    bq_clip clip;
    bq_shrink ends; /* of BQ_CLIP_MSE */
    bool sequential;
    bq_type gram; /* of the sums of Gram matrices: f32 or f64 */
    double qep;   /* 0: off; else the share of the QEP correction (gptq.md 10.1) for all but down */
} bq_gptq_options;

/* Leave the result in c->q on all replicas: fold holds the compensated weight of each column when it was
 * quantized, clamped to half a step outside the grid.  A matrix that no damping makes positive definite is
 * rounded to nearest, with a warning.  Collective over stage. */
void bq_pass_gptq(bq_pass_context *c, const bq_gptq_options *o);

/* Device bytes the pass takes beside block, result and workspace, on one of nreplica replicas of the stage;
 * sequential: and beside what it keeps of samples (bq_midway_need). */
size_t bq_gptq_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                    const bq_gptq_options *o, int replica, int nreplica);

#endif
