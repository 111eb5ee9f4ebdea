/* SPDX-License-Identifier: Apache-2.0 */
/* turned.h - a block whose weights are rounded in another basis, and the gradient of that basis.
 *
 * In the rotated model (driver/load/rotated.h) a matrix W that reads the residual stream is W R1, one that
 * writes to it R1^T W; by heads v is also R2^T W, o is W R2.  These are rounded to nearest: Q(W R1) = W R1 +
 * E.  The rotated block on x R1 then computes what the block itself computes on x with the weights
 *
 *   Q(W R1) R1^T = W + D,  D = E R1^T        R1 Q(R1^T W) = W + D,  D = R1 E
 *
 * up to R1 behind its output, since RMSNorm without gains commutes with R1 and the residual stream x R1 is
 * x in the other basis.  So the loss is computed in the model's own basis, from its own stream.
 *
 * Rounding is a constant for the gradient (a straight-through estimator: d Q(W R1) = d (W R1), so dE = 0).
 * Where R1 <- R1 + S R1 with a skew S, D changes by -D S for a matrix that reads, by S D for one that
 * writes.  With G the gradient of the weights W + D the loss changes by <A, S>:
 *
 *   A1 = sum over readers of G^T D + sum over writers of G D^T
 *   A2 = sum over the heads of v of G_h D_h^T + sum over the heads of o of G_h^T D_h        for R2
 *
 * cayley.h goes on from there.  All calls are local, and use only ops. */
#ifndef BQ_BLOCK_TURNED_H
#define BQ_BLOCK_TURNED_H

#include "block/model/quantized.h"

/* Of blk's weights, whose gains are folded: q->w_hat = W + D, q->fold = D.  q: with the schemes.  r1 (H, H),
 * r2 (hd, hd): on the device; data NULL: none. */
void bq_turned_weights(bq_dev *dev, const bq_block *blk, bq_quantized *q, bq_mat r1, bq_mat r2);

/* a1 (H, H) += A1, a2 (hd, hd) += A2, from D in q->fold and dw, the gradients of all sites.  data NULL: not.
 * */
void bq_turned_gradient(bq_dev *dev, const bq_quantized *q, const bq_mat *dw, bq_mat a1, bq_mat a2);

#endif
