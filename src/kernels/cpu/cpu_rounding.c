/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/vec.h"

#include <string.h>

/* With fewer elements it does not pay to wake threads. */
enum { PARALLEL = 1 << 15 };

static float at(bq_mat m, int64_t r, int64_t c) { return *(float *)bq_mat_at(m, r, c); }

/* The columns of group g of x. */
static int64_t columns_of(bq_mat x, int64_t group, int64_t g) {
    int64_t rest = x.cols - g * group;
    return group > 0 && group < rest ? group : rest;
}

static void round_row(bq_mat x, int64_t r, bq_rounding how, bq_mat grid, bq_mat y) {
    const bq_vec_table *vec = bq_vec();
    const int64_t group = how.group > 0 ? how.group : 0;
    for (int64_t g = 0; g < bq_rounding_groups(how, x.cols); g++) {
        const float *from = bq_mat_at(x, r, g * group);
        float *to = bq_mat_at(y, r, g * group), lo, hi;
        int64_t n = columns_of(x, group, g);
        if (how.whole && !(at(grid, g, 0) > 0)) {
            memmove(to, from, (size_t)n * sizeof *to);
        } else if (how.whole) {
            vec->round_values(from, n, bq_value_grid_of(how, at(grid, g, 0), at(grid, g, 1)), to);
        } else {
            vec->minmax(from, n, 0, &lo, &hi);
            vec->round_values(from, n, bq_value_grid_fit(lo, hi, how, grid.data ? at(grid, 0, 0) : 0), to);
        }
    }
}

void bq_cpu_round_rows(bq_dev *dev, bq_mat x, bq_rounding r, bq_mat grid, bq_mat y) {
    BQ_WANT_ROUNDING(dev, x, r, grid);
    BQ_WANT(dev, x.rows, x.cols, x, y);
    if (!bq_rounding_given(r)) grid.data = NULL;
#pragma omp parallel for schedule(static) if (x.rows * x.cols > PARALLEL)
    for (int64_t i = 0; i < x.rows; i++) round_row(x, i, r, grid, y);
}

void bq_cpu_ends(bq_dev *dev, bq_mat x, int64_t group, bq_mat ends) {
    const bq_rounding by = {.group = group};
    const int64_t groups = bq_rounding_groups(by, x.cols);
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, groups, 2, ends);
    const bq_vec_table *vec = bq_vec();
    for (int64_t g = 0; g < groups; g++) {
        float *end = bq_mat_at(ends, g, 0), low = end[0], high = end[1];
        int64_t first = g ? g * group : 0, n = columns_of(x, group, g);
#pragma omp parallel for schedule(static) reduction(min                                                      \
                                                    : low) reduction(max                                     \
                                                                     : high) if (x.rows * n > PARALLEL)
        for (int64_t r = 0; r < x.rows; r++) {
            float lo, hi;
            vec->minmax(bq_mat_at(x, r, first), n, 0, &lo, &hi);
            low = lo < low ? lo : low, high = hi > high ? hi : high;
        }
        end[0] = low, end[1] = high;
    }
}

void bq_cpu_grid_of_ends(bq_dev *dev, bq_mat ends, bq_rounding r, bq_mat grid) {
    BQ_WANT(dev, ends.rows, 2, ends, grid);
    for (int64_t g = 0; g < ends.rows; g++) {
        const bq_ends_grid of = bq_grid_of_ends(at(ends, g, 0), at(ends, g, 1), r);
        memcpy(bq_mat_at(grid, g, 0), &of, sizeof of);
    }
}

void bq_cpu_histogram(bq_dev *dev, bq_mat x, bq_mat count) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT_AS(dev, BQ_I32, 1, BQ_BINS, count);
    int32_t *to = count.data;
#pragma omp parallel if (x.rows * x.cols > 16 * BQ_BINS)
    {
        int32_t mine[BQ_BINS] = {0};
#pragma omp for schedule(static)
        for (int64_t r = 0; r < x.rows; r++) {
            const float *row = bq_mat_at(x, r, 0);
            for (int64_t c = 0; c < x.cols; c++) mine[bq_bin_of(row[c])]++;
        }
#pragma omp critical(bq_histogram)
        for (int b = 0; b < BQ_BINS; b++) to[b] += mine[b];
    }
}
