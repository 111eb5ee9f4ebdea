/* SPDX-License-Identifier: Apache-2.0 */
/* tiles.cuh - tiles of attention, in shared memory and registers, and their products on tensor cores.
 *
 * A thread block has BQ_ATTEND_THREADS threads, 4 warps, and a tile of `rows` rows that stays in shared
 * memory. Tiles of `moving` rows of the other side pass by.  A warp has 16 rows of the tile that stays.  Of
 * its scores (16 x moving) lane 4 g + t has, in s[n][2 r + e], row g + 8 r and column 8 n + 2 t + e; of a
 * result it has the same places in o[c].  Where heads are wider than 128, two warps share 16 rows: both
 * compute the scores, and each has half of the result's columns, so that a result fits into registers.
 *
 * A matrix is one head of a wider matrix: `hd` columns from `at`, rows `ld` apart.  Rows from `rows` on, and
 * columns from hd to HD, count as 0. */
#ifndef BQ_TILES_CUH
#define BQ_TILES_CUH

#include "kernels/cuda/parts.cuh"
#include "kernels/cuda/reduce.cuh"

enum { BQ_ATTEND_THREADS = 128 };

/* The sizes of a kernel.  Shared memory has words (mma.cuh).  A tile is stored `along` its rows where the sum
 * goes over the columns (scores), and `across` where it goes over the rows; these differ in bf16 alone.  Rows
 * of a tile are a pitch apart with which the 32 lanes of a load are in 32 banks. */
template <int WIDTH, bq_compute COMPUTE> struct bq_shape {
    static constexpr bq_compute way = COMPUTE;
    static constexpr int hd = WIDTH, halves = hd > 128 ? 2 : 1, columns = hd / halves; /* columns of a warp */
    static constexpr int rows = 64 / halves, moving = hd > 192 ? 16 : 32;
    static constexpr int per = way == BQ_COMPUTE_BF16 ? 2 : 1;        /* numbers of a word */
    static constexpr int along = hd / per + 4, across = hd + 4 * per; /* pitches */
    static constexpr int kept = rows * along, passing = moving * along, turned = moving / per * across;
    static constexpr int both = passing + (per > 1 ? turned : 0); /* a tile that is read both ways */
};

/* A number as the word of a tile, in the ways with a number a word. */
template <bq_compute WAY> static inline __device__ uint32_t bq_word(float x) {
    return WAY == BQ_COMPUTE_F32 ? bq_bits(x) : bq_word_tf32(x);
}

struct alignas(16) bq_four {
    float v[4];
};
struct alignas(16) bq_words {
    uint32_t w[4];
};

struct bq_head {
    const float *at;
    int64_t ld, rows;
    int hd;
};

/* A lane's place in what its warp has; the first of the warp's rows, and of its columns of a result. */
static inline __device__ int bq_g() { return (int)threadIdx.x % 32 / 4; }
static inline __device__ int bq_t() { return (int)threadIdx.x % 4; }
template <class S> static inline __device__ int bq_warp_row() {
    return (int)threadIdx.x / 32 / S::halves * 16;
}
template <class S> static inline __device__ int bq_warp_column() {
    return (int)threadIdx.x / 32 % S::halves * S::columns;
}

/* Values of the 4 lanes that share a row, joined, the same in all of them. */
template <class OP> static inline __device__ float bq_quad(float v, OP op) {
    for (int w = 2; w > 0; w /= 2) v = op(v, __shfl_xor_sync(BQ_WARP, v, w));
    return v;
}

/* Four columns of a row, by one load where the matrix allows it. */
static inline __device__ bool bq_in_fours(bq_head m) {
    return m.hd % 4 == 0 && m.ld % 4 == 0 && (uintptr_t)m.at % 16 == 0;
}
static inline __device__ bq_four bq_load_four(bq_head m, bool in_fours, int64_t row, int col) {
    bq_four x = {};
    if (row >= m.rows || col >= m.hd) return x;
    const float *at = m.at + row * m.ld + col;
    if (in_fours) return *(const bq_four *)at;
    for (int i = 0; i < 4; i++) x.v[i] = col + i < m.hd ? at[i] : 0;
    return x;
}

/* Store `rows` rows of m from `row` to a tile along its rows. */
template <class S> static __device__ void bq_tile_load(bq_head m, int64_t row, int rows, uint32_t *to) {
    const bool in_fours = bq_in_fours(m);
    for (int i = (int)threadIdx.x; i < rows * (S::hd / 4); i += BQ_ATTEND_THREADS) {
        const int r = i / (S::hd / 4), c = i % (S::hd / 4) * 4;
        const bq_four x = bq_load_four(m, in_fours, row + r, c);
        uint32_t *at = to + r * S::along + c / S::per;
        if constexpr (S::way == BQ_COMPUTE_BF16) {
            for (int k = 0; k < 2; k++) at[k] = bq_word_bf16(x.v[2 * k], x.v[2 * k + 1]);
        } else {
            bq_words w;
            for (int k = 0; k < 4; k++) w.w[k] = bq_word<S::way>(x.v[k]);
            *(bq_words *)at = w;
        }
    }
}

/* The same of S::moving rows to a tile across its rows. */
template <class S> static __device__ void bq_tile_load_across(bq_head m, int64_t row, uint32_t *to) {
    if constexpr (S::per == 1) {
        bq_tile_load<S>(m, row, S::moving, to);
    } else {
        const bool in_fours = bq_in_fours(m);
        for (int i = (int)threadIdx.x; i < S::moving / 2 * (S::hd / 4); i += BQ_ATTEND_THREADS) {
            const int r = i / (S::hd / 4), c = i % (S::hd / 4) * 4;
            const bq_four x = bq_load_four(m, in_fours, row + 2 * r, c),
                          y = bq_load_four(m, in_fours, row + 2 * r + 1, c);
            bq_words w;
            for (int k = 0; k < 4; k++) w.w[k] = bq_word_bf16(x.v[k], y.v[k]);
            *(bq_words *)(to + r * S::across + c) = w;
        }
    }
}

