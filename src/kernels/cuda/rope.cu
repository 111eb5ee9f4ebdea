/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary positions.  A thread turns one pair of channels. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __global__ void turn(bq_rows<float> x, bq_rows<float> cosines, bq_rows<float> sines, unsigned how,
                            int64_t rows, int heads, int hd, int half) {
    const bool pairs = how & BQ_TURN_PAIRS;
    const int skip = how & BQ_TURN_LAST ? hd - 2 * half : 0, apart = pairs ? 1 : half;
    const float sign = how & BQ_TURN_INVERSE ? -1.0f : 1.0f;
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < heads * half; r += gridDim.y) {
        const int h = (int)c / half, i = (int)c % half;
        float *at = bq_row(x, r) + h * hd + skip + (pairs ? 2 * i : i);
        const float co = bq_row(cosines, r)[i], si = bq_row(sines, r)[i] * sign, a = at[0], b = at[apart];
        at[0] = a * co - b * si;
        at[apart] = b * co + a * si;
    }
}

void bq_cuda_rope(bq_dev *dev, bq_mat x, int64_t heads, int64_t head_dim, bq_mat cos, bq_mat sin,
                  unsigned how) {
    const int64_t half = cos.cols;
    BQ_CHECK(2 * half <= head_dim && heads * head_dim <= INT32_MAX, "rope: %ld angles, %ld heads of %ld",
             (long)half, (long)heads, (long)head_dim);
    BQ_WANT(dev, x.rows, heads * head_dim, x);
    BQ_WANT(dev, x.rows, half, cos, sin);
    bq_launch(dev, bq_grid_elements(x.rows, heads * half), BQ_THREADS, turn, x, cos, sin, how, x.rows,
              (int)heads, (int)head_dim, (int)half);
}
