/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/vec.h"

#include <math.h>

/* With fewer elements it does not pay to wake threads; a search does more work for an element. */
enum { PARALLEL = 1 << 15, PARALLEL_SEARCH = 1 << 10 };

static void put(bq_mat m, int64_t row, float value) {
    if (m.data) *(float *)bq_mat_at(m, row, 0) = value;
}

void bq_cpu_range_shrunk(bq_dev *dev, bq_mat w, bq_scheme s, float shrink, bq_mat scale, bq_mat zero,
                         bq_mat e) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_CHECK(shrink > 0 && shrink <= 1, "range: ends times %g", (double)shrink);
    if (e.data) BQ_WANT(dev, w.rows, w.cols, e);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++) {
        float lo, hi, z = 0;
        const float *row = bq_mat_at(w, r, 0);
        vec->minmax(row, w.cols, bq_ends_start(s, row, w.cols), &lo, &hi);
        bq_row_grid grid = bq_row_grid_fit(lo, hi, shrink, s, &z);
        put(scale, r, grid.scale), put(zero, r, z);
        if (e.data) vec->grid_error(row, w.cols, grid, bq_mat_at(e, r, 0));
    }
}

void bq_cpu_range(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero) {
    bq_cpu_range_shrunk(dev, w, s, 1, scale, zero, (bq_mat){0});
}

/* The scale and zero of the best grid among `ends`, for one row. */
static float search(const bq_vec_table *vec, const float *w, int64_t n, bq_scheme s, bq_shrink ends,
                    float *zero) {
    bq_row_grid grid[BQ_SEARCH_GRIDS];
    float z[BQ_SEARCH_GRIDS] = {0}, lo, hi, best = 0;
    double loss[BQ_SEARCH_GRIDS], least = INFINITY;
    vec->minmax(w, n, bq_ends_start(s, w, n), &lo, &hi);
    const int all = ends.count + ends.more;
    for (int from = 0; from < all; from += BQ_SEARCH_GRIDS) {
        int count = all - from < BQ_SEARCH_GRIDS ? all - from : BQ_SEARCH_GRIDS;
        for (int k = 0; k < count; k++) {
            const float shrink = bq_ends_factor(from + k, ends.count, ends.steps);
            grid[k] = bq_row_grid_fit(lo, hi, shrink, s, &z[k]);
        }
        vec->grid_losses(w, n, grid, count, ends.norm, loss);
        for (int k = 0; k < count; k++) {
            if (from + k > 0 && !(loss[k] < least)) continue;
            least = loss[k], best = grid[k].scale, *zero = z[k];
        }
    }
    return best;
}

void bq_cpu_range_mse(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat scale, bq_mat zero) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_CHECK(ends.count >= 1 && ends.count <= ends.steps, "range_mse: %d of %d steps", ends.count,
             ends.steps);
    BQ_CHECK(ends.more >= 0, "range_mse: %d wider grids", ends.more);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL_SEARCH)
    for (int64_t r = 0; r < w.rows; r++) {
        float z = 0;
        put(scale, r, search(vec, bq_mat_at(w, r, 0), w.cols, s, ends, &z));
        put(zero, r, z);
    }
}

static float value(bq_mat m, int64_t row) { return *(float *)bq_mat_at(m, row, 0); }

void bq_cpu_range_better(bq_dev *dev, bool first, bq_mat a, bq_mat b, bq_mat scale, bq_mat zero, bq_mat loss,
                         bq_mat best, bq_mat best_zero) {
    BQ_WANT(dev, a.rows, a.cols, a, b);
    BQ_WANT(dev, a.rows, 1, scale, best);
    BQ_WANT_AS(dev, BQ_F64, a.rows, 1, loss);
    BQ_CHECK(!zero.data == !best_zero.data, "range_better: zero points on one side");
    if (zero.data) BQ_WANT(dev, a.rows, 1, zero, best_zero);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (a.rows * a.cols > PARALLEL)
    for (int64_t r = 0; r < a.rows; r++) {
        double l = vec->inner(a.cols, bq_mat_at(a, r, 0), bq_mat_at(b, r, 0)), *least = bq_mat_at(loss, r, 0);
        if (!first && !(l < *least)) continue;
        *least = l;
        put(best, r, value(scale, r));
        if (zero.data) put(best_zero, r, value(zero, r));
    }
}

void bq_cpu_range_levels(bq_dev *dev, bq_mat scale, int levels, bq_type type) {
    (void)dev;
    BQ_CHECK(scale.type == BQ_F32 && levels >= 1 && levels <= 64 && (levels & (levels - 1)) == 0,
             "range_levels: %d levels of %s scales", levels, bq_type_name(scale.type));
    for (int64_t r = 0; r < scale.rows; r++) {
        float *row = bq_mat_at(scale, r, 0), largest = 0, n = (float)levels;
        for (int64_t g = 0; g < scale.cols; g++) largest = row[g] > largest ? row[g] : largest;
        float unit = bq_grid_unit(largest, levels, type);
        for (int64_t g = 0; g < scale.cols; g++) {
            float k = rintf(row[g] / unit);
            row[g] = (k < 1 ? 1 : k > n ? n : k) * unit; /* NaN stays NaN */
        }
    }
}

static void refit(const bq_vec_table *vec, const float *w, int64_t n, bq_scheme s, bq_quadratic o,
                  float least, float *scale, float *zero) {
    const bq_row_grid unit = bq_row_grid_unit(bq_quadratic_scheme(s));
    *zero = bq_quadratic_start(o, s, *scale, *zero);
    float step = *scale, z = *zero;
    double sum[3], best = INFINITY, beta = o.beta;
    for (int i = 0; i < o.iterations; i++, beta *= o.kappa) {
        vec->quadratic(w, n, bq_row_grid_at(unit, step, 0), z, o, beta, least, sum);
        if (o.early_stop) {
            if (!(sum[0] < best)) break;
            best = sum[0], *scale = step, *zero = z;
        }
        bq_quadratic_next(o, s.scale, sum, &step, &z);
    }
    if (!o.early_stop) *scale = step, *zero = z;
    *zero = bq_quadratic_end(o, s, *scale, *zero);
}

void bq_cpu_half_quadratic(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_CHECK(zero.data || o.solve == BQ_SOLVE_SCALE, "half_quadratic: no zero points to solve for");
    const bq_vec_table *vec = bq_vec();
    const float least = bq_quadratic_least(o);
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL_SEARCH)
    for (int64_t r = 0; r < w.rows; r++) {
        float z = zero.data ? value(zero, r) : 0;
        refit(vec, bq_mat_at(w, r, 0), w.cols, s, o, least, bq_mat_at(scale, r, 0), &z);
        put(zero, r, z);
    }
}
