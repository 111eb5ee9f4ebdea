/* The ends that leave the least error, row by row. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/search.cuh"

static __device__ float error_term(bq_norm norm, float w, bq_row_grid grid) {
    const float e = bq_on_grid(w, grid) - w;
    return norm == BQ_NORM_2 ? e * e : e * e * bq_fifth_root(e * e);
}

static __global__ void least_error(bq_rows<float> w, bq_scheme s, bq_shrink ends, bq_rows<float> scale,
                                   bq_rows<float> zero, int64_t cols) {
    __shared__ bq_losses mem;
    const float *row = bq_row(w, blockIdx.x);
    float lo, hi, best = 0, best_zero = 0;
    double least = INFINITY;
    bq_team_ends(row, cols, &lo, &hi);
    for (int from = 0; from < ends.count; from += BQ_CANDIDATES) {
        const int rest = ends.count - from, count = rest < BQ_CANDIDATES ? rest : (int)BQ_CANDIDATES;
        if ((int)threadIdx.x < count) {
            const float shrink = (float)(1 - (double)(from + (int)threadIdx.x) / ends.steps);
            float z = 0;
            const float step = bq_grid_step(lo * shrink, hi * shrink, s, &z);
            mem.grid[threadIdx.x] = bq_row_grid_of(s, step, z), mem.zero[threadIdx.x] = z;
        }
        __syncthreads(); /* the grids are there */
        bq_row_losses(&mem, row, cols, count,
                      [=](float x, int64_t, bq_row_grid grid) { return error_term(ends.norm, x, grid); });
        for (int k = 0; k < count; k++) {
            if (from + k > 0 && !(mem.loss[k] < least)) continue;
            least = mem.loss[k], best = mem.grid[k].scale, best_zero = mem.zero[k];
        }
        __syncthreads(); /* they have been read */
    }
    if (threadIdx.x == 0) {
        *bq_row(scale, blockIdx.x) = best;
        if (zero.data) *bq_row(zero, blockIdx.x) = best_zero;
    }
}

void bq_cuda_range_mse(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat scale, bq_mat zero) {
    bq_cuda_want_grid(w, s, scale, zero, "range_mse");
    BQ_CHECK(ends.count >= 1 && ends.count <= ends.steps, "range_mse: %d of %d steps", ends.count,
             ends.steps);
    bq_launch(dev, dim3((unsigned)w.rows), BQ_THREADS, least_error, bq_f32_rows(w), s, ends,
              bq_f32_rows(scale), bq_f32_rows(zero), w.cols);
}
