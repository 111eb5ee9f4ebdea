/* A grid's scale clipped to where the error is least. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/search.cuh"

enum { SHRINKS = 80 };

/* ln x of a positive normal number: x = 2^n m with m around 1, ln m = 2 atanh((m - 1) / (m + 1)) by its
 * series. */
static __device__ float logarithm(float x) {
    const uint32_t u = bq_bits(x) - 0x3f3504f3u; /* the root of 1/2: m is between it and the root of 2 */
    const float n = (float)((int32_t)u >> 23), m = bq_float((u & 0x7fffffu) + 0x3f3504f3u);
    const float t = (m - 1) / (m + 1), t2 = t * t;
    float p = 0.11111111f;
    p = p * t2 + 0.14285715f;
    p = p * t2 + 0.2f;
    p = p * t2 + 0.33333334f;
    p = p * t2 + 1.0f;
    return n * 0.69314718f + 2 * t * p;
}

/* weight NULL: |d|^2.4. */
static __device__ float term(float w, const float *weight, int64_t c, bq_row_grid grid) {
    float d = bq_on_grid(w, grid) - w;
    if (weight) return weight[c] * d * d;
    d = d < 0 ? -d : d;
    const float p = bq_exp(2.4f * logarithm(d > 1e-30f ? d : 1e-30f));
    return d == d ? p : d;
}

static __global__ void clip(bq_rows<float> w, bq_rows<float> weight, int64_t weights, bq_scheme s,
                            bq_rows<float> scale, bq_rows<float> zero, int64_t cols) {
    __shared__ bq_losses mem;
    const int64_t r = blockIdx.x;
    const float *row = bq_row(w, r), *h = weight.data ? bq_row(weight, r % weights) : NULL;
    const float whole = *bq_row(scale, r);
    if (threadIdx.x < SHRINKS) {
        const float at = bq_scale_round(whole * ((float)(100 - (int)threadIdx.x) / 100), s.scale);
        mem.grid[threadIdx.x] = bq_row_grid_of(s, at, bq_zero_of(zero, r));
    }
    __syncthreads(); /* the grids are there, the scale has been read */
    bq_row_losses(&mem, row, cols, SHRINKS,
                  [=](float x, int64_t c, bq_row_grid grid) { return term(x, h, c, grid); });
    double least = INFINITY;
    float kept = whole;
    for (int k = 0; k < SHRINKS; k++)
        if (mem.loss[k] < least) least = mem.loss[k], kept = mem.grid[k].scale;
    if (threadIdx.x == 0) *bq_row(scale, r) = kept;
}

void bq_cuda_fit(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero) {
    if (weight.data) bq_cuda_want(weight, weight.rows, w.cols, BQ_F32, "fit", "weight");
    bq_cuda_range(dev, w, s, scale, zero);
    bq_launch(dev, dim3((unsigned)w.rows), BQ_THREADS, clip, bq_f32_rows(w), bq_f32_rows(weight), weight.rows,
              s, bq_f32_rows(scale), bq_f32_rows(zero), w.cols);
}
