/* SPDX-License-Identifier: Apache-2.0 */
/* Gram matrices and factors of their inverses.  Gram matrices are computed by our own products where the
 * processor allows it.  Else tiles are cut by the shape alone, and each is one call of the serial BLAS. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_scratch.h"

#include "base/die.h"
#include "kernels/cpu/product.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- gram ---- */

enum { SIDE = 384 }; /* columns in a tile, at most */

typedef struct {
    int64_t count, side; /* tiles in one direction; columns of a tile */
} tiling;

static tiling tiles_of(int64_t k) {
    int64_t count = (k + SIDE - 1) / SIDE;
    return (tiling){count, count ? ((k + count - 1) / count + 15) / 16 * 16 : 0};
}

static int span(int64_t k, int64_t first, int64_t side) { return (int)(k - first < side ? k - first : side); }

/* Tile (i, j) of the upper triangle, j >= i. */
static void gram_tile(bq_mat x, bq_mat h, int64_t side, int64_t i, int64_t j) {
    int64_t k = h.rows, first = i * side, second = j * side;
    if (first >= k || second >= k) return;
    const float *a = bq_mat_at(x, 0, first), *b = bq_mat_at(x, 0, second);
    float *to = bq_mat_at(h, first, second);
    int m = span(k, first, side), n = span(k, second, side), t = (int)x.rows;
    if (i == j)
        cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, n, t, 1, a, (int)x.ld, 0, to, (int)h.ld);
    else
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, n, t, 1, a, (int)x.ld, b, (int)x.ld, 0, to,
                    (int)h.ld);
}

/* The upper triangle, tile by tile. */
static void gram_blas(bq_mat x, bq_mat h, tiling t) {
    int64_t pairs = t.count * (t.count + 1) / 2;
#pragma omp parallel for schedule(dynamic) if (pairs > 1)
    for (int64_t p = 0; p < pairs; p++) {
        int64_t away = 0, i = p; /* tiles far from the diagonal first; one on it is half the work */
        for (int64_t d = t.count - 1; d > 0 && i >= t.count - d; d--) i -= t.count - d, away++;
        gram_tile(x, h, t.side, i, i + t.count - 1 - away);
    }
}

/* Copy the upper triangle to the lower one, square by square.  A square is copied before it is read by
 * columns: in place its columns would use only few sets of the cache. */
static void mirror(bq_mat h) {
    enum { SQUARE = 32 };
    int64_t n = (h.rows + SQUARE - 1) / SQUARE;
#pragma omp parallel for schedule(dynamic) if (h.rows > 256)
    for (int64_t i = 0; i < n; i++) {
        float copy[SQUARE][SQUARE];
        int rows = span(h.rows, i * SQUARE, SQUARE);
        for (int64_t j = 0; j <= i; j++) {
            int cols = span(h.rows, j * SQUARE, SQUARE);
            for (int c = 0; c < cols; c++)
                memcpy(copy[c], bq_mat_at(h, j * SQUARE + c, i * SQUARE), (size_t)rows * sizeof copy[c][0]);
            for (int r = 0; r < rows; r++) {
                float *to = bq_mat_at(h, i * SQUARE + r, j * SQUARE);
                for (int c = 0; c < (i == j ? r : cols); c++) to[c] = copy[c][r];
            }
        }
    }
}

void bq_cpu_gram(bq_dev *dev, bq_mat x, bq_mat h) {
    BQ_CHECK(x.type == BQ_F32 && h.type == BQ_F32 && h.rows == x.cols && h.cols == x.cols &&
                 x.rows <= INT_MAX && x.ld <= INT_MAX && h.ld <= INT_MAX,
             "gram of %ld x %ld to %ld x %ld", (long)x.rows, (long)x.cols, (long)h.rows, (long)h.cols);
    if (x.rows == 0) {
        dev->op->zero(dev, h);
        return;
    }
    bq_product_kind kind = bq_product_of(dev->compute);
    if (kind != BQ_PRODUCT_BLAS) {
        bq_product_gram(kind, x.rows, (bq_product_side){x.data, x.ld, x.cols, true}, h.data, h.ld);
        return;
    }
    gram_blas(x, h, tiles_of(x.cols));
    mirror(h);
}

/* ---- factor ---- */

enum {
    NB = 64,   /* columns in a step of the factorization */
    DOWN = 128 /* rows in a task of it */
};

size_t bq_cpu_factor_scratch(int64_t k) { return bq_arena_need(k, k + NB, BQ_F64); }

/* Element (row, col) of a square matrix of doubles with NB more columns.  L is in its place; the transposed
 * inverse of L is NB columns further right, so the two do not overlap. */
static double *cell(bq_mat s, int64_t row, int64_t col) { return bq_mat_at(s, row, col); }

static int64_t column_of(bq_mat order, int64_t i) {
    return order.data ? *(const int32_t *)bq_mat_at(order, i, 0) : i;
}

