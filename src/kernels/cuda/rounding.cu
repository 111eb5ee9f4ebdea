/* SPDX-License-Identifier: Apache-2.0 */
/* Values on grids of their own, and the ends and histograms that static grids come from. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

enum { BATCH = 8 };

/* A group of columns of a row. */
struct bq_group {
    int64_t row, first, cols;
};

static inline __device__ bq_group group_at(int64_t i, int64_t groups, int64_t group, int64_t cols) {
    const int64_t first = i % groups * group, rest = cols - first;
    return {i / groups, first, group < rest ? group : rest};
}

/* A team has a group of a row. */
static __global__ void round_groups(bq_rows<float> x, bq_rounding how, bq_rows<float> grid, int64_t group,
                                    bq_rows<float> y, int64_t all, int64_t groups, int64_t cols) {
    BQ_EACH_ROW(i, all) {
        const bq_group g = group_at(i < all ? i : 0, groups, group, cols);
        const int64_t n = i < all ? g.cols : 0;
        const float *from = bq_row(x, g.row) + g.first;
        bq_value_grid on;
        bool as_is = false;
        if (how.whole) {
            const float *of = bq_row(grid, i < all ? i % groups : 0);
            on = bq_value_grid_of(how, of[0], of[1]), as_is = !(of[0] > 0);
        } else {
            float lo, hi;
            bq_team_ends(from, n, 0, &lo, &hi);
            on = bq_value_grid_fit(lo, hi, how, grid.data ? bq_row(grid, 0)[0] : 0);
        }
        for (int64_t c = bq_lane(); c < n; c += BQ_LANES)
            bq_row(y, g.row)[g.first + c] = as_is ? from[c] : bq_value_on(from[c], on);
    }
}

/* The ends of each group of each row; then those of a group over the rows, by one team. */
static __global__ void row_ends(bq_rows<float> x, int64_t group, float *ends, int64_t all, int64_t groups,
                                int64_t cols) {
    BQ_EACH_ROW(i, all) {
        const bq_group g = group_at(i < all ? i : 0, groups, group, cols);
        float lo, hi;
        bq_team_ends(bq_row(x, g.row) + g.first, i < all ? g.cols : 0, 0, &lo, &hi);
        if (i < all && bq_lane() == 0) ends[2 * i] = lo, ends[2 * i + 1] = hi;
    }
}

static __global__ void join_ends(const float *row, bq_rows<float> ends, int64_t rows, int64_t groups) {
    BQ_EACH_ROW(g, groups) {
        float low = 0, high = 0;
        for (int64_t r = bq_lane(); g < groups && r < rows; r += BQ_LANES) {
            const float *of = row + 2 * (r * groups + g);
            low = of[0] < low ? of[0] : low, high = of[1] > high ? of[1] : high;
        }
        low = -bq_team_max(-low), high = bq_team_max(high);
        if (g < groups && bq_lane() == 0) {
            float *to = bq_row(ends, g);
            to[0] = low < to[0] ? low : to[0], to[1] = high > to[1] ? high : to[1];
        }
    }
}

static __global__ void fit_grids(bq_rows<float> ends, bq_rounding r, bq_rows<float> grid, int64_t groups) {
    const int64_t g = bq_column();
    if (g >= groups) return;
    const bq_ends_grid of = bq_grid_of_ends(bq_row(ends, g)[0], bq_row(ends, g)[1], r);
    bq_row(grid, g)[0] = of.scale, bq_row(grid, g)[1] = of.zero;
}

static __global__ void count_bins(bq_rows<float> x, int32_t *count, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y)
        atomicAdd(count + bq_bin_of(bq_row(x, r)[c]), 1);
}

void bq_cuda_round_rows(bq_dev *dev, bq_mat x, bq_rounding r, bq_mat grid, bq_mat y) {
    BQ_WANT_ROUNDING(dev, x, r, grid);
    BQ_WANT(dev, x.rows, x.cols, x, y);
    const int64_t groups = bq_rounding_groups(r, x.cols), all = x.rows * groups;
    if (!bq_rounding_given(r)) grid.data = NULL;
    bq_launch(dev, bq_grid_teams(all), BQ_THREADS, round_groups, x, r, grid, r.group > 0 ? r.group : x.cols,
              y, all, groups, x.cols);
}

void bq_cuda_ends(bq_dev *dev, bq_mat x, int64_t group, bq_mat ends) {
    const bq_rounding by = {0, true, false, BQ_ROUND_DIVIDE, group, BQ_F32, 0, BQ_POWER_EVEN};
    const int64_t groups = bq_rounding_groups(by, x.cols), all = x.rows * groups;
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, groups, 2, ends);
    size_t mark = bq_arena_mark(&dev->mem);
    float *row = bq_f32(bq_arena_push(&dev->mem, 1, 2 * all, BQ_F32));
    bq_launch(dev, bq_grid_teams(all), BQ_THREADS, row_ends, x, group > 0 ? group : x.cols, row, all, groups,
              x.cols);
    bq_launch(dev, bq_grid_teams(groups), BQ_THREADS, join_ends, (const float *)row, ends, x.rows, groups);
    bq_arena_reset(&dev->mem, mark);
}

void bq_cuda_grid_of_ends(bq_dev *dev, bq_mat ends, bq_rounding r, bq_mat grid) {
    BQ_WANT(dev, ends.rows, 2, ends, grid);
    bq_launch(dev, bq_grid_elements(1, ends.rows), BQ_THREADS, fit_grids, ends, r, grid, ends.rows);
}

void bq_cuda_histogram(bq_dev *dev, bq_mat x, bq_mat count) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT_AS(dev, BQ_I32, 1, BQ_BINS, count);
    bq_launch(dev, bq_grid_elements(x.rows, x.cols), BQ_THREADS, count_bins, x, (int32_t *)count.data, x.rows,
              x.cols);
}
