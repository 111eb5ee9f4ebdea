/* GEMM by cuBLAS, in IEEE single precision.  cuBLAS counts by columns: a row-major c = a b is its c^T = b^T
 * a^T, the same memory with operands exchanged. */
#include "kernels/cuda/cuda_ops.h"

#include <limits.h>

static int fit(int64_t n) {
    BQ_CHECK(n <= INT_MAX, "gemm: a dimension of %ld is beyond cuBLAS", (long)n);
    return (int)(n > 0 ? n : 1);
}

void bq_cuda_gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c) {
    const int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    bq_cuda_want(a, ta ? k : m, ta ? m : k, BQ_F32, "gemm", "a");
    bq_cuda_want(b, tb ? n : k, tb ? k : n, BQ_F32, "gemm", "b");
    bq_cuda_want(c, m, n, BQ_F32, "gemm", "c");
    if (m == 0 || n == 0) return;
    BQ_CUBLAS(cublasSgemm(bq_cuda_of(dev)->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                          ta ? CUBLAS_OP_T : CUBLAS_OP_N, fit(n), fit(m), k ? fit(k) : 0, &alpha, bq_f32(b),
                          fit(b.ld), bq_f32(a), fit(a.ld), &beta, bq_f32(c), fit(c.ld)));
}
