/* A grid's scale clipped to where the error is least. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/search.cuh"

enum { SHRINKS = 80 };

static __global__ void clip(bq_rows<float> w, bq_rows<float> weight, int64_t weights, bq_scheme s,
                            bq_rows<float> scale, bq_rows<float> zero, int64_t cols) {
    __shared__ bq_losses mem;
    const int64_t r = blockIdx.x;
    const float *row = bq_row(w, r), *h = bq_row(weight, r % weights);
    const float whole = *bq_row(scale, r);
    if (threadIdx.x < SHRINKS) {
        const float at = bq_scale_round(whole * ((float)(100 - (int)threadIdx.x) / 100), s.scale);
        mem.grid[threadIdx.x] = bq_row_grid_of(s, at, bq_zero_of(zero, r));
    }
    __syncthreads(); /* the grids are there, the scale has been read */
    bq_row_losses(&mem, row, cols, SHRINKS, [=](float x, int64_t c, bq_row_grid grid) {
        const float d = bq_on_grid(x, grid) - x;
        return h[c] * d * d;
    });
    double least = INFINITY;
    float kept = whole;
    for (int k = 0; k < SHRINKS; k++)
        if (mem.loss[k] < least) least = mem.loss[k], kept = mem.grid[k].scale;
    if (threadIdx.x == 0) *bq_row(scale, r) = kept;
}

void bq_cuda_fit(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero) {
    bq_cuda_want(weight, weight.rows, w.cols, BQ_F32, "fit", "weight");
    BQ_CHECK(weight.rows > 0, "fit: no weights");
    bq_cuda_range(dev, w, s, scale, zero);
    bq_launch(dev, dim3((unsigned)w.rows), BQ_THREADS, clip, bq_f32_rows(w), bq_f32_rows(weight), weight.rows,
              s, bq_f32_rows(scale), bq_f32_rows(zero), w.cols);
}
