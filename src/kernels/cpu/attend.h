/* attend.h - attention's tiles of queries x keys: where they lie, what is made of keys and values before, and
 * the products of a tile.
 *
 * Products are our own (small.h) where the processor has what they need, of floats or, where the device may
 * round, of pairs of bf16; they leave out what a tile on the diagonal does not see.  Else they are BLAS
 * calls. A call of this size would spend its time packing, unless it is so small that OpenBLAS (AVX-512) has
 * kernels that do without: at most 10^6 multiplications, no transposed right operand, best in 64 columns.  So
 * tiles are that small, and keys (backward: values too) are transposed once before, in blocks of 64. */
#ifndef BQ_ATTEND_H
#define BQ_ATTEND_H

#include "kernels/cpu/pieces.h"
#include "kernels/cpu/small.h"
#include "kernels/cpu/vec.h"

enum {
    BQ_ATTEND_BLOCK = 64, /* keys of a transposed block */
    BQ_ATTEND_KEYS = 128, /* keys of a tile */
    BQ_ATTEND_LD = 144,   /* of a tile in memory: rows of 512 bytes would share few sets of the cache */
};

typedef struct {
    bq_attention a;
    int64_t tokens, queries, tiles; /* queries of a tile; tiles of queries */
    int64_t group;                  /* query heads that share a kv head */
    bool own;
    int64_t word; /* numbers along k that are one word of an operand: 2 where they are rounded */
    bq_mat q, k, v, out, lse, dout, dq;
    bq_mat kt, vt; /* transposed: row kv * blocks + b is block b of that head, hd / word x BLOCK */
    bq_mat kp, vp; /* keys in words: k and v themselves, or their rows in pairs */
} bq_attend;

/* All but the matrices. */
bq_attend bq_attend_of(bq_compute compute, bq_attention a, int64_t tokens);

static inline float *head(bq_mat m, int64_t row, int64_t h, int64_t hd) {
    return (float *)bq_mat_at(m, row, h * hd);
}

/* The key tiles that query tile i sees. */
static inline int64_t first_key(const bq_attend *j, int64_t i) {
    return j->a.window > 0 ? most(0, i * j->queries - j->a.window + 1) / BQ_ATTEND_KEYS : 0;
}
static inline int64_t end_key(const bq_attend *j, int64_t i) {
    return pieces(least((i + 1) * j->queries, j->tokens), BQ_ATTEND_KEYS);
}

/* Columns end with the last key that the last row sees. */
static inline bq_tile tile_at(const bq_attend *j, int64_t i, int64_t key) {
    int64_t first = i * j->queries, rows = least(j->queries, j->tokens - first);
    return (bq_tile){.rows = rows,
                     .cols = least(BQ_ATTEND_KEYS, first + rows - key * BQ_ATTEND_KEYS),
                     .ld = BQ_ATTEND_LD,
                     .shift = first - key * BQ_ATTEND_KEYS,
                     .window = j->a.window};
}

/* Two tiles of scores; two numbers a row; then words of pairs: scores by rows, both tiles by columns, and q
 * and dout by rows and columns. */
typedef struct {
    float *s, *dp, *max, *sum, *rows, *columns[2], *q[2], *dout[2];
} bq_attend_parts;

bq_attend_parts bq_attend_parts_of(const bq_attend *j, float *at);
int64_t bq_attend_numbers(const bq_attend *j); /* floats that they take */

/* Rows of a matrix of heads as columns of blocks, and in pairs (m itself where operands are floats). */
void bq_attend_transpose(const bq_attend *j, bq_mat m, bq_mat to);
bq_mat bq_attend_paired(const bq_attend *j, bq_mat m, bq_mat to);

/* Operands of a tile: keys of what paired gave; queries as they stand, or as pairs that are made in `to`. */
bq_small_right bq_attend_keys(const bq_attend *j, bq_mat m, int64_t key, int64_t kv);
bq_small_left bq_attend_rows(const bq_attend *j, int64_t rows, int64_t cols, const float *x, int64_t ld,
                             float *to);
bq_small_right bq_attend_columns(const bq_attend *j, int64_t rows, int64_t cols, const float *x, int64_t ld,
                                 float *to);

/* to (rows x t.cols) = alpha x (rows x hd) times the transposed keys of tile `key` */
void bq_attend_score(const bq_attend *j, bq_tile t, float alpha, bq_small_left x, bq_mat keys, int64_t kv,
                     int64_t key, float *to);

/* to (rows x hd) = alpha x (rows x t.cols) times rows of keys or values, or that added */
void bq_attend_weigh(const bq_attend *j, bq_tile t, float alpha, bq_small_left x, bq_small_right keys,
                     bool add, float *to, int64_t ldto);

/* to (t.cols x hd) += alpha x^T (t.cols x rows) times rows of queries; x: a tile, in words */
void bq_attend_gather(const bq_attend *j, bq_tile t, float alpha, const float *x, bq_small_right rows,
                      float *to, int64_t ldto);

#endif
