/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics of columns, for smoothing.  A thread block has WARP columns, since a matrix of activations has
 * few; PARTS threads share the rows of a column. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

enum { WARP = 32, PARTS = 32, FEW = 8, BATCH = 2 * PARTS };

static __global__ void fill(bq_rows<float> m, float value, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) bq_row(m, r)[c] = value;
}

static __device__ int lane() { return (int)threadIdx.x % WARP; }
static __device__ int part() { return (int)threadIdx.x / WARP; }
static __device__ int64_t column() { return (int64_t)blockIdx.x * WARP + lane(); }

/* The maximum of the parts in the order of their rows: of 0 and -0, which are equal, the first one stays, as
 * with one thread.  A part begins with -INFINITY, which is larger than nothing.  FEW rows are loaded at a
 * time. */
static __global__ void __launch_bounds__(PARTS *WARP)
    largest(bq_rows<float> x, float sign, float *m, int64_t rows, int64_t cols) {
    __shared__ float mosts[PARTS][WARP];
    const int64_t c = column(), each = (rows + PARTS - 1) / PARTS, begin = part() * each,
                  end = begin + each < rows ? begin + each : rows;
    float most = -INFINITY;
    for (int64_t r = begin; c < cols && r < end; r += FEW) {
        float some[FEW];
        for (int k = 0; k < FEW; k++) some[k] = r + k < end ? bq_row(x, r + k)[c] : 0;
        for (int k = 0; k < FEW; k++) {
            const float v = sign == 0 ? fabsf(some[k]) : sign * some[k];
            most = r + k < end && v > most ? v : most;
        }
    }
    mosts[part()][lane()] = most;
    __syncthreads(); /* the parts are there */
    if (part() > 0 || c >= cols) return;
    most = m[c];
    for (int k = 0; k < PARTS; k++) most = mosts[k][lane()] > most ? mosts[k][lane()] : most;
    m[c] = most;
}

/* The sum of term(r) over the rows of a column, in order; part 0 has it.  All parts make the terms of BATCH
 * rows, then part 0 adds them while the others go on to the next rows. */
template <class TERM> static __device__ double column_sum(int64_t rows, TERM term) {
    __shared__ double terms[2][BATCH][WARP];
    double sum = 0;
    for (int64_t r = 0; r < rows; r += BATCH) {
        const int now = (int)(r / BATCH % 2);
        for (int k = part(); k < BATCH; k += PARTS) terms[now][k][lane()] = r + k < rows ? term(r + k) : 0;
        __syncthreads(); /* the terms are there, and those of two batches ago have been added */
        for (int k = 0; part() == 0 && k < BATCH; k++) sum += terms[now][k][lane()];
    }
    return sum;
}

/* 1 / (the largest |x| of a group of a row + 1e-6); NaN is skipped.  The lanes of a warp share a group that
 * is as wide as they, or a multiple of it. */
static __device__ float unit(const float *x, int64_t group) {
    const int lanes = group % WARP == 0 ? (int)WARP : 1;
    float most = 0;
    for (int64_t i = lanes > 1 ? lane() : 0; i < group; i += lanes)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    for (int w = lanes / 2; w > 0; w /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, most, w);
        most = other > most ? other : most;
    }
    return 1 / (most + 1e-6f);
}

static __global__ void __launch_bounds__(PARTS *WARP)
    sum_abs(bq_rows<float> x, int64_t group, float *to, int64_t rows, int64_t cols) {
    const int64_t c = column();
    const double sum = column_sum(rows, [=](int64_t r) {
        const float *row = bq_row(x, r);
        return c < cols ? (double)(fabsf(row[c]) * (group > 0 ? unit(row + c / group * group, group) : 1))
                        : 0;
    });
    if (part() == 0 && c < cols) to[c] = (float)sum;
}

static __global__ void __launch_bounds__(PARTS *WARP)
    sum_squares(bq_rows<float> x, float *to, int64_t rows, int64_t cols) {
    const int64_t c = column();
    const double sum = column_sum(
        rows, [=](int64_t r) { return c < cols ? (double)bq_row(x, r)[c] * (double)bq_row(x, r)[c] : 0; });
    if (part() == 0 && c < cols) to[c] = (float)sum;
}

static __global__ void __launch_bounds__(PARTS *WARP)
    sum_products(bq_rows<float> a, bq_rows<float> b, bool both, float *to, int64_t rows, int64_t cols) {
    const int64_t c = column();
    const double sum = column_sum(rows, [=](int64_t r) {
        return c < cols ? (double)bq_row(a, r)[c] * (both ? (double)bq_row(b, r)[c] : 1) : 0;
    });
    if (part() == 0 && c < cols) to[c] = (float)sum;
}

static dim3 grid_columns(int64_t cols) { return dim3(bq_pieces(cols, WARP)); }

void bq_cuda_set(bq_dev *dev, bq_mat m, float value) {
    BQ_WANT(dev, m.rows, m.cols, m);
    bq_launch(dev, bq_grid_elements(m.rows, m.cols), BQ_THREADS, fill, m, value, m.rows, m.cols);
}

void bq_cuda_column_max(bq_dev *dev, bq_mat x, float sign, bq_mat m) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, 1, x.cols, m);
    bq_launch(dev, grid_columns(x.cols), WARP * PARTS, largest, x, sign, bq_f32(m), x.rows, x.cols);
}

void bq_cuda_column_abs(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, 1, x.cols, sum);
    BQ_CHECK(group <= 0 || x.cols % group == 0, "column_abs: groups of %ld in %ld columns", (long)group,
             (long)x.cols);
    bq_launch(dev, grid_columns(x.cols), WARP * PARTS, sum_abs, x, group, bq_f32(sum), x.rows, x.cols);
}

void bq_cuda_column_squares(bq_dev *dev, bq_mat x, bq_mat sum) {
    BQ_WANT(dev, x.rows, x.cols, x);
    BQ_WANT(dev, 1, x.cols, sum);
    bq_launch(dev, grid_columns(x.cols), WARP * PARTS, sum_squares, x, bq_f32(sum), x.rows, x.cols);
}

void bq_cuda_column_dot(bq_dev *dev, bq_mat a, bq_mat b, bq_mat sum) {
    BQ_WANT(dev, a.rows, a.cols, a);
    if (b.data) BQ_WANT(dev, a.rows, a.cols, b);
    BQ_WANT(dev, 1, a.cols, sum);
    bq_launch(dev, grid_columns(a.cols), WARP * PARTS, sum_products, a, b.data ? b : a, b.data != NULL,
              bq_f32(sum), a.rows, a.cols);
}
