/* Factors of inverses, in double.  Products and triangular solves are done by cuBLAS.  The Cholesky
 * factorization of a tile on the diagonal is our own: cuSOLVER tells its scratch only where there is a
 * device, and plans are made without one. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

#include <limits.h>

enum { TILE = 64 }; /* columns in a step; also how far to the right the inverse is stored */

/* The matrix to be factored: A with both axes reversed, as a square matrix of doubles with TILE more columns.
 * Its Cholesky factor L takes its place.  The transposed inverse of L is stored TILE columns further right,
 * so the two do not overlap. */
struct square {
    bq_rows<float> h;
    bq_rows<double> wide; /* h where it is f64, else data NULL */
    const int32_t *order; /* NULL: columns in the order of h */
    int64_t ldo, k;
    bq_rows<double> s;
};

/* The figures of a factorization: the mean of the diagonal; the number of columns without a positive root. */
enum { MEAN, FLAWS, FIGURES };

static __device__ int64_t column_of(const square &a, int64_t i) { return a.order ? a.order[i * a.ldo] : i; }

static __device__ double entry(const square &a, int64_t i, int64_t j) {
    const int64_t r = column_of(a, i), c = column_of(a, j);
    return a.wide.data ? bq_row(a.wide, r)[c] : (double)bq_row(a.h, r)[c];
}

static __device__ double diagonal(const square &a, int64_t i, double factor) {
    const double d = factor * entry(a, i, i);
    return d == 0 ? 1 : d;
}

static __global__ void begin(square a, double factor, double *figures) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < a.k; i += BQ_THREADS) sum += diagonal(a, i, factor);
    sum = bq_block_sum(sum);
    if (threadIdx.x == 0) figures[MEAN] = sum / (double)a.k, figures[FLAWS] = 0;
}

/* Fill in the lower triangle, and to the right of it, from the diagonal tiles on, the identity. */
static __global__ void fill(square a, double factor, double damp, const double *figures) {
    const int64_t q = bq_column();
    for (int64_t p = blockIdx.y; p < a.k && q < a.k; p += gridDim.y) {
        double *row = bq_row(a.s, p);
        if (q < p) row[q] = factor * entry(a, a.k - 1 - p, a.k - 1 - q);
        if (q == p) row[q] = diagonal(a, a.k - 1 - p, factor) + damp * figures[MEAN];
        if (q >= p / TILE * TILE) row[q + TILE] = q == p;
    }
}

/* Cholesky factorization of the n x n tile at (j, j), lower, by one thread block.  Thread t has column t %
 * TILE of every fourth row. */
static __global__ void factor_tile(bq_rows<double> s, int64_t j, int n, double *figures) {
    __shared__ double a[TILE][TILE + 1];
    const int c = (int)threadIdx.x % TILE, first = (int)threadIdx.x / TILE, step = (int)BQ_THREADS / TILE;
    for (int r = first; r < n; r += step)
        if (c <= r) a[r][c] = bq_row(s, j + r)[j + c];
    for (int k = 0; k < n; k++) {
        __syncthreads(); /* everything before column k has been subtracted */
        const double d = sqrt(a[k][k]);
        if (threadIdx.x == 0 && !(d > 0 && d < (double)INFINITY)) figures[FLAWS]++;
        __syncthreads(); /* all threads have read the diagonal element */
        if (first == 0 && c >= k && c < n) a[c][k] = c == k ? d : a[c][k] / d;
        __syncthreads(); /* column k is there */
        for (int r = first; r < n; r += step)
            if (c > k && c <= r) a[r][c] -= a[r][k] * a[c][k];
    }
    for (int r = first; r < n; r += step) /* no barrier: a thread reads what it wrote itself, or
                                             column n - 1, which is done */
        if (c <= r) bq_row(s, j + r)[j + c] = a[r][c];
}

/* Reverse both axes again. */
static __global__ void take(square a, bq_rows<float> ut) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < a.k && c < a.k; r += gridDim.y)
        bq_row(ut, r)[c] = c <= r ? (float)bq_row(a.s, a.k - 1 - r)[a.k - 1 - c + TILE] : 0;
}

static int tile_at(const square &a, int64_t j) { return (int)(a.k - j < TILE ? a.k - j : (int64_t)TILE); }

/* Solve X L^T = B for `count` rows X in the place of B, at `at`; L lower, n x n.  To cuBLAS, which counts by
 * columns, L is an upper matrix. */
static void solve(bq_dev *dev, const square &a, const double *l, int64_t n, double *at, int64_t count) {
    const double one = 1;
    BQ_CUBLAS(cublasDtrsm(bq_cuda_of(dev)->blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T,
                          CUBLAS_DIAG_NON_UNIT, (int)n, (int)count, &one, l, (int)a.s.ld, at, (int)a.s.ld));
}

/* L in place: subtract from each tile of columns what the tiles before it contribute, then factor it. */
static void cholesky(bq_dev *dev, const square &a, double *figures) {
    const double one = 1, minus = -1;
    for (int64_t j = 0; j < a.k; j += TILE) {
        const int n = tile_at(a, j), ld = (int)a.s.ld;
        double *left = a.s.data + j * a.s.ld, *at = left + j;
        if (j)
            BQ_CUBLAS(cublasDgemm(bq_cuda_of(dev)->blas, CUBLAS_OP_T, CUBLAS_OP_N, n, (int)(a.k - j), (int)j,
                                  &minus, left, ld, left, ld, &one, at, ld));
        bq_launch(dev, dim3(1), BQ_THREADS, factor_tile, a.s, j, n, figures);
        if (j + n < a.k) solve(dev, a, at, n, at + n * a.s.ld, a.k - j - n);
    }
}

bool bq_cuda_factor(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut) {
    const int64_t k = h.rows;
    const bool wide = h.type == BQ_F64;
    BQ_WANT_AS(dev, wide ? BQ_F64 : BQ_F32, k, k, h);
    BQ_WANT(dev, k, k, ut);
    if (order.data) BQ_WANT_AS(dev, BQ_I32, k, 1, order);
    BQ_CHECK(k > 0 && k + TILE <= INT_MAX, "factor of %ld columns", (long)k);
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_mat room = bq_arena_push(&dev->mem, k, k + TILE, BQ_F64);
    const bq_rows<double> doubles = wide ? bq_rows<double>(h) : bq_rows<double>(NULL, 0);
    const square a = {h, doubles, (const int32_t *)order.data, order.ld, k, room};
    double found[FIGURES], *figures = bq_cuda_result(dev, found, FIGURES);
    bq_launch(dev, dim3(1), BQ_THREADS, begin, a, factor, figures);
    bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, fill, a, factor, damp, figures);
    cholesky(dev, a, figures);
    dev->op->wait(dev);
    if (found[FLAWS] == 0) {
        for (int64_t j = 0; j < k; j += TILE) { /* rows of the transposed inverse Y: Y L^T = 1 */
            double *at = a.s.data + j * (a.s.ld + 1);
            solve(dev, a, at, k - j, at + TILE, tile_at(a, j));
        }
        bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, take, a, ut);
    }
    bq_arena_reset(&dev->mem, mark);
    return found[FLAWS] == 0;
}
