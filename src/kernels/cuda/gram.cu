/* Gram matrices by cuBLAS, and the factor of their inverses by cuSOLVER, in double. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

#include <limits.h>

enum { BLOCK = 64 }; /* rows of the inverse at a time, and columns that they stand to the right */

/* ---- gram ---- */

/* The upper triangle from the lower one. */
static __global__ void mirror(bq_rows<float> h, int64_t k) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < k && c < k; r += gridDim.y)
        if (c > r) bq_row(h, r)[c] = bq_row(h, c)[r];
}

/* Seen by columns, x is x^T (K, T), and the triangle that is computed is the row-major lower one. */
void bq_cuda_gram(bq_dev *dev, bq_mat x, bq_mat h) {
    const int64_t k = x.cols;
    const float one = 1, none = 0;
    bq_cuda_want(x, x.rows, k, BQ_F32, "gram", "x");
    bq_cuda_want(h, k, k, BQ_F32, "gram", "h");
    BQ_CHECK(x.rows <= INT_MAX && x.ld <= INT_MAX && h.ld <= INT_MAX, "gram of %ld x %ld", (long)x.rows,
             (long)k);
    if (x.rows == 0 || k == 0) {
        bq_cuda_zero(dev, h);
        return;
    }
    BQ_CUBLAS(cublasSsyrk(bq_cuda_of(dev)->blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, (int)k, (int)x.rows,
                          &one, bq_f32(x), (int)x.ld, &none, bq_f32(h), (int)h.ld));
    bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, mirror, bq_f32_rows(h), k);
}

/* ---- factor ---- */

/* The matrix to be factored, A with both axes reversed, stands in a square of doubles with room for BLOCK
 * more columns: its Cholesky factor L takes its place, and the transposed inverse of L, moved BLOCK columns
 * to the right, does not touch it. */
struct square {
    bq_rows<float> h;
    const int32_t *order; /* or NULL: as columns stand */
    int64_t ldo, k;
    bq_rows<double> s;
};

static __device__ int64_t column_of(const square &a, int64_t i) { return a.order ? a.order[i * a.ldo] : i; }

static __device__ double diagonal(const square &a, int64_t i, double factor) {
    const int64_t c = column_of(a, i);
    const double d = factor * (double)bq_row(a.h, c)[c];
    return d == 0 ? 1 : d;
}

static __global__ void diagonal_mean(square a, double factor, double *mean) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < a.k; i += BQ_THREADS) sum += diagonal(a, i, factor);
    sum = bq_block_sum(sum);
    if (threadIdx.x == 0) mean[0] = sum / (double)a.k;
}

/* The lower triangle, and the identity to the right of it, from each block's diagonal on. */
static __global__ void fill(square a, double factor, double damp, const double *mean) {
    const int64_t q = bq_column();
    for (int64_t p = blockIdx.y; p < a.k && q < a.k; p += gridDim.y) {
        double *row = bq_row(a.s, p);
        if (q < p)
            row[q] = factor * (double)bq_row(a.h, column_of(a, a.k - 1 - p))[column_of(a, a.k - 1 - q)];
        if (q == p) row[q] = diagonal(a, a.k - 1 - p, factor) + damp * mean[0];
        if (q >= p / BLOCK * BLOCK) row[q + BLOCK] = q == p;
    }
}

/* flaws[0] += diagonal elements of L that are no positive numbers, and cuSOLVER's verdict. */
static __global__ void look(square a, const int *info, double *flaws) {
    double count = 0;
    for (int64_t i = threadIdx.x; i < a.k; i += BQ_THREADS) {
        const double d = bq_row(a.s, i)[i];
        count += !(d > 0 && d < (double)INFINITY);
    }
    count = bq_block_sum(count);
    if (threadIdx.x == 0) flaws[0] = count + (info[0] != 0);
}

/* Both axes reversed once more. */
static __global__ void take(square a, bq_rows<float> ut) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < a.k && c < a.k; r += gridDim.y)
        bq_row(ut, r)[c] = c <= r ? (float)bq_row(a.s, a.k - 1 - r)[a.k - 1 - c + BLOCK] : 0;
}

/* L in place.  Seen by columns, the lower triangle is the upper one. */
static bool cholesky(bq_dev *dev, const square &a) {
    bq_cuda *cuda = bq_cuda_of(dev);
    int size = 0;
    double flaws = 0, *work = (double *)cuda->workspace;
    BQ_CUSOLVER(cusolverDnDpotrf_bufferSize(cuda->solver, CUBLAS_FILL_MODE_UPPER, (int)a.k, a.s.data,
                                            (int)a.s.ld, &size));
    BQ_CHECK((size_t)(size + 1) * sizeof *work <= BQ_CUDA_WORKSPACE, "factor: %d doubles of workspace", size);
    int *info = (int *)(work + size);
    BQ_CUSOLVER(cusolverDnDpotrf(cuda->solver, CUBLAS_FILL_MODE_UPPER, (int)a.k, a.s.data, (int)a.s.ld, work,
                                 size, info));
    bq_launch(dev, dim3(1), BQ_THREADS, look, a, info, bq_cuda_result(dev, &flaws, 1));
    dev->op->wait(dev);
    return flaws == 0;
}

/* The rows of the transposed inverse Y, a block at a time: Y L^T = 1 from the block's diagonal on. */
static void invert(bq_dev *dev, const square &a) {
    const double one = 1;
    for (int64_t j = 0; j < a.k; j += BLOCK) {
        const int64_t rows = a.k - j < BLOCK ? a.k - j : (int64_t)BLOCK;
        double *at = a.s.data + j * a.s.ld + j;
        BQ_CUBLAS(cublasDtrsm(bq_cuda_of(dev)->blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T,
                              CUBLAS_DIAG_NON_UNIT, (int)(a.k - j), (int)rows, &one, at, (int)a.s.ld,
                              at + BLOCK, (int)a.s.ld));
    }
}

bool bq_cuda_factor(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut) {
    const int64_t k = h.rows;
    bq_cuda_want(h, k, k, BQ_F32, "factor", "h");
    bq_cuda_want(ut, k, k, BQ_F32, "factor", "ut");
    if (order.data) bq_cuda_want(order, k, 1, BQ_I32, "factor", "order");
    BQ_CHECK(k > 0 && k + BLOCK <= INT_MAX, "factor of %ld columns", (long)k);
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_mat room = bq_arena_push(&dev->mem, k, k + BLOCK, BQ_F64);
    const square a = {bq_f32_rows(h), (const int32_t *)order.data, order.ld, k, bq_rows_of<double>(room)};
    double unused, *mean = bq_cuda_result(dev, &unused, 1);
    bq_launch(dev, dim3(1), BQ_THREADS, diagonal_mean, a, factor, mean);
    bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, fill, a, factor, damp, mean);
    const bool definite = cholesky(dev, a);
    if (definite) {
        invert(dev, a);
        bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, take, a, bq_f32_rows(ut));
    }
    bq_arena_reset(&dev->mem, mark);
    return definite;
}
