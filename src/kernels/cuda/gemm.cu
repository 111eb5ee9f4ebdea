/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM by cuBLAS, in IEEE single precision unless dev->compute allows tensor cores.  cuBLAS stores matrices
 * by columns: to it a row-major c = a b is c^T = b^T a^T, the same memory with the operands exchanged. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/reduce.cuh"

#include <limits.h>

enum { PARTS = 1024, PIECE = 512, PIECE_ONE_TERM = 1024 };

static int fit(int64_t n) {
    BQ_CHECK(n <= INT_MAX, "gemm: a dimension of %ld is beyond cuBLAS", (long)n);
    return (int)(n > 0 ? n : 1);
}

static __global__ void round_elements(bq_rows<float> x, bq_rows<uint16_t> y, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y)
        bq_row(y, r)[c] = bq_to_bf16(bq_row(x, r)[c]);
}

/* In bf16: a copy in scratch, unless it is already. */
static bq_mat rounded(bq_dev *dev, bq_mat m) {
    if (m.type == BQ_BF16) return m;
    const bq_mat to = bq_arena_push(&dev->mem, m.rows, m.cols, BQ_BF16);
    bq_launch(dev, bq_grid_elements(m.rows, m.cols), BQ_THREADS, round_elements, m, to, m.rows, m.cols);
    return to;
}

/* A product on tensor cores, of f32 (rounded to tf32), f16 or bf16. */
static void on_tensor_cores(bq_dev *dev, bool ta, bool tb, const float *alpha, bq_mat a, bq_mat b,
                            const float *beta, bq_mat c) {
    const int64_t k = ta ? a.rows : a.cols;
    const cudaDataType_t type = a.type == BQ_F16 ? CUDA_R_16F : a.type == BQ_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    BQ_CUBLAS(cublasGemmEx(bq_cuda_of(dev)->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                           ta ? CUBLAS_OP_T : CUBLAS_OP_N, fit(c.cols), fit(c.rows), k ? fit(k) : 0, alpha,
                           b.data, type, fit(b.ld), a.data, type, fit(a.ld), beta, c.data, CUDA_R_32F,
                           fit(c.ld), a.type == BQ_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                           CUBLAS_GEMM_DEFAULT));
}

/* The largest finite |x| of the rows that a thread block takes, as bits. */
static __global__ void largest(bq_rows<float> x, uint32_t *part, int64_t rows, int64_t cols) {
    uint32_t most = 0;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x)
        for (int64_t c = threadIdx.x; c < cols; c += BQ_THREADS) {
            const uint32_t bits = bq_bits(bq_row(x, r)[c]) & 0x7fffffffu;
            if (bits < 0x7f800000u && bits > most) most = bits;
        }
    most = bq_block_max(most);
    if (threadIdx.x == 0) part[blockIdx.x] = most;
}

/* The power of two of a matrix whose largest |x| has the exponent e, as floats have it. */
static __device__ float power_of(uint32_t e) { return bq_float((e > 14 ? 268 - e : 254) << 23); }

/* Each thread block finds the largest of all parts again, which is less than its own rows. */
static __global__ void split(bq_rows<float> x, const uint32_t *part, float *by, bq_rows<uint16_t> hi,
                             bq_rows<uint16_t> lo, int64_t rows, int64_t cols) {
    uint32_t most = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += BQ_THREADS) most = part[i] > most ? part[i] : most;
    const float power = power_of(bq_block_max(most) >> 23);
    if (blockIdx.x == 0 && threadIdx.x == 0) *by = power;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x)
        for (int64_t c = threadIdx.x; c < cols; c += BQ_THREADS) {
            const float v = bq_row(x, r)[c] * power;
            const uint16_t high = bq_to_f16(v);
            bq_row(hi, r)[c] = high;
            bq_row(lo, r)[c] = bq_to_f16(v - bq_from_f16(high));
        }
}

bq_terms bq_cuda_terms(bq_dev *dev, bq_mat x) {
    if (x.type == BQ_F16) return {x, {}, NULL};
    const bq_mat hi = bq_arena_push(&dev->mem, x.rows, x.cols, BQ_F16),
                 lo = bq_arena_push(&dev->mem, x.rows, x.cols, BQ_F16),
                 part = bq_arena_push(&dev->mem, 1, PARTS + 1, BQ_I32);
    const dim3 grid((unsigned)(x.rows < 1 ? 1 : x.rows < PARTS ? x.rows : (int64_t)PARTS));
    uint32_t *parts = (uint32_t *)part.data;
    float *by = (float *)(parts + PARTS);
    bq_launch(dev, grid, BQ_THREADS, largest, x, parts, x.rows, x.cols);
    bq_launch(dev, grid, BQ_THREADS, split, x, parts, by, hi, lo, x.rows, x.cols);
    return {hi, lo, by};
}