/* The matrix to be factored, A with both axes reversed: its lower triangle, to the end of the
 * tiles on the diagonal. */
static void reversed(bq_mat h, bq_mat order, double factor, double damp, bq_mat s) {
    int64_t k = h.rows;
    double mean = 0;
    for (int64_t i = 0; i < k; i++) {
        double d = factor * bq_cpu_number(h, column_of(order, i), column_of(order, i));
        mean += d == 0 ? 1 : d;
    }
    mean /= (double)k;
#pragma omp parallel for schedule(dynamic, 16) if (k > 128)
    for (int64_t p = 0; p < k; p++) {
        double *to = cell(s, p, 0);
        const void *row = bq_mat_at(h, column_of(order, k - 1 - p), 0);
        int64_t end = (p / NB + 1) * NB < k ? (p / NB + 1) * NB : k;
        if (h.type == BQ_F64)
            for (int64_t q = 0; q < end; q++)
                to[q] = factor * ((const double *)row)[column_of(order, k - 1 - q)];
        else
            for (int64_t q = 0; q < end; q++)
                to[q] = factor * (double)((const float *)row)[column_of(order, k - 1 - q)];
        to[p] = (to[p] == 0 ? 1 : to[p]) + damp * mean;
    }
}

/* Cholesky factorization of an n x n tile, in place: A = L L^T with L lower. */
static bool factor_tile(double *a, int64_t n, int64_t ld) {
    double column[NB];
    for (int64_t k = 0; k < n; k++) {
        double d = sqrt(a[k * ld + k]);
        if (!(d > 0) || !isfinite(d)) return false;
        a[k * ld + k] = d;
        for (int64_t i = k + 1; i < n; i++) column[i] = a[i * ld + k] /= d;
        for (int64_t i = k + 1; i < n; i++) {
            for (int64_t j = k + 1; j <= i; j++) a[i * ld + j] -= column[i] * column[j];
        }
    }
    return true;
}

/* A = L L^T in place, with L lower: subtract from each block of columns what the blocks before it
 * contribute, then factor it. */
static bool cholesky(bq_mat s, int64_t k) {
    int ld = (int)s.ld;
    for (int64_t j = 0; j < k; j += NB) {
        int n = span(k, j, NB);
#pragma omp parallel for schedule(dynamic) if (k - j > DOWN)
        for (int64_t i = j; i < k; i += DOWN)
            if (j)
                cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, span(k, i, DOWN), n, (int)j, -1,
                            cell(s, i, 0), ld, cell(s, j, 0), ld, 1, cell(s, i, j), ld);
        if (!factor_tile(cell(s, j, j), n, ld)) return false;
#pragma omp parallel for schedule(dynamic) if (k - j > DOWN)
        for (int64_t i = j + n; i < k; i += DOWN)
            cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, span(k, i, DOWN), n,
                        1, cell(s, j, j), ld, cell(s, i, j), ld);
    }
    return true;
}

/* The transposed inverse Y of L, a block of rows at a time: Y L^T = 1, from the block's diagonal on. */
static void invert(bq_mat s, int64_t k) {
    int ld = (int)s.ld;
#pragma omp parallel for schedule(dynamic) if (k > NB)
    for (int64_t j = 0; j < k; j += NB) {
        int n = span(k, j, NB);
        for (int64_t r = j; r < j + n; r++) {
            for (int64_t c = j; c < k; c++) *cell(s, r, c + NB) = r == c;
        }
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, n, (int)(k - j), 1,
                    cell(s, j, j), ld, cell(s, j, j + NB), ld);
    }
}

bool bq_cpu_factor(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut) {
    int64_t k = h.rows;
    BQ_CHECK(h.cols == k && ut.rows == k && ut.cols == k && (h.type == BQ_F32 || h.type == BQ_F64) &&
                 ut.type == BQ_F32 && k + NB <= INT_MAX &&
                 (!order.data || (order.rows == k && order.cols == 1 && order.type == BQ_I32)),
             "factor of %ld x %ld to %ld x %ld", (long)h.rows, (long)h.cols, (long)ut.rows, (long)ut.cols);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat s = bq_arena_push(&dev->mem, k, k + NB, BQ_F64);
    reversed(h, order, factor, damp, s);
    bool definite = cholesky(s, k);
    if (definite) {
        invert(s, k);
#pragma omp parallel for schedule(static) if (k > 128)
        for (int64_t r = 0; r < k; r++) { /* reverse both axes again */
            float *to = bq_mat_at(ut, r, 0);
            const double *from = cell(s, k - 1 - r, k - 1 + NB);
            for (int64_t c = 0; c < k; c++) to[c] = c <= r ? (float)from[-c] : 0;
        }
    }
    bq_arena_reset(&dev->mem, mark);
    return definite;
}
