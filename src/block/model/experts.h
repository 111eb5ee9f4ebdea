/* SPDX-License-Identifier: Apache-2.0 */
/* experts.h - the MLP of a block with experts: what block.c and block_backward.c call instead of the dense
 * one.
 *
 * The tokens of an expert are gathered in ascending order and go through its two matrices together.  Its
 * outputs are added to the residual stream in the order of the experts' numbers, behind those of the shared
 * MLP.  So all sums have a fixed order.  Shapes and buffers are those of bq_work.  All calls are local. */
#ifndef BQ_EXPERTS_H
#define BQ_EXPERTS_H

#include "block/model/block.h"

/* From k->n: the gate of the shared MLP, if it has one. */
void bq_experts_gate(bq_dev *dev, const bq_block *blk, bq_work *k);
/* From k->n: the experts of each token, k->rows and k->we (T k, 1), their tokens and weights, expert by
 * expert, and k->start on the host.  A block does it itself; for its core the caller does.  Waits for the
 * device. */
void bq_experts_route(bq_dev *dev, const bq_block *blk, bq_work *k);

/* The inputs of an expert's gate_up (from k->n) and of its down (from k->xe). */
void bq_experts_gather(bq_dev *dev, bq_work *k, int expert);
void bq_experts_gated(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int expert);

/* y += what the shared MLP computes, once k->z is there; what the experts compute, once k->ze is there. */
void bq_experts_add_shared(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat y);
void bq_experts_add(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat y);

/* Of a unit that is an expert: y[rows[i]] += weight[i] MLP(k->x[i]) for each of the rows (n, 1) i32, weight
 * (n, 1), n <= T.  The same ops and shapes as in a whole block, so the same bits.  Uses k->gu, z and y. */
void bq_experts_add_rows(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat rows,
                         bq_mat weight, bq_mat y);

/* From dy (T, H), the gradient of their sum: dw of their sites, and dn (T, H), that of k->n; overwritten.  Of
 * a core: of the shared MLP alone. */
void bq_experts_backward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat dy,
                         const bq_mat *dw, bq_mat dn);

/* The rows of an expert in a matrix with T k rows. */
static inline bq_mat bq_expert_rows(const bq_work *k, bq_mat m, int expert) {
    return bq_mat_rows(m, k->start[expert], k->start[expert + 1] - k->start[expert]);
}

#endif
