/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of tuned_weights and tuned_step.  Elements are independent; sums run in 16 fixed lanes. */
#include "kernels/cpu/vec_grid.h"

#include "base/num.h"

#include <math.h>

#define BQ_X(ret, name, args) ret BQ_V(name) args;
BQ_VEC_TUNED(BQ_X)
#undef BQ_X

static inline void on_grid(const float *x, int64_t n, bq_row_grid grid, float *y) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) y[j] = bq_on_grid(x[j], grid);
}

void BQ_V(tuned_row)(const float *w, const float *value, int64_t n, bq_row_grid grid, float *what,
                     float *fold) {
    float x[BLOCK];
    for (int64_t j = 0; j < n; j += BLOCK) {
        int64_t count = n - j < BLOCK ? n - j : BLOCK;
        for (int64_t i = 0; i < count; i++)
            x[i] = bq_tune_before(value != NULL, w[j + i], value ? value[j + i] : 0, grid.scale);
        for (int64_t i = 0; fold && i < count; i++) fold[j + i] = x[i];
        BQ_EACH_NUMBER(grid, on_grid(x, count, grid, what + j));
    }
}

static inline void slopes(const float *w, const float *value, const float *g, int64_t n, bool all,
                          bq_row_grid grid, float *d, float *scale, float *zero) {
    const bool offset = value != NULL;
    const float *of = offset ? value : w;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        const bq_tune_slope s = bq_tune_slope_of(offset, all, w[j], of[j], g[j], grid);
        d[j] = s.value, scale[j] = s.scale, zero[j] = s.zero;
    }
}

void BQ_V(tuned_slopes)(const float *w, const float *value, const float *g, int64_t n, bool all,
                        bq_row_grid grid, float *d, double lane[2][16]) {
    float term[2][BLOCK];
    const int64_t padded = (n + LANES - 1) / LANES * LANES;
    BQ_EACH_NUMBER(grid, slopes(w, value, g, n, all, grid, d, term[0], term[1]));
    for (int k = 0; k < 2; k++) {
        for (int64_t i = n; i < padded; i++) term[k][i] = 0;
        add_lanes(term[k], padded, lane[k]);
    }
}

void BQ_V(take_step)(bq_train_optimizer by, const float *g, int64_t n, bq_adam_step a, float *p, float *m,
                     float *v) {
    float none = 0;
    if (by == BQ_SIGN) {
#pragma omp simd private(none)
        for (int64_t j = 0; j < n; j++) bq_take_step(BQ_SIGN, g[j], a, p + j, &none, &none);
    } else if (by == BQ_MOMENTUM) {
#pragma omp simd private(none)
        for (int64_t j = 0; j < n; j++) bq_take_step(BQ_MOMENTUM, g[j], a, p + j, m + j, &none);
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) bq_take_step(BQ_ADAM, g[j], a, p + j, m + j, v + j);
    }
}
