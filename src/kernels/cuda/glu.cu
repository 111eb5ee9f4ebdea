/* Gated linear units. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __device__ float sigmoid(float x) { return 1.0f / (1.0f + bq_exp(-x)); }

template <bq_act ACT> static __device__ float gate(float g) {
    return ACT == BQ_SILU ? g : g * (BQ_GELU_1 + BQ_GELU_3 * (g * g));
}
template <bq_act ACT> static __device__ float gate_slope(float g) {
    return ACT == BQ_SILU ? 1.0f : BQ_GELU_1 + 3 * BQ_GELU_3 * (g * g);
}

template <bq_act ACT>
static __global__ void forward(bq_rows<float> g, bq_rows<float> u, bq_rows<float> z, int64_t rows,
                               int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const float x = bq_row(g, r)[c];
        bq_row(z, r)[c] = x * sigmoid(gate<ACT>(x)) * bq_row(u, r)[c];
    }
}

template <bq_act ACT>
static __global__ void backward(bq_rows<float> g, bq_rows<float> u, bq_rows<float> dz, bq_rows<float> dg,
                                bq_rows<float> du, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const float x = bq_row(g, r)[c], up = bq_row(u, r)[c], d = bq_row(dz, r)[c],
                    s = sigmoid(gate<ACT>(x));
        bq_row(du, r)[c] = d * (x * s);
        bq_row(dg, r)[c] = d * up * (s * (1.0f + x * (1.0f - s) * gate_slope<ACT>(x)));
    }
}

void bq_cuda_glu(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat z) {
    BQ_WANT(dev, z.rows, z.cols, g, u, z);
    bq_launch(dev, bq_grid_elements(z.rows, z.cols), BQ_THREADS,
              act == BQ_SILU ? forward<BQ_SILU> : forward<BQ_GELU_TANH>, g, u, z, z.rows, z.cols);
}

void bq_cuda_glu_bwd(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg, bq_mat du) {
    BQ_WANT(dev, dz.rows, dz.cols, g, u, dz, dg, du);
    bq_launch(dev, bq_grid_elements(dz.rows, dz.cols), BQ_THREADS,
              act == BQ_SILU ? backward<BQ_SILU> : backward<BQ_GELU_TANH>, g, u, dz, dg, du, dz.rows,
              dz.cols);
}
