/* SPDX-License-Identifier: Apache-2.0 */
/* Ops on single elements. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __global__ void scale_elements(bq_rows<float> x, float factor, bq_rows<float> y, int64_t rows,
                                      int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y)
        bq_row(y, r)[c] = bq_row(x, r)[c] * factor;
}

template <class X, class Y>
static __global__ void add_elements(bq_rows<X> x, bq_rows<Y> y, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y)
        bq_row(y, r)[c] = (Y)(bq_row(y, r)[c] + bq_row(x, r)[c]);
}

template <class X, class Y> static void add(bq_dev *dev, bq_mat x, bq_mat y) {
    bq_launch(dev, bq_grid_elements(y.rows, y.cols), BQ_THREADS, add_elements<X, Y>, x, y, y.rows, y.cols);
}

void bq_cuda_scale(bq_dev *dev, bq_mat x, float factor, bq_mat y) {
    BQ_WANT(dev, y.rows, y.cols, x, y);
    bq_launch(dev, bq_grid_elements(y.rows, y.cols), BQ_THREADS, scale_elements, x, factor, y, y.rows,
              y.cols);
}

void bq_cuda_add(bq_dev *dev, bq_mat x, bq_mat y) {
    const bool wide_x = x.type == BQ_F64, wide_y = y.type == BQ_F64;
    BQ_WANT_AS(dev, wide_x ? BQ_F64 : BQ_F32, y.rows, y.cols, x);
    BQ_WANT_AS(dev, wide_y ? BQ_F64 : BQ_F32, x.rows, x.cols, y);
    if (wide_x)
        wide_y ? add<double, double>(dev, x, y) : add<double, float>(dev, x, y);
    else
        wide_y ? add<float, double>(dev, x, y) : add<float, float>(dev, x, y);
}

void bq_cuda_bias(bq_dev *dev, bq_mat bias, bq_mat y) {
    BQ_WANT(dev, 1, y.cols, bias);
    BQ_WANT(dev, y.rows, bias.cols, y);
    bq_rows<float> every = {bq_f32(bias), 0}; /* ld 0: every row is the same one */
    bq_launch(dev, bq_grid_elements(y.rows, y.cols), BQ_THREADS, add_elements<float, float>, every, y, y.rows,
              y.cols);
}
