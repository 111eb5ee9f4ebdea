/* SPDX-License-Identifier: Apache-2.0 */
/* cayley.h - gradient descent on orthogonal matrices.
 *
 * A step turns R (n, n) by a skew matrix S, by Cayley's transform with momentum (Li et al., 2020):
 *
 *   M <- 0.9 M + skew(A)     f = -min(angle sqrt(n), 1) / |M| / 2     R <- (I - f M)^-1 (I + f M) R
 *
 * A is any matrix with dL = <A, S> for R <- R + S R; skew(A) = (A - A^T) / 2 is the gradient.  |M| is the
 * Frobenius norm, so angle is the root mean square, over the rows, of the angle in radians by which R turns;
 * the gradient's size has no effect.  The inverse is computed by fixed-point iterations, as in SpinQuant's
 * SGDG; two steps of Newton and Schulz then make R orthogonal to the accuracy of f32. */
#ifndef BQ_BLOCK_CAYLEY_H
#define BQ_BLOCK_CAYLEY_H

#include "kernels/ops.h"

/* r, momentum: (n, n) on the host, changed; gradient: A, on the host.  Computes on the device, which must
 * compute in F32, and waits for it.  Local; the same bits on every rank of a kind. */
void bq_cayley_step(bq_dev *dev, int64_t n, float *r, float *momentum, bq_mat gradient, double angle);
/* Arena bytes that a step takes; products of two (n, n) matrices in it. */
size_t bq_cayley_need(int64_t n);
enum { BQ_CAYLEY_INVERSE = 8, BQ_CAYLEY_POLISH = 2 };
#define BQ_CAYLEY_PRODUCTS (1 + BQ_CAYLEY_INVERSE + 2 * BQ_CAYLEY_POLISH)

#endif
