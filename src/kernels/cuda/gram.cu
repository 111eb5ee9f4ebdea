/* SPDX-License-Identifier: Apache-2.0 */
/* Gram matrices by cuBLAS. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/product.cuh"

#include <limits.h>

enum { PANEL = 512 }; /* columns: what it computes beyond the triangle is at most PANEL x K */

/* Copy the lower triangle to the upper one. */
static __global__ void mirror(bq_rows<float> h, int64_t k) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < k && c < k; r += gridDim.y)
        if (c > r) bq_row(h, r)[c] = bq_row(h, c)[r];
}

/* The lower triangle on tensor cores, by panels of columns from the diagonal down. */
static void by_panels(bq_dev *dev, bq_mat x, bq_mat h) {
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_terms all = bq_cuda_terms(dev, x);
    const float *factors = bq_cuda_factors(dev, all, all, 1, 0);
    for (int64_t at = 0; at < x.cols; at += PANEL) {
        const int64_t below = x.cols - at, n = below < PANEL ? below : (int64_t)PANEL;
        bq_terms a = all, b = all;
        a.hi = bq_mat_cols(all.hi, at, below), a.lo = bq_mat_cols(all.lo, at, below);
        b.hi = bq_mat_cols(all.hi, at, n), b.lo = bq_mat_cols(all.lo, at, n);
        bq_cuda_product(dev, true, false, a, b, factors, bq_mat_cols(bq_mat_rows(h, at, below), at, n));
    }
    bq_arena_reset(&dev->mem, mark);
}

/* cuBLAS stores matrices by columns: to it x is x^T (K, T), and its upper triangle is our lower one. */
void bq_cuda_gram(bq_dev *dev, bq_mat x, bq_mat h) {
    const int64_t k = x.cols;
    const float one = 1, none = 0;
    BQ_WANT(dev, x.rows, k, x);
    BQ_WANT(dev, k, k, h);
    BQ_CHECK(x.rows <= INT_MAX && x.ld <= INT_MAX && h.ld <= INT_MAX, "gram of %ld x %ld", (long)x.rows,
             (long)k);
    if (x.rows == 0 || k == 0) {
        bq_cuda_zero(dev, h);
        return;
    }
    if (dev->compute == BQ_COMPUTE_FP16X2)
        by_panels(dev, x, h);
    else
        BQ_CUBLAS(cublasSsyrk(bq_cuda_of(dev)->blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, (int)k, (int)x.rows,
                              &one, bq_f32(x), (int)x.ld, &none, bq_f32(h), (int)h.ld));
    bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, mirror, h, k);
}
