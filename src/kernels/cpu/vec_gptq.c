/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/vec_grid.h"

#include "base/num.h"

#include <string.h>

#define BQ_X(ret, name, args) ret BQ_V(name) args;
BQ_VEC_GPTQ(BQ_X)
#undef BQ_X

enum { PANEL = BQ_GPTQ_ROWS };

/* A vector register of this instruction set.  Lanes do not interact, so its width does not change the bits.
 * Eight accumulators hide the latency of the subtraction and leave registers for the rest. */
typedef float vector __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));
enum { EACH = __BIGGEST_ALIGNMENT__ / 4, WIDE = 2, LINES = 4, MORE = WIDE * LINES };

static inline vector load(const float *p) {
    vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

void BQ_V(gptq_update)(float *w, const float *e, const float *u, int64_t n) {
    for (int l = 0; l < PANEL; l += MORE * EACH) {
        vector sum[MORE];
        for (int i = 0; i < MORE; i++) sum[i] = load(w + l + i * EACH);
        for (int64_t k = 0; k < n; k++) {
            for (int i = 0; i < MORE; i++) sum[i] -= load(e + k * PANEL + l + i * EACH) * u[k];
        }
        for (int i = 0; i < MORE; i++) memcpy(w + l + i * EACH, &sum[i], sizeof sum[i]);
    }
}

/* Four lines at a time, so that an error is loaded once and used four times.  All errors of these lanes stay
 * in the first-level cache. */
static inline void update_lines(float *w, int lines, const float *e, const float *u, int64_t ldu, int64_t n) {
    vector sum[LINES][WIDE];
    for (int c = 0; c < lines; c++) {
        for (int i = 0; i < WIDE; i++) sum[c][i] = load(w + c * PANEL + i * EACH);
    }
    for (int64_t k = 0; k < n; k++) {
        vector x[WIDE];
        for (int i = 0; i < WIDE; i++) x[i] = load(e + k * PANEL + i * EACH);
        for (int c = 0; c < lines; c++) {
            for (int i = 0; i < WIDE; i++) sum[c][i] -= x[i] * u[c * ldu + k];
        }
    }
    for (int c = 0; c < lines; c++) {
        for (int i = 0; i < WIDE; i++) memcpy(w + c * PANEL + i * EACH, &sum[c][i], sizeof sum[c][i]);
    }
}

void BQ_V(gptq_update_all)(float *w, int64_t count, const float *e, const float *u, int64_t ldu, int64_t n) {
    for (int l = 0; l < PANEL; l += WIDE * EACH) {
        int64_t c = 0;
        for (; c + LINES <= count; c += LINES)
            update_lines(w + c * PANEL + l, LINES, e + l, u + c * ldu, ldu, n);
        for (; c < count; c++) update_lines(w + c * PANEL + l, 1, e + l, u + c * ldu, ldu, n);
    }
}

static inline void quantize(float *w, const float *scale, const float *zero, bq_row_grid g, float d,
                            float *e) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++) {
        const bq_row_grid lane = bq_row_grid_at(g, scale[l], zero[l]);
        e[l] = (w[l] - bq_on_code_grid(w[l], lane)) / d;
        w[l] = bq_near_grid(w[l], lane);
    }
}

void BQ_V(gptq_quantize)(float *w, const float *scale, const float *zero, bq_scheme s, float d, float *e) {
    bq_row_grid g = bq_row_grid_unit(s);
    BQ_EACH_NUMBER(g, quantize(w, scale, zero, g, d, e));
}

void BQ_V(gptq_choose)(const float *w, const float *d, float *keep) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++) {
        float m0 = bq_importance(w[l] / d[0]), m1 = bq_importance(w[PANEL + l] / d[1]),
              m2 = bq_importance(w[2 * PANEL + l] / d[2]), m3 = bq_importance(w[3 * PANEL + l] / d[3]);
        keep[l] = bq_stays(m0, m1, m2, m3, 0), keep[PANEL + l] = bq_stays(m1, m0, m2, m3, 1);
        keep[2 * PANEL + l] = bq_stays(m2, m0, m1, m3, 2), keep[3 * PANEL + l] = bq_stays(m3, m0, m1, m2, 3);
    }
}

void BQ_V(gptq_drop)(const float *before, const float *keep, float d, float *w, float *e) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++) {
        e[l] = keep[l] != 0 ? e[l] : before[l] / d;
        w[l] = keep[l] != 0 ? w[l] : 0;
    }
}

/* The factor of columns c ... c + 3. */
static inline void factors(const float *statistic, bool root, int64_t c, float f[4]) {
    for (int i = 0; i < 4; i++) {
        float x = statistic ? statistic[c + i] : 1;
        f[i] = root ? sqrtf(x) : x;
    }
}

void BQ_V(sparse24)(float *w, const float *statistic, bool root, int64_t n) {
#pragma omp simd
    for (int64_t c = 0; c < n; c += 4) {
        float f[4];
        factors(statistic, root, c, f);
        float m0 = bq_importance(w[c] * f[0]), m1 = bq_importance(w[c + 1] * f[1]),
              m2 = bq_importance(w[c + 2] * f[2]), m3 = bq_importance(w[c + 3] * f[3]);
        w[c] = bq_stays(m0, m1, m2, m3, 0) ? w[c] : 0, w[c + 1] = bq_stays(m1, m0, m2, m3, 1) ? w[c + 1] : 0;
        w[c + 2] = bq_stays(m2, m0, m1, m3, 2) ? w[c + 2] : 0,
              w[c + 3] = bq_stays(m3, m0, m1, m2, 3) ? w[c + 3] : 0;
    }
}

static inline double sum_errors(const float *w, const float *weight, int64_t n, bq_row_grid grid,
                                double limit) {
    double lane[LANES] = {0}, sum = 0;
    float term[BLOCK];
    for (int64_t j = 0; j < n; j += BLOCK) {
        int64_t count = n - j < BLOCK ? n - j : BLOCK, padded = (count + LANES - 1) / LANES * LANES;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float d = bq_on_grid(w[j + i], grid) - w[j + i];
            term[i] = weight[j + i] * d * d;
        }
        for (int64_t i = count; i < padded; i++) term[i] = 0;
        add_lanes(term, padded, lane);
        double half[LANES];
        memcpy(half, lane, sizeof half);
        sum = sum_lanes(half);
        if (sum > limit) return sum;
    }
    return sum;
}

double BQ_V(fit_error)(const float *w, const float *weight, int64_t n, const bq_row_grid *at, double limit) {
    bq_row_grid grid = *at;
    double sum;
    BQ_EACH_NUMBER(grid, sum = sum_errors(w, weight, n, grid, limit));
    return sum;
}