static __global__ void factors_of(const float *a, const float *b, float alpha, float beta, float *to) {
    if (threadIdx.x == 0) to[0] = alpha / (a ? *a : 1) / (b ? *b : 1), to[1] = beta, to[2] = 1;
}

const float *bq_cuda_factors(bq_dev *dev, bq_terms a, bq_terms b, float alpha, float beta) {
    const bq_mat to = bq_arena_push(&dev->mem, 1, 3, BQ_F32);
    bq_launch(dev, dim3(1), 32, factors_of, a.by, b.by, alpha, beta, bq_f32(to));
    return bq_f32(to);
}

static bq_mat piece(bq_mat m, bool rows, int64_t first, int64_t count) {
    return rows ? bq_mat_rows(m, first, count) : bq_mat_cols(m, first, count);
}

void bq_cuda_product(bq_dev *dev, bool ta, bool tb, bq_terms a, bq_terms b, const float *factors, bq_mat c) {
    const cublasHandle_t blas = bq_cuda_of(dev)->blas;
    const int64_t k = ta ? a.hi.rows : a.hi.cols, most = b.lo.data ? PIECE : PIECE_ONE_TERM;
    const float *const one = factors + 2;
    BQ_CUBLAS(cublasSetMathMode(blas, CUBLAS_DEFAULT_MATH));
    BQ_CUBLAS(cublasSetPointerMode(blas, CUBLAS_POINTER_MODE_DEVICE));
    on_tensor_cores(dev, ta, tb, factors, a.lo, b.hi, factors + 1, c);
    if (b.lo.data) on_tensor_cores(dev, ta, tb, factors, a.hi, b.lo, one, c);
    for (int64_t at = 0; at < k; at += most) {
        const int64_t n = k - at < most ? k - at : most;
        on_tensor_cores(dev, ta, tb, factors, piece(a.hi, ta, at, n), piece(b.hi, !tb, at, n), one, c);
    }
    BQ_CUBLAS(cublasSetPointerMode(blas, CUBLAS_POINTER_MODE_HOST));
    BQ_CUBLAS(cublasSetMathMode(blas, CUBLAS_PEDANTIC_MATH));
}

/* A product on tensor cores.  The mode of the cuBLAS handle forbids them for all other products. */
static void narrow(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c) {
    const size_t mark = bq_arena_mark(&dev->mem);
    if (dev->compute == BQ_COMPUTE_FP16X2) {
        const bq_terms x = bq_cuda_terms(dev, a), y = bq_cuda_terms(dev, b);
        bq_cuda_product(dev, ta, tb, x, y, bq_cuda_factors(dev, x, y, alpha, beta), c);
    } else {
        if (dev->compute == BQ_COMPUTE_BF16) a = rounded(dev, a), b = rounded(dev, b);
        BQ_CUBLAS(cublasSetMathMode(bq_cuda_of(dev)->blas, CUBLAS_DEFAULT_MATH));
        on_tensor_cores(dev, ta, tb, &alpha, a, b, &beta, c);
        BQ_CUBLAS(cublasSetMathMode(bq_cuda_of(dev)->blas, CUBLAS_PEDANTIC_MATH));
    }
    bq_arena_reset(&dev->mem, mark);
}

/* The type of an operand: f32, or one that the way of computing holds exactly. */
static bq_type type_of(const bq_dev *dev, bq_mat m) {
    const bool exact = m.type == BQ_F16 ? dev->compute == BQ_COMPUTE_FP16X2
                                        : m.type == BQ_BF16 && dev->compute == BQ_COMPUTE_BF16;
    return exact ? m.type : BQ_F32;
}

void bq_cuda_gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c) {
    const int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    BQ_WANT(dev, ta ? k : m, ta ? m : k, a);
    BQ_WANT_AS(dev, type_of(dev, b), tb ? n : k, tb ? k : n, b);
    BQ_WANT(dev, m, n, c);
    if (m == 0 || n == 0) return;
    if (dev->compute != BQ_COMPUTE_F32) {
        narrow(dev, ta, tb, alpha, a, b, beta, c);
        return;
    }
    BQ_CUBLAS(cublasSgemm(bq_cuda_of(dev)->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                          ta ? CUBLAS_OP_T : CUBLAS_OP_N, fit(n), fit(m), k ? fit(k) : 0, &alpha, bq_f32(b),
                          fit(b.ld), bq_f32(a), fit(a.ld), &beta, bq_f32(c), fit(c.ld)));
}
