/* SPDX-License-Identifier: Apache-2.0 */
/* Factors of inverses, in double: A = L L^T, then the inverse of L.  Nearly all of it is products by cuBLAS;
 * our own kernels do what has 64 columns.  cuSOLVER tells its scratch only where there is a device, and plans
 * are made without one.
 *
 * The rows right of and below a tile on the diagonal are found by substitution.  Products with the inverse of
 * the tile would be products, too, but their error grows with the condition of that tile: with inputs that
 * change slowly from column to column and a damping of 1e-8, errors were 30 times as large. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

#include <limits.h>

/* TILE: columns in a step.  PANEL: columns that take all that the columns before them contribute in one
 * product; also how far below the diagonal the inverse has zeros, so that products may read there. */
enum { TILE = 64, PANEL = 512, LANES = 64 };

/* The matrix to be factored, A with both axes reversed, as a square matrix of doubles.  Below the diagonal is
 * A, and L in the tiles on the diagonal.  Above them is the transpose of L; in its place comes the transposed
 * inverse of L. */
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

/* Fill in the lower triangle. */
static __global__ void fill(square a, double factor, double damp, const double *figures) {
    const int64_t q = bq_column();
    for (int64_t p = blockIdx.y; p < a.k && q < a.k; p += gridDim.y) {
        double *row = bq_row(a.s, p);
        if (q < p) row[q] = factor * entry(a, a.k - 1 - p, a.k - 1 - q);
        if (q == p) row[q] = diagonal(a, a.k - 1 - p, factor) + damp * figures[MEAN];
    }
}

/* Cholesky factorization of the n x n tile at (j, j), lower, by one thread block.  Thread t has column t %
 * TILE of every fourth row.  Columns are divided by their roots at the end, so a step has one barrier. */
static __global__ void factor_tile(bq_rows<double> s, int64_t j, int n, double *figures) {
    __shared__ double a[TILE][TILE + 1];
    const int c = (int)threadIdx.x % TILE, first = (int)threadIdx.x / TILE, step = (int)BQ_THREADS / TILE;
    for (int r = first; r < n; r += step)
        if (c <= r) a[r][c] = bq_row(s, j + r)[j + c];
    for (int k = 0; k < n; k++) {
        __syncthreads(); /* everything before column k has been subtracted */
        const double d = a[k][k], by = c > k ? a[c][k] / d : 0;
        if (threadIdx.x == 0 && !(d > 0 && d < (double)INFINITY)) figures[FLAWS]++;
        for (int r = k + 1 + first; r < n; r += step)
            if (c > k && c <= r) a[r][c] = fma(-a[r][k], by, a[r][c]);
    }
    for (int r = first; r < n; r += step) /* no barrier: nothing was subtracted after the last one */
        if (c <= r) bq_row(s, j + r)[j + c] = a[r][c] / sqrt(a[c][c]);
}

/* The TILE rows of L^T right of the tile at (j, j): L(tile) X = B^T with B below the tile.  A thread has a
 * column of X.  What it still has to solve moves to the front of `x` step by step, so that registers have
 * constant indices. */
static __global__ void __launch_bounds__(LANES) solve(bq_rows<double> s, int64_t j, int64_t k) {
    alignas(16) __shared__ double l[TILE][TILE];
    __shared__ double inverse[TILE];
    for (int n = (int)threadIdx.x; n < TILE * TILE; n += LANES) {
        const int c = n % TILE, r = c + 1 + n / TILE;
        l[c][n / TILE] = r < TILE ? bq_row(s, j + r)[j + c] : 0;
        if (n < TILE) inverse[n] = 1 / bq_row(s, j + n)[j + n];
    }
    __syncthreads(); /* the tile is there */
    const int64_t i = j + TILE + (int64_t)blockIdx.x * LANES + threadIdx.x;
    if (i >= k) return; /* allowed: no barrier follows */
    double x[TILE];
    for (int c = 0; c < TILE; c++) x[c] = bq_row(s, i)[j + c];
    for (int c = 0; c < TILE; c++) {
        const double y = x[0] * inverse[c];
        bq_row(s, j + c)[i] = y;
        for (int n = 0; n + 1 < TILE; n++) x[n] = fma(-y, l[c][n], x[n + 1]);
    }
}

/* The transposed inverse of every tile on the diagonal, in its place: a thread block has a tile.  While it
 * runs, row c of `a` has L up to column c, and behind it column c of the inverse. */
static __global__ void invert_tiles(bq_rows<double> s, int64_t size) {
    __shared__ double a[TILE][TILE + 1];
    const int64_t j = (int64_t)blockIdx.x * TILE;
    const int c = (int)threadIdx.x % TILE, first = (int)threadIdx.x / TILE, step = (int)BQ_THREADS / TILE;
    const int n = (int)(size - j < TILE ? size - j : (int64_t)TILE);
    for (int r = first; r < n; r += step) {
        if (c <= r) a[r][c] = bq_row(s, j + r)[j + c];
        if (c >= r) a[r][c + 1] = c == r;
    }
    for (int k = 0; k < n; k++) {
        __syncthreads(); /* everything before row k has been subtracted */
        const double x = c <= k ? a[c][k + 1] / a[k][k] : 0;
        for (int r = k + 1 + first; r < n; r += step)
            if (c <= k) a[c][r + 1] = fma(-a[r][k], x, a[c][r + 1]);
    }
    for (int r = first; r < n; r += step) /* no barrier: nothing was subtracted after the last one */
        if (c < n) bq_row(s, j + r)[j + c] = c >= r ? a[r][c + 1] / a[c][c] : 0;
}

