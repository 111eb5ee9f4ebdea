/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/vec.h"

#include <math.h>

enum { PARALLEL = 1 << 15, COLUMNS = 256 }; /* COLUMNS: columns that a thread takes together, row by row */

void bq_cpu_set(bq_dev *dev, bq_mat m, float value) {
    BQ_WANT(dev, m.rows, m.cols, m);
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c++) *(float *)bq_mat_at(m, r, c) = value;
}

void bq_cpu_column_max(bq_dev *dev, bq_mat x, float sign, bq_mat m) {
    BQ_WANT(dev, 1, x.cols, m);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (x.rows * x.cols > PARALLEL)
    for (int64_t c = 0; c < x.cols; c += COLUMNS) {
        int64_t n = x.cols - c < COLUMNS ? x.cols - c : COLUMNS;
        for (int64_t r = 0; r < x.rows; r++) vec->column_max(bq_mat_at(x, r, c), n, sign, bq_mat_at(m, 0, c));
    }
}

/* Add |x| of one row, columns c ... c + n - 1, each divided by the largest of its group. */
static void add_relative(const bq_vec_table *vec, bq_mat x, int64_t r, int64_t c, int64_t n, int64_t group,
                         double *sum) {
    for (int64_t at = c, next; at < c + n; at = next) {
        int64_t start = at / group * group;
        float lo, hi;
        next = start + group < c + n ? start + group : c + n;
        vec->minmax(bq_mat_at(x, r, start), group, 0, &lo, &hi);
        vec->column_sum(bq_mat_at(x, r, at), next - at, 1 / (fmaxf(-lo, hi) + 1e-6f), sum + (at - c));
    }
}

static void column_sums(bq_dev *dev, bq_mat x, int64_t group, bool square, bq_mat sum, const char *op) {
    BQ_WANT(dev, 1, x.cols, sum);
    BQ_CHECK(group <= 0 || x.cols % group == 0, "%s: groups of %ld in %ld columns", op, (long)group,
             (long)x.cols);
    const bq_vec_table *vec = bq_vec();
    /* A group stays with one thread, unless it is wider than COLUMNS. */
    int64_t step = group > 0 && group <= COLUMNS ? COLUMNS / group * group : COLUMNS;
#pragma omp parallel for schedule(static) if (x.rows * x.cols > PARALLEL)
    for (int64_t c = 0; c < x.cols; c += step) {
        double part[COLUMNS] = {0};
        int64_t n = x.cols - c < step ? x.cols - c : step;
        for (int64_t r = 0; r < x.rows; r++)
            if (group > 0)
                add_relative(vec, x, r, c, n, group, part);
            else
                vec->column_sum(bq_mat_at(x, r, c), n, square ? -1 : 1, part);
        for (int64_t i = 0; i < n; i++) *(float *)bq_mat_at(sum, 0, c + i) = (float)part[i];
    }
}

void bq_cpu_column_abs(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum) {
    column_sums(dev, x, group, false, sum, "column_abs");
}

void bq_cpu_column_squares(bq_dev *dev, bq_mat x, bq_mat sum) {
    column_sums(dev, x, 0, true, sum, "column_squares");
}

void bq_cpu_column_dot(bq_dev *dev, bq_mat a, bq_mat b, bq_mat sum) {
    BQ_WANT(dev, 1, a.cols, sum);
    if (b.data) BQ_WANT(dev, a.rows, a.cols, b);
#pragma omp parallel for schedule(static) if (a.rows * a.cols > PARALLEL)
    for (int64_t c = 0; c < a.cols; c += COLUMNS) {
        double part[COLUMNS] = {0};
        const int64_t n = a.cols - c < COLUMNS ? a.cols - c : COLUMNS;
        for (int64_t r = 0; r < a.rows; r++) {
            const float *x = bq_mat_at(a, r, c), *y = b.data ? bq_mat_at(b, r, c) : NULL;
            for (int64_t i = 0; i < n; i++) part[i] += y ? (double)x[i] * (double)y[i] : (double)x[i];
        }
        for (int64_t i = 0; i < n; i++) *(float *)bq_mat_at(sum, 0, c + i) = (float)part[i];
    }
}

static void by_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y,
                       void (*row)(const float *x, const float *s, int64_t n, float *y)) {
    BQ_WANT(dev, 1, x.cols, s);
    BQ_WANT(dev, x.rows, x.cols, x, y);
#pragma omp parallel for schedule(static) if (x.rows * x.cols > PARALLEL)
    for (int64_t r = 0; r < x.rows; r++) row(bq_mat_at(x, r, 0), s.data, x.cols, bq_mat_at(y, r, 0));
}

void bq_cpu_times_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) {
    by_columns(dev, x, s, y, bq_vec()->col_times);
}

void bq_cpu_over_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) {
    by_columns(dev, x, s, y, bq_vec()->col_over);
}

void bq_cpu_over_rows(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) {
    BQ_WANT(dev, x.rows, 1, s);
    BQ_WANT(dev, x.rows, x.cols, x, y);
#pragma omp parallel for schedule(static) if (x.rows * x.cols > PARALLEL)
    for (int64_t r = 0; r < x.rows; r++) {
        const float *from = bq_mat_at(x, r, 0), by = *(const float *)bq_mat_at(s, r, 0);
        float *to = bq_mat_at(y, r, 0);
        for (int64_t c = 0; c < x.cols; c++) to[c] = from[c] / by;
    }
}

