/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/product_pack.h"

#include "kernels/cpu/lanes.h"

static __m512 widened(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Take the next bf16 from each of 32 floats, those of `low` first.  The floats become what is left. */
static __m512i next_term(__m512 *low, __m512 *high) {
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(*high, *low);
    *low -= widened(_mm512_castsi512_si256(both));
    *high -= widened(_mm512_extracti64x4_epi64(both, 1));
    return both;
}

void bq_product_transpose(char *tile) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_load_si512(tile + 64 * i);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int h = 0; h < 16; h += 8)
        for (int i = 0; i < 4; i++) {
            t[h + i] = _mm512_shuffle_i32x4(r[h + i], r[h + i + 4], 0x88);
            t[h + i + 4] = _mm512_shuffle_i32x4(r[h + i], r[h + i + 4], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        _mm512_store_si512(tile + 64 * i, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_store_si512(tile + 64 * (i + 8), _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
    }
}

/* 16 elements from number `at` of a matrix, which is f16 where `half` is set; 0 where the mask has none. */
INLINE __m512 loaded(bq_product_side m, bool half, __mmask16 mask, int64_t at) {
    if (half) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)m.at + at));
    return _mm512_maskz_loadu_ps(mask, (const float *)m.at + at);
}

/* Pack 16 rows from `row` and 32 k from `k`, of which `depth` are inside the matrix, as `terms` tiles.  A row
 * of a tile is a row of the operand, or with `pairs` a pair of k of 16 rows, side by side. */
INLINE void pack_tile(bq_product_side m, bool half, bool across, int terms, bool pairs, float alpha,
                      int64_t row, int64_t k, int64_t depth, char *to) {
    int64_t rows = m.rows - row < LANES ? m.rows - row : LANES;
    __mmask16 lanes = (__mmask16)((1u << rows) - 1);
    __mmask32 inside = (__mmask32)(depth >= STEP ? 0xffffffff : (1u << depth) - 1);
    for (int i = 0; i < 16; i++) {
        __m512 low, high;
        if (across) { /* k = 2i and 2i + 1 of 16 rows */
            int64_t at = (k + 2 * i) * m.ld + row;
            low = loaded(m, half, 2 * i < depth ? lanes : 0, at);
            high = loaded(m, half, 2 * i + 1 < depth ? lanes : 0, at + m.ld);
        } else { /* 32 k of row i */
            int64_t at = (row + i) * m.ld + k;
            low = loaded(m, half, (__mmask16)(i < rows ? inside : 0), at);
            high = loaded(m, half, (__mmask16)(i < rows ? inside >> 16 : 0), at + 16);
        }
        if (!half) low *= alpha, high *= alpha;
        for (int t = 0; t < terms; t++) {
            __m512i both = next_term(&low, &high);
            if (across) both = woven(both);
            _mm512_store_si512(to + t * TILE + 64 * i, both);
        }
    }
    if (across != pairs)
        for (int t = 0; t < terms; t++) bq_product_transpose(to + t * TILE);
}

INLINE void pack_steps(bq_product_side m, bool half, bool across, int terms, bool pairs, float alpha,
                       int64_t row, int64_t k, int64_t depth, char *to) {
    for (int64_t s = 0; s < depth; s += STEP, to += terms * TILE)
        pack_tile(m, half, across, terms, pairs, alpha, row, k + s, depth - s, to);
}

/* The same for 16 rows and 16 k of floats. */
INLINE void pack_floats(bq_product_side m, bool across, bool pairs, float alpha, int64_t row, int64_t k,
                        int64_t depth, char *to) {
    int64_t rows = m.rows - row < LANES ? m.rows - row : LANES;
    __mmask16 lanes = (__mmask16)((1u << rows) - 1);
    for (int64_t s = 0; s < depth; s += FLOAT_STEP, to += TILE) {
        int64_t left = depth - s;
        __mmask16 inside = (__mmask16)(left >= FLOAT_STEP ? 0xffff : (1u << left) - 1);
        for (int i = 0; i < 16; i++) {
            int64_t at = across ? (k + s + i) * m.ld + row : (row + i) * m.ld + k + s;
            __mmask16 there = across ? (i < left ? lanes : 0) : (i < rows ? inside : 0);
            _mm512_store_ps(to + 64 * i, loaded(m, false, there, at) * alpha);
        }
        if (across != pairs) bq_product_transpose(to);
    }
}

void bq_product_pack(bq_product_side m, bq_product_kind kind, bool pairs, float alpha, int64_t row, int64_t k,
                     int64_t depth, char *to) {
#define STEPS(half, across, terms) pack_steps(m, half, across, terms, pairs, alpha, row, k, depth, to)
    int terms = bq_product_terms(kind, pairs);
    if (kind == BQ_PRODUCT_F32)
        m.across ? pack_floats(m, true, pairs, alpha, row, k, depth, to)
                 : pack_floats(m, false, pairs, alpha, row, k, depth, to);
    else if (kind == BQ_PRODUCT_CODES && pairs)
        m.across ? STEPS(true, true, 1) : STEPS(true, false, 1);
    else if (terms == 3)
        m.across ? STEPS(false, true, 3) : STEPS(false, false, 3);
    else if (terms == 2)
        m.across ? STEPS(false, true, 2) : STEPS(false, false, 2);
    else
        m.across ? STEPS(false, true, 1) : STEPS(false, false, 1);
}
