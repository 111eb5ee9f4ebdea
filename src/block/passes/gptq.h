/* SPDX-License-Identifier: Apache-2.0 */
/* gptq.h - the pass gptq (Frantar et al., 2023): the columns of a linear are quantized one after the other,
 * and the columns that follow make up for the error of each, by the Gram matrix of the linear's inputs.
 *
 * The linears of a matrix share its inputs and so, as a rule, a factor of its Gram matrix; each linear has
 * its own bits and groups.  The Gram matrices of all sites come from one walk over the samples
 * through the unquantized block.  With `sequential` they come from a walk that stops before each matrix
 * until it is quantized (midway.h), so each matrix sees the inputs that the quantized ones before it give.
 * That walk ends with the outputs of the block, which c->advance gets.  For `qep` the samples of the FP
 * stream start again for each matrix.
 *
 * The grids are those of the pass before where c->grid is set.  Else they are fitted to the weights before
 * the first column is quantized; but with order none or gar, and groups, the grid of a group is fitted to the
 * compensated weights when the group's turn comes.  Scales are rounded to their type before codes are made.
 *
 * With `refine` the Gram matrices, and the weights as they were before the columns, are kept until coordinate
 * descent has gone over the codes (the op refine).
 *
 * Each replica computes the samples of its share, some of the factors, and some panels of rows.  Any number
 * of replicas gives the same bytes. */
#ifndef BQ_GPTQ_H
#define BQ_GPTQ_H

#include "block/passes/pass.h"

typedef struct {
    double damp; /* times the diagonal's mean, added to the diagonal; raised by 0.01 until it is enough */
    bq_order order;
    bq_clip clip;
    bq_shrink ends; /* of BQ_CLIP_MSE */
    bool sequential;
    bq_type gram;     /* type of the sums of Gram matrices: f32 or f64 */
    bq_sparse sparse; /* which weights become 0, and stay so */
    int refine;       /* sweeps of coordinate descent behind the columns; 0: none */
    bool refit;       /* scales after each sweep */
    double qep; /* share of the correction of QEP (Arai and Ichikawa, 2025), for all but down; 0: none */
} bq_gptq_options;

/* Leave the result in c->q on all replicas.  fold has each weight as it was just before rounding, clamped to
 * half a step outside the grid; in rows that `refine` has changed it is w_hat.  Linears whose Gram matrix no
 * damping below 1 makes positive definite are rounded to nearest, with a warning.  Collective over stage. */
void bq_pass_gptq(bq_pass_context *c, const bq_gptq_options *o);

/* Device bytes that the pass takes on a replica beside block, result and workspace, and with `sequential`
 * beside the state of samples (bq_midway_need). */
size_t bq_gptq_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                    const bq_gptq_options *o, int replica, int nreplica);

#endif
