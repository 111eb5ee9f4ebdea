/* GEMM by cuBLAS, in IEEE single precision unless dev->compute allows tensor cores.  cuBLAS stores matrices
 * by columns: to it a row-major c = a b is c^T = b^T a^T, the same memory with the operands exchanged. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

#include <limits.h>

static int fit(int64_t n) {
    BQ_CHECK(n <= INT_MAX, "gemm: a dimension of %ld is beyond cuBLAS", (long)n);
    return (int)(n > 0 ? n : 1);
}

static __global__ void round_elements(bq_rows<float> x, bq_rows<uint16_t> y, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y)
        bq_row(y, r)[c] = bq_to_bf16(bq_row(x, r)[c]);
}

/* A copy in bf16, in scratch. */
static bq_mat rounded(bq_dev *dev, bq_mat m) {
    const bq_mat to = bq_arena_push(&dev->mem, m.rows, m.cols, BQ_BF16);
    bq_launch(dev, bq_grid_elements(m.rows, m.cols), BQ_THREADS, round_elements, m, to, m.rows, m.cols);
    return to;
}

/* A product on tensor cores.  The mode of the cuBLAS handle forbids them for all other products. */
static void narrow(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c,
                   int64_t k) {
    const bool bf16 = dev->compute == BQ_COMPUTE_BF16;
    const cudaDataType_t type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasHandle_t blas = bq_cuda_of(dev)->blas;
    const size_t mark = bq_arena_mark(&dev->mem);
    if (bf16) a = rounded(dev, a), b = rounded(dev, b);
    BQ_CUBLAS(cublasSetMathMode(blas, CUBLAS_DEFAULT_MATH));
    BQ_CUBLAS(cublasGemmEx(blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N, fit(c.cols),
                           fit(c.rows), k ? fit(k) : 0, &alpha, b.data, type, fit(b.ld), a.data, type,
                           fit(a.ld), &beta, c.data, CUDA_R_32F, fit(c.ld),
                           bf16 ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_GEMM_DEFAULT));
    BQ_CUBLAS(cublasSetMathMode(blas, CUBLAS_PEDANTIC_MATH));
    bq_arena_reset(&dev->mem, mark);
}

void bq_cuda_gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c) {
    const int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    BQ_WANT(dev, ta ? k : m, ta ? m : k, a);
    BQ_WANT(dev, tb ? n : k, tb ? k : n, b);
    BQ_WANT(dev, m, n, c);
    if (m == 0 || n == 0) return;
    if (dev->compute != BQ_COMPUTE_F32) {
        narrow(dev, ta, tb, alpha, a, b, beta, c, k);
        return;
    }
    BQ_CUBLAS(cublasSgemm(bq_cuda_of(dev)->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                          ta ? CUBLAS_OP_T : CUBLAS_OP_N, fit(n), fit(m), k ? fit(k) : 0, &alpha, bq_f32(b),
                          fit(b.ld), bq_f32(a), fit(a.ld), &beta, bq_f32(c), fit(c.ld)));
}
