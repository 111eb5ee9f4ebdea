/* SPDX-License-Identifier: Apache-2.0 */
/* Elements are independent, so loops over them vectorize; sums run in 16 fixed lanes (vec_grid.h). */
#include "kernels/cpu/vec_grid.h"

#include "base/num.h"

#include <string.h>

#define BQ_X(ret, name, args) ret BQ_V(name) args;
BQ_VEC_SEARCH(BQ_X)
#undef BQ_X

static inline void errors(const float *w, int64_t n, bq_row_grid grid, float *e) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) e[j] = bq_on_grid(w[j], grid) - w[j];
}

void BQ_V(grid_error)(const float *w, int64_t n, bq_row_grid grid, float *e) {
    BQ_EACH_NUMBER(grid, errors(w, n, grid, e));
}

static inline void terms(const float *w, int64_t n, bq_row_grid grid, bq_norm norm, float *term) {
    if (norm == BQ_NORM_2) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            float e = bq_on_grid(w[j], grid) - w[j];
            term[j] = e * e;
        }
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float e = bq_on_grid(w[j], grid) - w[j];
        term[j] = e * e * bq_fifth_root(e * e);
    }
}

void BQ_V(grid_losses)(const float *w, int64_t n, const bq_row_grid *grid, int count, bq_norm norm,
                       double *loss) {
    double lane[BQ_SEARCH_GRIDS][LANES];
    float term[BLOCK];
    memset(lane, 0, (size_t)count * sizeof *lane);
    for (int64_t j = 0; j < n; j += BLOCK) {
        int64_t some = n - j < BLOCK ? n - j : BLOCK, padded = (some + LANES - 1) / LANES * LANES;
        for (int64_t i = some; i < padded; i++) term[i] = 0;
        for (int k = 0; k < count; k++) {
            bq_row_grid g = grid[k];
            BQ_EACH_NUMBER(g, terms(w + j, some, g, norm, term));
            add_lanes(term, padded, lane[k]);
        }
    }
    for (int k = 0; k < count; k++) loss[k] = sum_lanes(lane[k]);
}

double BQ_V(inner)(int64_t n, const float *a, const float *b) {
    double lane[LANES] = {0};
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
#pragma omp simd
        for (int i = 0; i < LANES; i++) lane[i] += (double)a[j + i] * (double)b[j + i];
    }
    for (int i = 0; j + i < n; i++) lane[i] += (double)a[j + i] * (double)b[j + i];
    return sum_lanes(lane);
}

/* A block's codes and errors, and of each error what is left out of the fit. */
typedef struct {
    float code[BLOCK], d[BLOCK], e[BLOCK];
} split;

static inline void split_off(const float *w, int64_t n, bq_row_grid grid, float zero, bq_quadratic o,
                             double beta, float least, split *x) {
    float most = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++) {
        x->code[j] = bq_nearest(grid.number, bq_clamp(w[j] / grid.scale + zero, grid.qmin, grid.qmax));
        x->d[j] = w[j] - (x->code[j] - zero) * grid.scale;
        float size = x->d[j] < 0 ? -x->d[j] : x->d[j];
        most = size > most ? size : most;
    }
    memset(x->e, 0, sizeof x->e);
    for (int64_t j = 0; j < n && most > least; j++) x->e[j] = bq_quadratic_left(o, beta, least, x->d[j]);
}

void BQ_V(quadratic)(const float *w, int64_t n, bq_row_grid grid, float zero, bq_quadratic o, double beta,
                     float least, double sum[3]) {
    double lane[3][LANES] = {{0}};
    float term[3][BLOCK];
    split x;
    grid = bq_row_grid_whole(grid);
    for (int64_t j = 0; j < n; j += BLOCK) {
        int64_t some = n - j < BLOCK ? n - j : BLOCK, padded = (some + LANES - 1) / LANES * LANES;
        for (int k = 0; k < 3; k++) memset(term[k] + some, 0, (size_t)(padded - some) * sizeof(float));
        split_off(w + j, some, grid, zero, o, beta, least, &x);
#pragma omp simd
        for (int64_t i = 0; i < some; i++) {
            float fitted = w[j + i] - x.e[i], steps = x.code[i] - zero;
            term[0][i] = x.d[i] < 0 ? -x.d[i] : x.d[i];
            term[1][i] = o.solve == BQ_SOLVE_ZERO ? x.code[i] - fitted / grid.scale : fitted * steps;
            term[2][i] = o.solve == BQ_SOLVE_ZERO ? 1 : steps * steps;
        }
        for (int k = 0; k < 3; k++) add_lanes(term[k], padded, lane[k]);
    }
    for (int k = 0; k < 3; k++) sum[k] = sum_lanes(lane[k]);
}
