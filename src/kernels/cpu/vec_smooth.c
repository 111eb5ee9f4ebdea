/* SPDX-License-Identifier: Apache-2.0 */
/* As in vec_quant.c: loops over independent elements are left to the compiler; sums run
 * in 16 lanes of doubles. */
#include "kernels/cpu/vec_grid.h"

#include <math.h>

#define BQ_X(ret, name, args) ret BQ_V(name) args;
BQ_VEC_SMOOTH(BQ_X)
#undef BQ_X

void BQ_V(column_max)(const float *x, int64_t n, float sign, float *m) {
    if (sign == 0) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) m[j] = fabsf(x[j]) > m[j] ? fabsf(x[j]) : m[j];
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) m[j] = sign * x[j] > m[j] ? sign * x[j] : m[j];
}

void BQ_V(column_sum)(const float *x, int64_t n, float factor, double *sum) {
    if (factor < 0) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) sum[j] += (double)x[j] * (double)x[j];
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) sum[j] += (double)(fabsf(x[j]) * factor);
}

void BQ_V(col_times)(const float *x, const float *s, int64_t n, float *y) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) y[j] = x[j] * s[j];
}

void BQ_V(col_over)(const float *x, const float *s, int64_t n, float *y) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) y[j] = x[j] / s[j];
}

static inline void on_grid(const float *x, int64_t n, bq_row_grid grid, const float *s, float *y) {
    if (s) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) y[j] = bq_on_code_grid(x[j], grid) / s[j];
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) y[j] = bq_on_code_grid(x[j], grid);
}

void BQ_V(fake)(const float *x, int64_t n, const bq_row_grid *at, const float *s, float *y) {
    bq_row_grid grid = *at;
    BQ_EACH_NUMBER(grid, on_grid(x, n, grid, s, y));
}

void BQ_V(clip)(const float *w, int64_t n, float c, float *y) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float x = w[j] > c ? c : w[j];
        y[j] = x < -c ? -c : x;
    }
}

static inline void differences(const float *a, const float *b, int64_t n, bq_distance kind, float *term) {
    if (kind == BQ_DISTANCE_MSE) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) term[j] = (a[j] - b[j]) * (a[j] - b[j]);
    } else if (kind == BQ_DISTANCE_MAE) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) term[j] = fabsf(a[j] - b[j]);
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) term[j] = sqrtf(fabsf(a[j] - b[j]));
    }
}

double BQ_V(distance)(const float *a, const float *b, int64_t n, bq_distance kind) {
    double lane[LANES] = {0};
    float term[BLOCK];
    for (int64_t j = 0; j < n; j += BLOCK) {
        int64_t count = n - j < BLOCK ? n - j : BLOCK, padded = (count + LANES - 1) / LANES * LANES;
        differences(a + j, b + j, count, kind, term);
        for (int64_t i = count; i < padded; i++) term[i] = 0;
        add_lanes(term, padded, lane);
    }
    return sum_lanes(lane);
}
