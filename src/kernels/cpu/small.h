/* SPDX-License-Identifier: Apache-2.0 */
/* small.h - products of matrices that fit into the first-level caches, without packing:
 * for attention's tiles.
 *
 * Operands are words of 32 bits: a float, or a pair of bf16 that are neighbours along k, rounded to nearest
 * even; then a word of a and a word of b give two products.  Sums are in f32: for each element of c one chain
 * over k of fused multiply-adds.  Call these only where bq_products() (product.h) is not BQ_PRODUCT_NONE. */
#ifndef BQ_SMALL_H
#define BQ_SMALL_H

#include <stdbool.h>
#include <stdint.h>

/* Word (i, k) of a is at[i * row + k * step]. */
typedef struct {
    const float *at;
    int64_t row, step;
} bq_small_left;

/* Word (k, j) of b is at[k * row + j]. */
typedef struct {
    const float *at;
    int64_t row;
} bq_small_right;

/* c (m, n) = alpha * a b + (add ? c : 0); k counts words. */
void bq_small_gemm(bool pairs, int64_t m, int64_t n, int64_t k, float alpha, bq_small_left a,
                   bq_small_right b, bool add, float *c, int64_t ldc);

/* Make words from pairs of floats; beyond the end a float counts as 0.  rows: of neighbours in a row, to
 * (rows, ceil(cols / 2)).  columns: of two rows, to (ceil(rows / 2), cols). */
void bq_small_pair_rows(int64_t rows, int64_t cols, const float *x, int64_t ldx, float *to, int64_t ldto);
void bq_small_pair_columns(int64_t rows, int64_t cols, const float *x, int64_t ldx, float *to, int64_t ldto);

#endif
