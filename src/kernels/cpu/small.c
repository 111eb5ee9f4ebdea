/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/small.h"

#include "kernels/cpu/lanes.h"

enum { DOWN = 8 };

INLINE __m512 added(bool pairs, __m512 sum, __m512 x, __m512 y) {
    return pairs ? _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)y) : _mm512_fmadd_ps(x, y, sum);
}

/* rows x 32 elements of c; only the lanes in `within` exist. */
INLINE void piece(bool pairs, int rows, int64_t k, float alpha, bq_small_left a, bq_small_right b,
                  const __mmask16 within[2], bool add, float *c, int64_t ldc) {
    __m512 sum[DOWN][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    const float *x = a.at, *y = b.at;
    for (int64_t p = 0; p < k; p++, x += a.step, y += b.row) {
        __m512 left = _mm512_maskz_loadu_ps(within[0], y),
               right = _mm512_maskz_loadu_ps(within[1], y + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            __m512 one = _mm512_set1_ps(x[i * a.row]);
            sum[i][0] = added(pairs, sum[i][0], one, left);
            sum[i][1] = added(pairs, sum[i][1], one, right);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < 2; h++) {
            float *to = c + i * ldc + h * LANES;
            __m512 was = add ? _mm512_maskz_loadu_ps(within[h], to) : _mm512_setzero_ps();
            _mm512_mask_storeu_ps(to, within[h], _mm512_fmadd_ps(sum[i][h], _mm512_set1_ps(alpha), was));
        }
}

INLINE void product(bool pairs, int64_t m, int64_t n, int64_t k, float alpha, bq_small_left a,
                    bq_small_right b, bool add, float *c, int64_t ldc) {
    for (int64_t j = 0; j < n; j += 2 * LANES, b.at += 2 * LANES) {
        const __mmask16 within[2] = {lanes(n - j), lanes(n - j - LANES)}, all[2] = {0xffff, 0xffff};
        bq_small_left rows = a;
        float *to = c + j;
        int64_t i = 0;
        for (; i + DOWN <= m; i += DOWN, rows.at += DOWN * a.row, to += DOWN * ldc) {
            if (within[1] == 0xffff)
                piece(pairs, DOWN, k, alpha, rows, b, all, add, to, ldc);
            else
                piece(pairs, DOWN, k, alpha, rows, b, within, add, to, ldc);
        }
        for (; i < m; i++, rows.at += a.row, to += ldc)
            piece(pairs, 1, k, alpha, rows, b, within, add, to, ldc);
    }
}

void bq_small_gemm(bool pairs, int64_t m, int64_t n, int64_t k, float alpha, bq_small_left a,
                   bq_small_right b, bool add, float *c, int64_t ldc) {
    if (pairs)
        product(true, m, n, k, alpha, a, b, add, c, ldc);
    else
        product(false, m, n, k, alpha, a, b, add, c, ldc);
}

void bq_small_pair_rows(int64_t rows, int64_t cols, const float *x, int64_t ldx, float *to, int64_t ldto) {
    for (int64_t r = 0; r < rows; r++, x += ldx, to += ldto)
        for (int64_t c = 0; c < cols; c += 2 * LANES) {
            __m512 low = _mm512_maskz_loadu_ps(lanes(cols - c), x + c),
                   high = _mm512_maskz_loadu_ps(lanes(cols - c - LANES), x + c + LANES);
            _mm512_mask_storeu_ps(to + c / 2, lanes((cols - c + 1) / 2),
                                  (__m512)_mm512_cvtne2ps_pbh(high, low));
        }
}

void bq_small_pair_columns(int64_t rows, int64_t cols, const float *x, int64_t ldx, float *to, int64_t ldto) {
    for (int64_t r = 0; r < rows; r += 2, x += 2 * ldx, to += ldto)
        for (int64_t c = 0; c < cols; c += LANES) {
            __mmask16 within = lanes(cols - c);
            __m512 low = _mm512_maskz_loadu_ps(within, x + c),
                   high = _mm512_maskz_loadu_ps(r + 1 < rows ? within : 0, x + ldx + c);
            _mm512_mask_storeu_ps(to + c, within, (__m512)woven((__m512i)_mm512_cvtne2ps_pbh(high, low)));
        }
}
