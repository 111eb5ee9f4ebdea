/* SPDX-License-Identifier: Apache-2.0 */
/* Loops over independent elements are left to the compiler (omp simd).  Every lane does the same IEEE
 * operations as the scalar rest of a loop, so neither the vector width nor the length of a row changes the
 * bits.  Only in sums the order matters.  Their terms go, a block at a time on the stack, to 16 lanes of
 * doubles: element j is always added to lane j % 16. */
#include "kernels/cpu/vec.h"

#include "base/num.h"
#include "kernels/cpu/vec_grid.h"

#include <math.h>

#define BQ_X(ret, name, args) ret BQ_V(name) args;
BQ_VEC_QUANT(BQ_X)
#undef BQ_X

/* bq_philox (base/rng.h) for 64 quads at once, round by round: a loop over calls of
 * bq_philox would not vectorize. */
enum { QUADS = 64 };

static void philox(bq_rng_key at, uint32_t quad, uint32_t *word) {
    uint32_t a[QUADS], b[QUADS], c[QUADS], d[QUADS], k0 = (uint32_t)at.seed, k1 = (uint32_t)(at.seed >> 32);
    uint32_t place = at.block << 16 | (at.phase & 255u) << 8 | (at.sweep & 255u);
    for (int i = 0; i < QUADS; i++)
        a[i] = quad + (uint32_t)i, b[i] = at.sample, c[i] = at.iteration, d[i] = place;
    for (int round = 0; round < 10; round++) {
#pragma omp simd
        for (int i = 0; i < QUADS; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * a[i], p1 = (uint64_t)0xCD9E8D57u * c[i];
            a[i] = (uint32_t)(p1 >> 32) ^ b[i] ^ k0, c[i] = (uint32_t)(p0 >> 32) ^ d[i] ^ k1;
            b[i] = (uint32_t)p1, d[i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
#pragma omp simd
    for (int i = 0; i < QUADS; i++) {
        word[4 * i] = a[i], word[4 * i + 1] = b[i], word[4 * i + 2] = c[i], word[4 * i + 3] = d[i];
    }
}

/* A row may start inside a quad; then the first words of that quad are skipped. */
void BQ_V(mix)(const float *fp, const float *qt, int64_t n, int64_t first, uint32_t last, bq_rng_key at,
               float *out) {
    uint32_t word[4 * QUADS];
    int64_t skip = first % 4;
    for (int64_t j = 0; j < n;) {
        int64_t count = 4 * QUADS - skip < n - j ? 4 * QUADS - skip : n - j;
        philox(at, (uint32_t)((first + j) / 4), word);
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float a = fp[j + i], b = qt[j + i];
            out[j + i] = word[skip + i] <= last ? b : a;
        }
        j += count, skip = 0;
    }
}

/* Any order gives the same smallest and largest number, so the lanes here are for speed only. */
void BQ_V(minmax)(const float *w, int64_t n, float start, float *lo, float *hi) {
    float low[LANES], high[LANES];
    int64_t j = 0;
    for (int i = 0; i < LANES; i++) low[i] = high[i] = start;
    for (; j + LANES <= n; j += LANES) {
#pragma omp simd
        for (int i = 0; i < LANES; i++) {
            low[i] = w[j + i] < low[i] ? w[j + i] : low[i];
            high[i] = w[j + i] > high[i] ? w[j + i] : high[i];
        }
    }
    for (int i = 0; j < n; j++, i++) {
        low[i] = w[j] < low[i] ? w[j] : low[i];
        high[i] = w[j] > high[i] ? w[j] : high[i];
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
#pragma omp simd
        for (int i = 0; i < half; i++) {
            low[i] = low[i + half] < low[i] ? low[i + half] : low[i];
            high[i] = high[i + half] > high[i] ? high[i + half] : high[i];
        }
    }
    *lo = low[0], *hi = high[0];
}

static inline void codes(const float *w, int64_t n, bq_row_grid grid, int origin, int8_t *code) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) code[j] = (int8_t)((int32_t)bq_grid_code_of(w[j], grid) + origin);
}

void BQ_V(quantize)(const float *w, int64_t n, const bq_row_grid *at, int origin, int8_t *code) {
    bq_row_grid grid = *at;
    BQ_EACH_WAY(grid, codes(w, n, grid, origin, code));
}

static inline void float_codes(const float *w, int64_t n, bq_row_grid grid, bq_element e, int8_t *code) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        const float x = bq_clamp_code(bq_grid_steps(w[j], grid), e.low, e.high);
        code[j] = bq_float_code(e, bq_nearest_float(e.number, x));
    }
}

void BQ_V(quantize_float)(const float *w, int64_t n, bq_row_grid grid, bq_element e, int8_t *code) {
    if (grid.way == BQ_WAY_DIVIDE)
        float_codes(w, n, bq_row_grid_by(grid, BQ_WAY_DIVIDE), e, code);
    else
        float_codes(w, n, bq_row_grid_by(grid, BQ_WAY_TIMES), e, code);
}

