/* SPDX-License-Identifier: Apache-2.0 */
/* The scale of a grid, clipped to where the error is least. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/search.cuh"

enum { SHRINKS = 80 };

static __global__ void __launch_bounds__(BQ_CANDIDATES)
    clip(bq_rows<float> w, bq_rows<float> weight, int64_t weights, bq_scheme s, bq_rows<float> scale,
         bq_rows<float> zero, int64_t cols) {
    __shared__ bq_candidates mem;
    const int64_t r = blockIdx.x;
    const int me = (int)threadIdx.x;
    const float *row = bq_row(w, r), *h = bq_row(weight, r % weights), whole = *bq_row(scale, r);
    if (me < SHRINKS) {
        const float at = bq_scale_stored(whole * ((float)(100 - me) / 100), s);
        const bq_row_grid grid = bq_row_grid_of(s, at, bq_zero_of(zero, r));
        mem.scale[me] = at;
        mem.loss[me] = bq_lane_sums(cols, [=](int64_t c) {
            const float d = bq_on_grid(row[c], grid) - row[c];
            return h[c] * d * d;
        });
    }
    __syncthreads(); /* the losses are there, and all threads have read the scale */
    double least = INFINITY;
    float kept = whole;
    for (int k = 0; k < SHRINKS; k++)
        if (mem.loss[k] < least) least = mem.loss[k], kept = mem.scale[k];
    if (me == 0) *bq_row(scale, r) = kept;
}

void bq_cuda_fit(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero) {
    BQ_WANT(dev, weight.rows, w.cols, weight);
    BQ_CHECK(weight.rows > 0, "fit: no weights");
    bq_cuda_range(dev, w, s, scale, zero);
    bq_launch(dev, dim3((unsigned)w.rows), BQ_CANDIDATES, clip, w, weight, weight.rows, s, scale, zero,
              w.cols);
}