void bq_cpu_smooth_scale(bq_dev *dev, bq_smooth_form f, bq_mat act, bq_mat weight, bq_mat s) {
    bool weighted = f.kind == BQ_SMOOTH_ALPHA || f.kind == BQ_SMOOTH_DUO;
    BQ_WANT(dev, 1, s.cols, act, s);
    if (weighted) BQ_WANT(dev, 1, s.cols, weight);
    const float *a = act.data, *w = weight.data;
    float *to = s.data;
    float least = INFINITY, most = 0;
    for (int64_t c = 0; c < s.cols; c++) {
        double x = bq_smooth_scale_of(f, (double)a[c], weighted ? (double)w[c] : 0);
        to[c] = isfinite((float)x) && (float)x > 0 ? (float)x : 1;
        least = to[c] < least ? to[c] : least;
        most = to[c] > most ? to[c] : most;
    }
    if (f.kind != BQ_SMOOTH_POWER && f.kind != BQ_SMOOTH_DUO) return;
    double middle = sqrt((double)most * (double)least);
    for (int64_t c = 0; c < s.cols; c++) to[c] = (float)((double)to[c] / middle);
}

void bq_cpu_head_max(bq_dev *dev, bq_mat s, int64_t head) {
    (void)dev;
    BQ_CHECK(s.type == BQ_F32 && head > 0 && s.cols % head == 0, "head_max: heads of %ld in %ld columns",
             (long)head, (long)s.cols);
    for (int64_t r = 0; r < s.rows; r++) {
        float *row = bq_mat_at(s, r, 0);
        for (int64_t c = 0; c < head; c++) {
            float most = row[c];
            for (int64_t k = c; k < s.cols; k += head) most = row[k] > most ? row[k] : most;
            for (int64_t k = c; k < s.cols; k += head) row[k] = most;
        }
    }
}

/* The min-max grid of n values, as `range` makes and `quantize` uses it. */
static bq_row_grid *grid_of(const bq_vec_table *vec, const float *w, int64_t n, bq_scheme s,
                            bq_row_grid *grid) {
    float lo, hi, zero = 0;
    vec->minmax(w, n, bq_ends_start(s, w, n), &lo, &hi);
    *grid = bq_row_grid_fit(lo, hi, 1, s, &zero);
    return grid;
}

void bq_cpu_smooth_weights(bq_dev *dev, bq_mat w, bq_mat s, bq_scheme scheme, bq_mat out) {
    int64_t group = scheme.group > 0 ? scheme.group : w.cols;
    BQ_WANT(dev, 1, w.cols, s);
    BQ_WANT(dev, w.rows, w.cols, w, out);
    BQ_CHECK(w.cols % group == 0, "smooth_weights: groups of %ld in %ld columns", (long)group, (long)w.cols);
    const bq_vec_table *vec = bq_vec();
    const float *by = s.data;
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++) {
        float *row = bq_mat_at(out, r, 0);
        bq_row_grid grid;
        vec->col_times(bq_mat_at(w, r, 0), by, w.cols, row);
        for (int64_t c = 0; c < w.cols; c += group)
            vec->fake(row + c, group, grid_of(vec, row + c, group, scheme, &grid), by + c, row + c);
    }
}

void bq_cpu_distance(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *sum) {
    BQ_WANT(dev, a.rows, a.cols, a, b);
    const bq_vec_table *vec = bq_vec();
    size_t mark = bq_arena_mark(&dev->mem);
    double *row = bq_arena_push(&dev->mem, 1, a.rows, BQ_F64).data, all = 0;
#pragma omp parallel for schedule(static) if (a.rows * a.cols > PARALLEL)
    for (int64_t r = 0; r < a.rows; r++)
        row[r] = vec->distance(bq_mat_at(a, r, 0), bq_mat_at(b, r, 0), a.cols, kind);
    for (int64_t r = 0; r < a.rows; r++) all += row[r];
    *sum = all;
    bq_arena_reset(&dev->mem, mark);
}

static float largest(const bq_vec_table *vec, bq_mat w, int64_t r) {
    float lo, hi;
    vec->minmax(bq_mat_at(w, r, 0), w.cols, 0, &lo, &hi);
    return fmaxf(-lo, hi);
}

void bq_cpu_clip_error(bq_dev *dev, bq_mat w, float factor, bq_scheme s, bq_mat out) {
    BQ_WANT(dev, w.rows, w.cols, w, out);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++) {
        const float *from = bq_mat_at(w, r, 0);
        float *row = bq_mat_at(out, r, 0);
        bq_row_grid grid;
        vec->clip(from, w.cols, factor * largest(vec, w, r), row);
        vec->fake(row, w.cols, grid_of(vec, row, w.cols, s, &grid), NULL, row);
        for (int64_t c = 0; c < w.cols; c++) row[c] -= from[c];
    }
}

void bq_cpu_clip_rows(bq_dev *dev, bq_mat error, float step, bq_mat w) {
    BQ_WANT(dev, error.rows, w.rows, error);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++) {
        int64_t best = 0;
        for (int64_t i = 1; i < error.rows; i++)
            if (*(float *)bq_mat_at(error, i, r) < *(float *)bq_mat_at(error, best, r)) best = i;
        if (best == 0) continue;
        vec->clip(bq_mat_at(w, r, 0), w.cols, (1 - (float)best * step) * largest(vec, w, r),
                  bq_mat_at(w, r, 0));
    }
}
