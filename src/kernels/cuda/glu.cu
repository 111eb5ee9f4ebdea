/* SPDX-License-Identifier: Apache-2.0 */
/* Gated linear units. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __device__ float sigmoid(float x) { return 1.0f / (1.0f + bq_exp(-x)); }

template <bq_act ACT> static __device__ float gate(float g) {
    return ACT == BQ_SILU           ? g
           : ACT == BQ_SILU_CLAMPED ? g * BQ_SILU_FACTOR
                                    : g * (BQ_GELU_1 + BQ_GELU_3 * (g * g));
}
template <bq_act ACT> static __device__ float gate_slope(float g) {
    return ACT == BQ_SILU           ? 1.0f
           : ACT == BQ_SILU_CLAMPED ? BQ_SILU_FACTOR
                                    : BQ_GELU_1 + 3 * BQ_GELU_3 * (g * g);
}
template <bq_act ACT> static __device__ float gate_of(float limit, float g) {
    return ACT == BQ_SILU_CLAMPED && g > limit ? limit : g;
}
template <bq_act ACT> static __device__ float up_of(float limit, float u) {
    return ACT == BQ_SILU_CLAMPED ? bq_clamp(u, -limit, limit) + 1.0f : u;
}

template <bq_act ACT>
static __global__ void forward(float limit, bq_rows<float> g, bq_rows<float> u, bq_rows<float> z,
                               int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const float x = gate_of<ACT>(limit, bq_row(g, r)[c]);
        bq_row(z, r)[c] = x * sigmoid(gate<ACT>(x)) * up_of<ACT>(limit, bq_row(u, r)[c]);
    }
}

template <bq_act ACT>
static __global__ void backward(float limit, bq_rows<float> g, bq_rows<float> u, bq_rows<float> dz,
                                bq_rows<float> dg, bq_rows<float> du, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const float g0 = bq_row(g, r)[c], u0 = bq_row(u, r)[c], d = bq_row(dz, r)[c],
                    x = gate_of<ACT>(limit, g0), s = sigmoid(gate<ACT>(x));
        const bool free_u = ACT != BQ_SILU_CLAMPED || (u0 >= -limit && u0 <= limit),
                   free_g = ACT != BQ_SILU_CLAMPED || g0 <= limit;
        bq_row(du, r)[c] = free_u ? d * (x * s) : 0;
        bq_row(dg, r)[c] =
            free_g ? d * up_of<ACT>(limit, u0) * (s * (1.0f + x * (1.0f - s) * gate_slope<ACT>(x))) : 0;
    }
}

#define BY_ACT(act, kernel)                                                                                  \
    ((act) == BQ_SILU        ? kernel<BQ_SILU>                                                               \
     : (act) == BQ_GELU_TANH ? kernel<BQ_GELU_TANH>                                                          \
                             : kernel<BQ_SILU_CLAMPED>)

void bq_cuda_glu(bq_dev *dev, bq_act act, float limit, bq_mat g, bq_mat u, bq_mat z) {
    BQ_WANT(dev, z.rows, z.cols, g, u, z);
    bq_launch(dev, bq_grid_elements(z.rows, z.cols), BQ_THREADS, BY_ACT(act, forward), limit, g, u, z, z.rows,
              z.cols);
}

void bq_cuda_glu_bwd(bq_dev *dev, bq_act act, float limit, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg,
                     bq_mat du) {
    BQ_WANT(dev, dz.rows, dz.cols, g, u, dz, dg, du);
    bq_launch(dev, bq_grid_elements(dz.rows, dz.cols), BQ_THREADS, BY_ACT(act, backward), limit, g, u, dz, dg,
              du, dz.rows, dz.cols);
}