/* The same to a tile that is read both ways; returns where it is stored across its rows. */
template <class S> static __device__ uint32_t *bq_tile_load_both(bq_head m, int64_t row, uint32_t *to) {
    bq_tile_load<S>(m, row, S::moving, to);
    if constexpr (S::per > 1) bq_tile_load_across<S>(m, row, to + S::passing);
    return to + (S::per > 1 ? S::passing : 0);
}

/* s = the warp's rows of a times the transpose of b, both tiles along their rows.  In the way F32 a step's
 * sum starts from 0 and is added to s, rounded to nearest: so what a tensor core cuts is a part of 8
 * products, not of the score. */
template <class S>
static __device__ void bq_tile_scores(const uint32_t *a, const uint32_t *b, float (&s)[S::moving / 8][4]) {
    a += (bq_warp_row<S>() + bq_g()) * S::along + bq_t(), b += bq_g() * S::along + bq_t();
    BQ_UNROLL()
    for (int n = 0; n < S::moving / 8; n++)
        for (int e = 0; e < 4; e++) s[n][e] = 0;
    BQ_UNROLL(2)
    for (int c = 0; c < S::hd / S::per; c += 8) {
        const uint32_t *p = a + c, *q = p + 8 * S::along, left[4] = {p[0], q[0], p[4], q[4]};
        const bq_parts<4> x = bq_parts_of<S::way>(left);
        BQ_UNROLL()
        for (int n = 0; n < S::moving / 8; n++) {
            const uint32_t right[2] = {b[n * 8 * S::along + c], b[n * 8 * S::along + c + 4]};
            const bq_parts<2> y = bq_parts_of<S::way>(right);
            if constexpr (S::way == BQ_COMPUTE_F32) {
                float sum[4] = {};
                bq_mma<S::way>(sum, x, y);
                for (int e = 0; e < 4; e++) s[n][e] += sum[e];
            } else {
                bq_mma<S::way>(s[n], x, y);
            }
        }
    }
}

/* Scores of a step as the left operand of bq_tile_add.  They stay in their lanes: in tf32 words t and t + 4
 * of a step are its columns 2 t and 2 t + 1; in bf16 word t is these two, and t + 4 those of the next 8. */
template <class S> static inline __device__ bq_parts<4> bq_tile_left(const float (*p)[4], int step) {
    uint32_t w[4];
    for (int r = 0; r < 2; r++)
        for (int k = 0; k < 2; k++)
            if constexpr (S::way == BQ_COMPUTE_BF16)
                w[2 * k + r] = bq_word_bf16(p[2 * step + k][2 * r], p[2 * step + k][2 * r + 1]);
            else
                w[2 * k + r] = bq_word<S::way>(p[step][2 * r + k]);
    return bq_parts_of<S::way>(w);
}

/* o = o * keep + p m, row by row; m is a tile across its rows.  The sum of a step starts from 0 and is added
 * to o, rounded to nearest.  The loop over the steps is not unrolled, since loads of all steps at once would
 * not fit into registers; so p goes through local memory, some words a tile. */
template <class S>
static __device__ void bq_tile_add(const float (&p)[S::moving / 8][4], const uint32_t *m,
                                   const float (&keep)[2], float (&o)[S::columns / 8][4]) {
    constexpr int one = S::per > 1 ? 1 : 2, other = S::per > 1 ? 4 : 1; /* rows of a lane's two words */
    m += bq_t() * one * S::across + bq_warp_column<S>() + bq_g();
    BQ_UNROLL(1)
    for (int step = 0; step < S::moving / 8 / S::per; step++) {
        const bq_parts<4> left = bq_tile_left<S>(p, step);
        BQ_UNROLL()
        for (int c = 0; c < S::columns / 8; c++) {
            const uint32_t *at = m + step * 8 * S::across + c * 8, right[2] = {at[0], at[other * S::across]};
            float sum[4] = {};
            bq_mma<S::way>(sum, left, bq_parts_of<S::way>(right));
            for (int e = 0; e < 4; e++) o[c][e] = fmaf(o[c][e], step ? 1.0f : keep[e / 2], sum[e]);
        }
    }
}

/* Store the warp's rows of a result to one head of a matrix, from row `first` of the tile that stays, row
 * g + 8 r times factor[r]. */
template <class S>
static __device__ void bq_tile_store(float *to, int64_t ld, int64_t first, int64_t rows, int hd,
                                     const float (&o)[S::columns / 8][4], const float (&factor)[2]) {
    BQ_UNROLL()
    for (int r = 0; r < 2; r++) {
        const int64_t row = first + bq_warp_row<S>() + bq_g() + 8 * r;
        BQ_UNROLL()
        for (int c = 0; c < S::columns / 8; c++)
            for (int e = 0; e < 2; e++) {
                const int col = bq_warp_column<S>() + c * 8 + 2 * bq_t() + e;
                if (row < rows && col < hd) to[row * ld + col] = o[c][2 * r + e] * factor[r];
            }
    }
}

/* Does query i see key j? */
static inline __device__ bool bq_sees(int64_t i, int64_t j, int64_t window) {
    return j <= i && (window == 0 || i - window < j);
}

/* Does any of n queries from i see any of m keys from j? */
static inline __device__ bool bq_any_sees(int64_t i, int n, int64_t j, int m, int64_t window) {
    return j <= i + n - 1 && (window == 0 || i - window < j + m - 1);
}

#endif
