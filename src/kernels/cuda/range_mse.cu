/* SPDX-License-Identifier: Apache-2.0 */
/* For each row the ends with the least error. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/search.cuh"

static __device__ float error_term(bq_norm norm, float w, bq_row_grid grid) {
    const float e = bq_on_grid(w, grid) - w;
    return norm == BQ_NORM_2 ? e * e : e * e * bq_fifth_root(e * e);
}

static __global__ void __launch_bounds__(BQ_CANDIDATES, 1)
    least_error(bq_rows<float> w, bq_scheme s, bq_shrink ends, bq_rows<float> scale, bq_rows<float> zero,
                int64_t cols) {
    __shared__ bq_candidates mem;
    const float *row = bq_row(w, blockIdx.x);
    const int me = (int)threadIdx.x;
    float lo, hi, best = 0, best_zero = 0;
    double least = INFINITY;
    bq_team_ends(row, cols, bq_ends_start(s, row, cols), &lo, &hi);
    const int all = ends.count + ends.more;
    for (int from = 0; from < all; from += BQ_CANDIDATES) {
        if (from + me < all) {
            const float shrink = bq_ends_factor(from + me, ends.count, ends.steps);
            float z = 0;
            const bq_row_grid grid = bq_row_grid_fit(lo, hi, shrink, s, &z), whole = bq_row_grid_whole(grid);
            mem.scale[me] = grid.scale, mem.zero[me] = z;
            mem.loss[me] =
                grid.number.mantissa || grid.way != BQ_WAY_DIVIDE
                    ? bq_lane_sums(cols, [=](int64_t c) { return error_term(ends.norm, row[c], grid); })
                    : bq_lane_sums(cols, [=](int64_t c) { return error_term(ends.norm, row[c], whole); });
        }
        __syncthreads(); /* the losses are there */
        for (int k = 0; k < BQ_CANDIDATES && from + k < all; k++) {
            if (from + k > 0 && !(mem.loss[k] < least)) continue;
            least = mem.loss[k], best = mem.scale[k], best_zero = mem.zero[k];
        }
        __syncthreads(); /* all threads have read them */
    }
    if (me == 0) {
        *bq_row(scale, blockIdx.x) = best;
        if (zero.data) *bq_row(zero, blockIdx.x) = best_zero;
    }
}

void bq_cuda_range_mse(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat scale, bq_mat zero) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_CHECK(ends.count >= 1 && ends.count <= ends.steps, "range_mse: %d of %d steps", ends.count,
             ends.steps);
    bq_launch(dev, dim3((unsigned)w.rows), BQ_CANDIDATES, least_error, w, s, ends, scale, zero, w.cols);
}
