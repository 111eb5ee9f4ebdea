/* experts.h - the MLP of a block with experts: what block.c and block_backward.c call instead of the dense
 * one.
 *
 * The tokens of an expert are gathered in ascending order and go through its two matrices together.  Its
 * outputs are added to the residual stream in the order of the experts' numbers, behind those of the shared
 * MLP.  So all sums have a fixed order.  Shapes and buffers are those of bq_work.  All calls are local. */
#ifndef BQ_EXPERTS_H
#define BQ_EXPERTS_H

#include "block/model/block.h"

/* From k->n: the experts of each token, their weights, and k->start on the host.  Waits for the device. */
void bq_experts_route(bq_dev *dev, const bq_block *blk, bq_work *k);

/* The inputs of an expert's gate_up (from k->n) and of its down (from k->xe). */
void bq_experts_gather(bq_dev *dev, bq_work *k, int expert);
void bq_experts_gated(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int expert);

/* y += what the shared MLP and the experts compute, once k->z and k->ze are there. */
void bq_experts_add(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat y);

/* From dy (T, H), the gradient of their sum: dw of their sites, and dn (T, H), that of k->n; overwritten. */
void bq_experts_backward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat dy,
                         const bq_mat *dw, bq_mat dn);

/* The rows of an expert in a matrix with T k rows. */
static inline bq_mat bq_expert_rows(const bq_work *k, bq_mat m, int expert) {
    return bq_mat_rows(m, k->start[expert], k->start[expert + 1] - k->start[expert]);
}

#endif
