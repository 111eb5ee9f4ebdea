/* small.h - products of matrices that fit the first caches, read where they are: attention's tiles.
 *
 * Operands are words of 32 bits: floats, or pairs of bf16 that are neighbours along k, rounded to nearest
 * even, so that a word of a and a word of b give two products.  Sums are in f32, one chain over k for each
 * element of c, fused multiply-add.  Called only where bq_products() (product.h) is not BQ_PRODUCT_NONE. */
#ifndef BQ_SMALL_H
#define BQ_SMALL_H

#include <stdbool.h>
#include <stdint.h>

/* Word (i, k) of a stands at[i * row + k * step]. */
typedef struct {
    const float *at;
    int64_t row, step;
} bq_small_left;

/* Word (k, j) of b stands at[k * row + j]. */
typedef struct {
    const float *at;
    int64_t row;
} bq_small_right;

/* c (m, n) = alpha a b + (add ? c : 0); k: words. */
void bq_small_gemm(bool pairs, int64_t m, int64_t n, int64_t k, float alpha, bq_small_left a,
                   bq_small_right b, bool add, float *c, int64_t ldc);

/* Pairs of floats as words; what lies beyond the end is 0.  rows: of neighbours in a row, to (rows,
 * ceil(cols / 2)).  Columns: of two rows each, to (ceil(rows / 2), cols). */
void bq_small_pair_rows(int64_t rows, int64_t cols, const float *x, int64_t ldx, float *to, int64_t ldto);
void bq_small_pair_columns(int64_t rows, int64_t cols, const float *x, int64_t ldx, float *to, int64_t ldto);

#endif
