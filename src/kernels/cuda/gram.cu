/* Gram matrices by cuBLAS. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

#include <limits.h>

/* Copy the lower triangle to the upper one. */
static __global__ void mirror(bq_rows<float> h, int64_t k) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < k && c < k; r += gridDim.y)
        if (c > r) bq_row(h, r)[c] = bq_row(h, c)[r];
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
    BQ_CUBLAS(cublasSsyrk(bq_cuda_of(dev)->blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, (int)k, (int)x.rows,
                          &one, bq_f32(x), (int)x.ld, &none, bq_f32(h), (int)h.ld));
    bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, mirror, h, k);
}
