/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/attend.h"

#include "kernels/cpu/product.h"

#include <cblas.h>

enum {
    OWN = 64,       /* queries in a tile with our own products; BQ_ATTEND_KEYS is a multiple of it */
    SLAB = 16,      /* in a tile on the diagonal: queries, or keys, that are multiplied together */
    QUERIES = 160,  /* queries in a tile with the BLAS, at most */
    SMALL = 1000000 /* multiplications in a BLAS call that does not pack */
};

bq_attend bq_attend_of(bq_compute compute, bq_attention a, int64_t tokens) {
    bool own = bq_products() != BQ_PRODUCT_NONE;
    int64_t vd = a.value_dim > 0 ? a.value_dim : a.head_dim, width = most(a.head_dim, vd),
            queries = own ? OWN : most(16, least(QUERIES, SMALL / (BQ_ATTEND_KEYS * width) / 8 * 8));
    return (bq_attend){
        .a = a,
        .tokens = tokens,
        .queries = queries,
        .tiles = pieces(tokens, queries),
        .group = a.heads / a.kv_heads,
        .vd = vd,
        .own = own,
        .word = bq_product_of(compute) == BQ_PRODUCT_BF16 && a.head_dim % 2 == 0 && vd % 2 == 0 ? 2 : 1};
}

/* k counts numbers, not words. */
static void multiply(const bq_attend *j, int64_t m, int64_t n, int64_t k, float alpha, bq_small_left a,
                     bq_small_right b, bool add, float *c, int64_t ldc) {
    if (j->own)
        bq_small_gemm(j->word > 1, m, n, (k + j->word - 1) / j->word, alpha, a, b, add, c, ldc);
    else
        cblas_sgemm(CblasRowMajor, a.row == 1 ? CblasTrans : CblasNoTrans, CblasNoTrans, (int)m, (int)n,
                    (int)k, alpha, a.at, (int)(a.row == 1 ? a.step : a.row), b.at, (int)b.row, add ? 1 : 0, c,
                    (int)ldc);
}

bq_attend_parts bq_attend_parts_of(const bq_attend *j, float *at) {
    int64_t rows = least(j->queries, j->tokens), tile = rows * BQ_ATTEND_LD, pairs = (rows + 1) / 2,
            half = pairs * BQ_ATTEND_LD;
    bq_attend_parts p = {.s = at, .dp = at + tile, .max = at + 2 * tile, .sum = at + 2 * tile + rows};
    p.rows = p.sum + rows, p.columns[0] = p.rows + half, p.columns[1] = p.columns[0] + half;
    p.q[0] = p.columns[1] + half, p.q[1] = p.q[0] + pairs * j->a.head_dim;
    p.dout[0] = p.q[1] + pairs * j->a.head_dim, p.dout[1] = p.dout[0] + pairs * j->vd;
    return p;
}

int64_t bq_attend_numbers(const bq_attend *j) {
    int64_t rows = least(j->queries, j->tokens),
            pairs = (rows + 1) / 2 * (3 * BQ_ATTEND_LD + 2 * (j->a.head_dim + j->vd));
    return (2 * BQ_ATTEND_LD + 2) * rows + (j->own ? pairs : 0);
}

/* The rows of one block, as words, become its columns. */
static void transpose_block(const bq_attend *j, int64_t rows, int64_t hd, const float *from, int64_t ld,
                            float *block) {
    enum { WORDS = 16 };
    float pairs[BQ_ATTEND_BLOCK][WORDS];
    for (int64_t c = 0; c < hd && j->word == 2; c += 2 * WORDS) {
        int64_t words = least(WORDS, (hd - c) / 2);
        bq_small_pair_rows(rows, 2 * words, from + c, ld, pairs[0], WORDS);
        for (int64_t w = 0; w < words; w++)
            for (int64_t r = 0; r < rows; r++) block[(c / 2 + w) * BQ_ATTEND_BLOCK + r] = pairs[r][w];
    }
    for (int64_t r = 0; r < rows && j->word == 1; r++)
        for (int64_t c = 0; c < hd; c++) block[c * BQ_ATTEND_BLOCK + r] = from[r * ld + c];
}

void bq_attend_transpose(const bq_attend *j, bq_mat m, bq_mat to) {
    int64_t blocks = pieces(m.rows, BQ_ATTEND_BLOCK), hd = m.cols / j->a.kv_heads;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < j->a.kv_heads * blocks; n++) {
        int64_t first = n % blocks * BQ_ATTEND_BLOCK, rows = least(BQ_ATTEND_BLOCK, m.rows - first);
        transpose_block(j, rows, hd, head(m, first, n / blocks, hd), m.ld, bq_mat_at(to, n, 0));
    }
}

