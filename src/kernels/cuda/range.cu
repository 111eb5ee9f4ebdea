/* SPDX-License-Identifier: Apache-2.0 */
/* Grids from the ends of rows. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

enum { BATCH = 8 };

static __global__ void __launch_bounds__(BQ_THREADS, 6)
    row_ranges(bq_rows<float> w, bq_scheme s, float shrink, bq_rows<float> scale, bq_rows<float> zero,
               bq_rows<float> e, int64_t rows, int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        const int64_t n = r < rows ? cols : 0;
        const float *from = bq_row(w, r);
        float lo, hi, z = 0;
        bq_team_ends(from, n, bq_ends_start(s, from, n), &lo, &hi);
        const bq_row_grid grid = bq_row_grid_fit(lo, hi, shrink, s, &z);
        for (int64_t c = bq_lane(); e.data && c < n; c += BQ_LANES)
            bq_row(e, r)[c] = bq_on_grid(from[c], grid) - from[c];
        if (r < rows && bq_lane() == 0) {
            *bq_row(scale, r) = grid.scale;
            if (zero.data) *bq_row(zero, r) = z;
        }
    }
}

void bq_cuda_range_shrunk(bq_dev *dev, bq_mat w, bq_scheme s, float shrink, bq_mat scale, bq_mat zero,
                          bq_mat e) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_CHECK(shrink > 0 && shrink <= 1, "range: ends times %g", (double)shrink);
    if (e.data) BQ_WANT(dev, w.rows, w.cols, e);
    bq_launch(dev, bq_grid_teams(w.rows), BQ_THREADS, row_ranges, w, s, shrink, scale, zero, e, w.rows,
              w.cols);
}

void bq_cuda_range(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero) {
    bq_cuda_range_shrunk(dev, w, s, 1, scale, zero, bq_mat{});
}

static __global__ void __launch_bounds__(BQ_THREADS, 1)
    better(bool first, bq_rows<float> a, bq_rows<float> b, bq_rows<float> scale, bq_rows<float> zero,
           bq_rows<double> loss, bq_rows<float> best, bq_rows<float> best_zero, int64_t rows, int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        const int64_t n = r < rows ? cols : 0;
        double sum = 0;
        BQ_EACH_BATCH(c, n, BATCH) {
            float x[BATCH], y[BATCH];
            bq_batch(bq_row(a, r), c, n, x), bq_batch(bq_row(b, r), c, n, y);
            for (int k = 0; k < BATCH; k++) sum += (double)x[k] * (double)y[k]; /* 0 behind the row */
        }
        sum = bq_team_sum(sum);
        if (r < rows && bq_lane() == 0 && (first || sum < *bq_row(loss, r))) {
            *bq_row(loss, r) = sum;
            *bq_row(best, r) = *bq_row(scale, r);
            if (zero.data) *bq_row(best_zero, r) = *bq_row(zero, r);
        }
    }
}

void bq_cuda_range_better(bq_dev *dev, bool first, bq_mat a, bq_mat b, bq_mat scale, bq_mat zero, bq_mat loss,
                          bq_mat best, bq_mat best_zero) {
    const int64_t rows = a.rows;
    BQ_WANT(dev, rows, a.cols, a, b);
    BQ_WANT(dev, rows, 1, scale, best);
    BQ_WANT_AS(dev, BQ_F64, rows, 1, loss);
    BQ_CHECK(!zero.data == !best_zero.data, "range_better: zero points on one side");
    if (zero.data) BQ_WANT(dev, rows, 1, zero, best_zero);
    bq_launch(dev, bq_grid_teams(rows), BQ_THREADS, better, first, a, b, scale, zero, loss, best, best_zero,
              rows, a.cols);
}

static __global__ void level(bq_rows<float> scale, int levels, bq_type type, int64_t rows, int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        float largest = 0, *row = bq_row(scale, r), n = (float)levels;
        for (int64_t c = bq_lane(); r < rows && c < cols; c += BQ_LANES)
            largest = row[c] > largest ? row[c] : largest;
        const float unit = bq_grid_unit(bq_team_max(largest), levels, type);
        for (int64_t c = bq_lane(); r < rows && c < cols; c += BQ_LANES) {
            const float k = rintf(row[c] / unit);
            row[c] = (k < 1 ? 1 : k > n ? n : k) * unit; /* NaN stays NaN */
        }
    }
}

void bq_cuda_range_levels(bq_dev *dev, bq_mat scale, int levels, bq_type type) {
    BQ_CHECK(levels >= 1 && levels <= 64 && (levels & (levels - 1)) == 0, "range_levels: %d levels", levels);
    BQ_WANT(dev, scale.rows, scale.cols, scale);
    bq_launch(dev, bq_grid_teams(scale.rows), BQ_THREADS, level, scale, levels, type, scale.rows, scale.cols);
}