void BQ_V(dequantize)(const int8_t *code, int64_t n, float scale, int zero, float *w) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) w[j] = (float)(code[j] - zero) * scale;
}

void BQ_V(dequantize_offset)(const int8_t *code, int64_t n, float scale, float zero, float *w) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) w[j] = (float)code[j] * scale + zero;
}

void BQ_V(dequantize_float)(const int8_t *code, int64_t n, float scale, bq_element e, float *w) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) w[j] = bq_float_value(e, code[j]) * scale;
}

/* The folded weight.  The divisions and their order are the specification's: they decide ties. */
static inline float folded(float w, float s2, float e3) { return w / bq_exp(s2) / e3; }

/* x and y may be the same row. */
void BQ_V(round_values)(const float *x, int64_t n, bq_value_grid g, float *y) {
    if (g.number.mantissa && g.times) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) y[j] = bq_value_float_times(x[j], g);
    } else if (g.number.mantissa) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) y[j] = bq_value_float(x[j], g);
    } else if (g.times) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) y[j] = bq_value_times(x[j], g);
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) y[j] = bq_value_over(x[j], g);
    }
}

void BQ_V(adascale_row)(const float *w, const float *s2, int64_t n, float e3, bq_row_grid grid, float *what,
                        float *fold) {
    grid = bq_row_grid_whole(grid);
    if (!fold) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) what[j] = bq_on_grid(folded(w[j], s2[j], e3), grid);
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float x = folded(w[j], s2[j], e3);
        fold[j] = x;
        what[j] = bq_on_grid(x, grid);
    }
}

void BQ_V(adascale_codes)(const float *w, const float *s2, int64_t n, float e3, bq_row_grid grid, bool half,
                          uint16_t *what, float *fold) {
    float code[BLOCK];
    grid = bq_row_grid_whole(grid);
    for (int64_t j = 0; j < n; j += BLOCK) {
        int64_t count = n - j < BLOCK ? n - j : BLOCK;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) code[i] = folded(w[j + i], s2[j + i], e3);
        for (int64_t i = 0; fold && i < count; i++) fold[j + i] = code[i];
#pragma omp simd
        for (int64_t i = 0; i < count; i++) code[i] = bq_grid_code(code[i], grid);
        if (half) {
#pragma omp simd
            for (int64_t i = 0; i < count; i++) what[j + i] = bq_to_f16(code[i]);
        } else {
#pragma omp simd
            for (int64_t i = 0; i < count; i++) what[j + i] = bq_to_bf16(code[i]);
        }
    }
}

void BQ_V(adam)(const float *g, int64_t n, bq_adam_step a, float *p, float *m, float *v) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float mj = m[j] + a.keep1 * (g[j] - m[j]);
        float vj = v[j] * a.beta2 + a.keep2 * g[j] * g[j];
        m[j] = mj, v[j] = vj;
        p[j] -= a.step * mj / (sqrtf(vj) / a.root + a.eps);
    }
}

/* Gradients of one block of terms: ds2, and the terms of dL/dscale.  The mask looks at the rounded value, so
 * r is clamped to one step outside the grid and not to the grid. */
static inline void gradients(const float *w, const float *s2, const float *g, int64_t n, float e3,
                             bq_row_grid grid, float *ds2, float *term) {
    float below = grid.qmin - 1, above = grid.qmax + 1;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float x = folded(w[j], s2[j], e3), r = x / grid.scale;
        float k = bq_nearest(grid.number, bq_clamp(r, below, above)), q = bq_clamp(k, grid.qmin, grid.qmax);
        float slope = k == q ? k - r : q, pass = k == q ? g[j] : 0.0f;
        ds2[j] = -(pass * x);
        term[j] = g[j] * slope;
    }
}

void BQ_V(adascale_step)(const float *w, const float *g, int64_t n, float e3, bq_row_grid grid,
                         bq_adam_step adam, float *s2, float *m, float *v, float *grad, double sum[2]) {
    double scale[LANES] = {0}, row[LANES] = {0};
    float ds2[BLOCK], term[BLOCK];
    grid = bq_row_grid_whole(grid);
    for (int64_t j = 0; j < n; j += BLOCK) {
        int64_t count = n - j < BLOCK ? n - j : BLOCK, padded = (count + LANES - 1) / LANES * LANES;
        gradients(w + j, s2 + j, g + j, count, e3, grid, ds2, term);
        for (int64_t i = count; i < padded; i++) ds2[i] = term[i] = 0;
        add_lanes(term, padded, scale);
        add_lanes(ds2, padded, row);
        if (!grad) {
            BQ_V(adam)(ds2, count, adam, s2 + j, m + j, v + j);
        } else {
            for (int64_t i = 0; i < count; i++) grad[j + i] = ds2[i];
        }
    }
    sum[0] = sum_lanes(scale), sum[1] = sum_lanes(row);
}
