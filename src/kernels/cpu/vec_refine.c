/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/vec_grid.h"

#define BQ_X(ret, name, args) ret BQ_V(name) args;
BQ_VEC_REFINE(BQ_X)
#undef BQ_X

enum { PANEL = BQ_GPTQ_ROWS };

static inline void codes(const float *w, const float *scale, const float *zero, bq_row_grid g, float *code) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++) code[l] = bq_grid_code_of(w[l], bq_row_grid_at(g, scale[l], zero[l]));
}

void BQ_V(refine_codes)(const float *w, const float *scale, const float *zero, bq_scheme s, float *code) {
    bq_row_grid g = bq_row_grid_unit(s);
    BQ_EACH_NUMBER(g, codes(w, scale, zero, g, code));
}

static inline void error(const float *code, const float *target, const float *scale, const float *zero,
                         bq_row_grid g, float *e) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++)
        e[l] = target[l] - bq_grid_value(code[l], bq_row_grid_at(g, scale[l], zero[l]));
}

void BQ_V(refine_error)(const float *code, const float *target, const float *scale, const float *zero,
                        bq_scheme s, float *e) {
    bq_row_grid g = bq_row_grid_unit(s);
    BQ_EACH_NUMBER(g, error(code, target, scale, zero, g, e));
}

static inline void step(float *code, const float *r, const float *scale, const float *zero, bq_row_grid g,
                        float d, float *e) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++)
        e[l] = bq_refine_step(code + l, r[l], d, bq_row_grid_at(g, scale[l], zero[l]));
}

void BQ_V(refine_step)(float *code, const float *r, const float *scale, const float *zero, bq_scheme s,
                       float d, float *e) {
    bq_row_grid g = bq_row_grid_unit(s);
    BQ_EACH_NUMBER(g, step(code, r, scale, zero, g, d, e));
}

void BQ_V(refine_sum)(const float *a, const float *b, double *sum) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++) sum[l] += (double)a[l] * (double)b[l];
}

void BQ_V(refine_shift)(float *r, const float *by, const float *p) {
#pragma omp simd
    for (int l = 0; l < PANEL; l++) r[l] -= by[l] * p[l];
}