/* Reverse both axes again. */
static __global__ void take(square a, bq_rows<float> ut) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < a.k && c < a.k; r += gridDim.y)
        bq_row(ut, r)[c] = c <= r ? (float)bq_row(a.s, a.k - 1 - r)[a.k - 1 - c] : 0;
}

static double *at(const square &a, int64_t row, int64_t col) { return a.s.data + row * a.s.ld + col; }

/* z (m, n) = alpha x^T op(y) + beta z, all of them parts of a, op transposes where ty is set. */
static void product(bq_dev *dev, const square &a, bool ty, int64_t m, int64_t n, int64_t k, double alpha,
                    const double *x, const double *y, double beta, double *z) {
    const int ld = (int)a.s.ld;
    BQ_CUBLAS(cublasDgemm(bq_cuda_of(dev)->blas, ty ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_T, (int)n, (int)m,
                          (int)k, &alpha, y, ld, x, ld, &beta, z, ld));
}

/* L, tile by tile: subtract what the columns before contribute, factor the tile, find the rows right of it.
 * The first tile of a panel subtracts for the whole panel what is left of the panel. */
static void cholesky(bq_dev *dev, const square &a, double *figures) {
    for (int64_t j = 0; j < a.k; j += TILE) {
        const int64_t from = j % PANEL ? j / PANEL * PANEL : 0, wide = j % PANEL ? TILE : PANEL,
                      rest = a.k - j;
        if (j)
            product(dev, a, false, rest, wide < rest ? wide : rest, j - from, -1, at(a, from, j),
                    at(a, from, j), 1, at(a, j, j));
        bq_launch(dev, dim3(1), BQ_THREADS, factor_tile, a.s, j, (int)(rest < TILE ? rest : (int64_t)TILE),
                  figures);
        bq_launch(dev, dim3(bq_pieces(rest > TILE ? rest - TILE : 0, LANES)), LANES, solve, a.s, j, a.k);
    }
}

/* The transposed inverse Y of the n columns from j on, from L^T, and from the inverses of the tiles.  In two
 * halves, Y12 = -Y11 L21^T Y22; the place of L21 has room for the first product.  A product takes a panel of
 * a triangle at a time, and reads the zeros below the panel's diagonal. */
static void invert(bq_dev *dev, const square &a, bq_mat room, int64_t j, int64_t n) {
    if (n <= TILE) return;
    int64_t half = TILE;
    while (2 * half < n) half *= 2;
    const int64_t t = j + half, rest = n - half;
    invert(dev, a, room, j, half), invert(dev, a, room, t, rest);
    for (int64_t i = 0; i < half; i += PANEL)
        product(dev, a, true, rest, half < PANEL ? half : (int64_t)PANEL, half - i, 1, at(a, j + i, t),
                at(a, j + i, j + i), 0, at(a, t, j + i));
    for (int64_t i = 0; i < rest; i += PANEL) {
        const int64_t wide = rest - i < PANEL ? rest - i : (int64_t)PANEL;
        product(dev, a, false, half, wide, i + wide, -1, at(a, t, j), at(a, t, t + i), 0, at(a, j, t + i));
    }
    if (n <= PANEL) bq_cuda_zero(dev, bq_mat_rows(bq_mat_cols(room, j, half), t, rest));
}

bool bq_cuda_factor(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut) {
    const int64_t k = h.rows;
    const bool wide = h.type == BQ_F64;
    BQ_WANT_AS(dev, wide ? BQ_F64 : BQ_F32, k, k, h);
    BQ_WANT(dev, k, k, ut);
    if (order.data) BQ_WANT_AS(dev, BQ_I32, k, 1, order);
    BQ_CHECK(k > 0 && k <= INT_MAX, "factor of %ld columns", (long)k);
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_mat room = bq_arena_push(&dev->mem, k, k, BQ_F64);
    const bq_rows<double> doubles = wide ? bq_rows<double>(h) : bq_rows<double>(NULL, 0);
    const square a = {h, doubles, (const int32_t *)order.data, order.ld, k, room};
    double found[FIGURES], *figures = bq_cuda_result(dev, found, FIGURES);
    bq_launch(dev, dim3(1), BQ_THREADS, begin, a, factor, figures);
    bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, fill, a, factor, damp, figures);
    /* Tensor cores have doubles, too, and round them as others do.  The mode of the handle forbids them. */
    BQ_CUBLAS(cublasSetMathMode(bq_cuda_of(dev)->blas, CUBLAS_DEFAULT_MATH));
    cholesky(dev, a, figures);
    dev->op->wait(dev);
    if (found[FLAWS] == 0) {
        bq_launch(dev, dim3(bq_pieces(k, TILE)), BQ_THREADS, invert_tiles, a.s, k);
        invert(dev, a, room, 0, k);
        bq_launch(dev, bq_grid_elements(k, k), BQ_THREADS, take, a, ut);
    }
    BQ_CUBLAS(cublasSetMathMode(bq_cuda_of(dev)->blas, CUBLAS_PEDANTIC_MATH));
    bq_arena_reset(&dev->mem, mark);
    return found[FLAWS] == 0;
}
