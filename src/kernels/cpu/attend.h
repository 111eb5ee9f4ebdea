/* SPDX-License-Identifier: Apache-2.0 */
/* attend.h - the tiles of queries x keys in attention: where they are, the operands that are made before,
 * and the products of a tile.
 *
 * Where the processor allows it products are computed by our own kernels (small.h): of floats, or of pairs of
 * bf16 where dev->compute allows that.  In a tile on the diagonal they leave out what no query sees.
 *
 * Else they are calls of the BLAS.  A BLAS call of this size spends its time on packing operands, unless
 * OpenBLAS (AVX-512) has a kernel that does not pack: for at most 10^6 multiplications, without a transposed
 * right operand, best with 64 columns.  So tiles are that small, and keys (in the backward values, too) are
 * transposed once before, in blocks of 64 keys. */
#ifndef BQ_ATTEND_H
#define BQ_ATTEND_H

#include "kernels/cpu/pieces.h"
#include "kernels/cpu/small.h"
#include "kernels/cpu/vec.h"

enum {
    BQ_ATTEND_BLOCK = 64, /* keys in a transposed block */
    BQ_ATTEND_KEYS = 128, /* keys in a tile */
    BQ_ATTEND_LD = 144,   /* floats from row to row of a tile in memory; rows of 512 bytes would use
                             only few sets of the cache */
};

typedef struct {
    bq_attention a;
    int64_t tokens, queries, tiles; /* queries in a tile; number of tiles of queries */
    int64_t group;                  /* query heads that read one kv head */
    int64_t vd;                     /* size of a head of values */
    bool own;                       /* products by small.h, not by the BLAS */
    int64_t word; /* numbers along k in one word of an operand: 2 where they are rounded to bf16, else 1 */
    bq_mat q, k, v, out, lse, dout, dq;
    bq_mat kt, vt; /* transposed keys, values: row kv * blocks + b is block b of that kv head,
                      (hd / word) x BLOCK words; vd for hd */
    bq_mat kp, vp; /* keys, values as right operands: k and v themselves, or their rows in pairs */
} bq_attend;

/* Fill in all fields but the matrices. */
bq_attend bq_attend_of(bq_compute compute, bq_attention a, int64_t tokens);

static inline float *head(bq_mat m, int64_t row, int64_t h, int64_t hd) {
    return (float *)bq_mat_at(m, row, h * hd);
}

/* The first key tile that query tile i sees, and the end of the range. */
static inline int64_t first_key(const bq_attend *j, int64_t i) {
    return j->a.window > 0 ? most(0, i * j->queries - j->a.window + 1) / BQ_ATTEND_KEYS : 0;
}
static inline int64_t end_key(const bq_attend *j, int64_t i) {
    return pieces(least((i + 1) * j->queries, j->tokens), BQ_ATTEND_KEYS);
}

/* The tile of query tile i and key tile `key`.  Its columns end with the last key that its last row sees. */
static inline bq_tile tile_at(const bq_attend *j, int64_t i, int64_t key) {
    int64_t first = i * j->queries, rows = least(j->queries, j->tokens - first);
    return (bq_tile){.rows = rows,
                     .cols = least(BQ_ATTEND_KEYS, first + rows - key * BQ_ATTEND_KEYS),
                     .ld = BQ_ATTEND_LD,
                     .shift = first - key * BQ_ATTEND_KEYS,
                     .window = j->a.window,
                     .cap = j->a.cap};
}

/* The working memory of a thread: two tiles of scores; two numbers for each row; and, for bf16, pairs: of
 * scores by rows, of both tiles by columns, of q and dout by rows and by columns. */
typedef struct {
    float *s, *dp, *max, *sum, *rows, *columns[2], *q[2], *dout[2];
} bq_attend_parts;

bq_attend_parts bq_attend_parts_of(const bq_attend *j, float *at);
int64_t bq_attend_numbers(const bq_attend *j); /* floats that the parts need */

/* transpose: the rows of a matrix of heads become columns of blocks in `to`.  paired: its rows in pairs, in
 * `to`; where operands are floats it returns m itself. */
void bq_attend_transpose(const bq_attend *j, bq_mat m, bq_mat to);
bq_mat bq_attend_paired(const bq_attend *j, bq_mat m, bq_mat to);

/* The operands of a tile.  keys: from what paired returned.  rows and columns of queries: x itself, or pairs
 * that are made in `to`. */
bq_small_right bq_attend_keys(const bq_attend *j, bq_mat m, int64_t key, int64_t kv);
bq_small_left bq_attend_rows(const bq_attend *j, int64_t rows, int64_t cols, const float *x, int64_t ld,
                             float *to);
bq_small_right bq_attend_columns(const bq_attend *j, int64_t rows, int64_t cols, const float *x, int64_t ld,
                                 float *to);

/* to (rows, t.cols) = alpha * x (rows, hd or vd) times the transposed keys, or values, of tile `key`. */
void bq_attend_score(const bq_attend *j, bq_tile t, float alpha, bq_small_left x, bq_mat keys, int64_t kv,
                     int64_t key, float *to);

/* to (rows, hd) = alpha * x (rows, t.cols) times rows of keys or values; add: plus what `to` was. */
void bq_attend_weigh(const bq_attend *j, bq_tile t, float alpha, bq_small_left x, bq_small_right keys,
                     int64_t hd, bool add, float *to, int64_t ldto);

/* to (t.cols, hd) += alpha * x^T (t.cols, rows) times rows of queries; x: a tile, in words. */
void bq_attend_gather(const bq_attend *j, bq_tile t, float alpha, const float *x, bq_small_right rows,
                      int64_t hd, float *to, int64_t ldto);

#endif
