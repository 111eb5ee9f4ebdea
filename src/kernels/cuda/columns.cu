/* Statistics of columns, for smoothing.  A thread has one column and goes over its rows in order. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __global__ void fill(bq_rows<float> m, float value, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) bq_row(m, r)[c] = value;
}

static __global__ void largest(bq_rows<float> x, float sign, float *m, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    if (c >= cols) return; /* allowed: no barrier follows */
    float most = m[c];
    for (int64_t r = 0; r < rows; r++) {
        const float v = sign == 0 ? fabsf(bq_row(x, r)[c]) : sign * bq_row(x, r)[c];
        most = v > most ? v : most;
    }
    m[c] = most;
}

/* 1 / (the largest |x| of a group of a row + 1e-6); NaN is skipped. */
static __device__ float unit(const float *x, int64_t group) {
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < group; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    return 1 / (fmaxf(-lo, hi) + 1e-6f);
}

static __global__ void sum_abs(bq_rows<float> x, int64_t group, float *sum, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    if (c >= cols) return; /* allowed: no barrier follows */
    double all = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *row = bq_row(x, r);
        all += (double)(fabsf(row[c]) * (group > 0 ? unit(row + c / group * group, group) : 1));
    }
    sum[c] = (float)all;
}

static __global__ void sum_squares(bq_rows<float> x, float *sum, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    if (c >= cols) return; /* allowed: no barrier follows */
    double all = 0;
    for (int64_t r = 0; r < rows; r++) all += (double)bq_row(x, r)[c] * (double)bq_row(x, r)[c];
    sum[c] = (float)all;
}

static dim3 grid_columns(int64_t cols) { return dim3(bq_pieces(cols, BQ_THREADS)); }

void bq_cuda_set(bq_dev *dev, bq_mat m, float value) {
    BQ_WANT(dev, m.rows, m.cols, m);
    bq_launch(dev, bq_grid_elements(m.rows, m.cols), BQ_THREADS, fill, m, value, m.rows, m.cols);
}

void bq_cuda_column_max(bq_dev *dev, bq_mat x, float sign, bq_mat m) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, 1, x.cols, m);
    bq_launch(dev, grid_columns(x.cols), BQ_THREADS, largest, x, sign, bq_f32(m), x.rows, x.cols);
}

void bq_cuda_column_abs(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, 1, x.cols, sum);
    BQ_CHECK(group <= 0 || x.cols % group == 0, "column_abs: groups of %ld in %ld columns", (long)group,
             (long)x.cols);
    bq_launch(dev, grid_columns(x.cols), BQ_THREADS, sum_abs, x, group, bq_f32(sum), x.rows, x.cols);
}

void bq_cuda_column_squares(bq_dev *dev, bq_mat x, bq_mat sum) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, 1, x.cols, sum);
    bq_launch(dev, grid_columns(x.cols), BQ_THREADS, sum_squares, x, bq_f32(sum), x.rows, x.cols);
}