bq_mat bq_attend_paired(const bq_attend *j, bq_mat m, bq_mat to) {
    if (j->word == 1) return m;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < to.rows; r++)
        bq_small_pair_columns(least(2, m.rows - 2 * r), m.cols, bq_mat_at(m, 2 * r, 0), m.ld,
                              bq_mat_at(to, r, 0), to.ld);
    return to;
}

bq_small_right bq_attend_keys(const bq_attend *j, bq_mat m, int64_t key, int64_t kv) {
    return (bq_small_right){head(m, key * BQ_ATTEND_KEYS / j->word, kv, m.cols / j->a.kv_heads), m.ld};
}

/* ---- operands of a tile: the matrix itself, or pairs that are made in `to` ---- */

bq_small_left bq_attend_rows(const bq_attend *j, int64_t rows, int64_t cols, const float *x, int64_t ld,
                             float *to) {
    if (j->word == 1) return (bq_small_left){x, ld, 1};
    bq_small_pair_rows(rows, cols, x, ld, to, (cols + 1) / 2);
    return (bq_small_left){to, (cols + 1) / 2, 1};
}

bq_small_right bq_attend_columns(const bq_attend *j, int64_t rows, int64_t cols, const float *x, int64_t ld,
                                 float *to) {
    if (j->word == 1) return (bq_small_right){x, ld};
    bq_small_pair_columns(rows, cols, x, ld, to, cols);
    return (bq_small_right){to, cols};
}

/* ---- products of a tile: on the diagonal one slab of rows, or of keys, at a time ---- */

static int64_t slab_of(const bq_attend *j, bq_tile t, int64_t all) {
    return j->own && t.shift + 1 < t.cols ? SLAB : all;
}

/* How many columns the rows before `end` see. */
static int64_t seen(bq_tile t, int64_t end) { return least(t.cols, t.shift + end); }

void bq_attend_score(const bq_attend *j, bq_tile t, float alpha, bq_small_left x, bq_mat keys, int64_t kv,
                     int64_t key, float *to) {
    int64_t row = kv * pieces(j->tokens, BQ_ATTEND_BLOCK) + key * (BQ_ATTEND_KEYS / BQ_ATTEND_BLOCK),
            depth = keys.cols / BQ_ATTEND_BLOCK, slab = slab_of(j, t, t.rows);
    for (int64_t r = 0; r < t.rows; r += slab, x.at += slab * x.row) {
        int64_t rows = least(slab, t.rows - r), cols = seen(t, r + rows);
        for (int64_t c = 0; c < cols; c += BQ_ATTEND_BLOCK)
            multiply(j, rows, least(BQ_ATTEND_BLOCK, cols - c), depth, alpha, x,
                     (bq_small_right){bq_mat_at(keys, row + c / BQ_ATTEND_BLOCK, 0), BQ_ATTEND_BLOCK}, false,
                     to + r * BQ_ATTEND_LD + c, BQ_ATTEND_LD);
    }
}

void bq_attend_weigh(const bq_attend *j, bq_tile t, float alpha, bq_small_left x, bq_small_right keys,
                     int64_t hd, bool add, float *to, int64_t ldto) {
    int64_t slab = slab_of(j, t, t.rows);
    for (int64_t r = 0; r < t.rows; r += slab, x.at += slab * x.row) {
        int64_t rows = least(slab, t.rows - r);
        multiply(j, rows, hd, seen(t, r + rows), alpha, x, keys, add, to + r * ldto, ldto);
    }
}

void bq_attend_gather(const bq_attend *j, bq_tile t, float alpha, const float *x, bq_small_right rows,
                      int64_t hd, float *to, int64_t ldto) {
    int64_t slab = slab_of(j, t, t.cols);
    for (int64_t c = 0; c < t.cols; c += slab) {
        int64_t first = most(0, c - t.shift) / j->word; /* the rows before `first` do not see these keys */
        multiply(j, least(slab, t.cols - c), hd, t.rows - first * j->word, alpha,
                 (bq_small_left){x + first * BQ_ATTEND_LD + c, 1, BQ_ATTEND_LD},
                 (bq_small_right){rows.at + first * rows.row, rows.row}, true, to + c * ldto, ldto);
    }
}
