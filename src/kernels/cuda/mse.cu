/* SPDX-License-Identifier: Apache-2.0 */
/* Mean squared error and its gradient, which read the rows once; then the sums of the rows are added in
 * order.  With a bound of one thread block the compiler loads a whole batch first; without it, the compiler
 * saves registers and mixes loads with sums. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

enum { BATCH = 16 };

static __device__ double squares(const float *x, int64_t n) {
    double sum = 0;
    BQ_EACH_BATCH(c, n, BATCH) {
        float some[BATCH];
        bq_batch(x, c, n, some);
        for (int k = 0; k < BATCH; k++) sum += (double)some[k] * (double)some[k];
    }
    return bq_team_sum(sum);
}

static __global__ void __launch_bounds__(BQ_THREADS, 1)
    row_errors(bq_rows<float> y, bq_rows<float> target, double factor, bool relative, bq_rows<float> dy,
               double *sums, int64_t rows, int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        const int64_t n = r < rows ? cols : 0;
        const double times = relative ? bq_relative(squares(bq_row(target, r), n), n) : 1;
        const float slope = (float)(2 * factor * times);
        double sum = 0;
        BQ_EACH_BATCH(c, n, BATCH) {
            float e[BATCH], want[BATCH];
            bq_batch(bq_row(y, r), c, n, e), bq_batch(bq_row(target, r), c, n, want);
            for (int k = 0; k < BATCH; k++) e[k] -= want[k], sum += (double)e[k] * (double)e[k];
            for (int k = 0; k < BATCH; k++)
                if (dy.data && c + k * BQ_LANES < n) bq_row(dy, r)[c + k * BQ_LANES] = e[k] * slope;
        }
        sum = bq_team_sum(sum);
        if (r < rows && bq_lane() == 0) sums[r] = times * sum;
    }
}

/* Behind the n numbers it adds 0, which changes no sum. */
static __global__ void add_up(const double *x, int64_t n, double factor, double *to) {
    __shared__ double some[BQ_THREADS];
    double sum = 0;
    for (int64_t first = 0; first < n; first += BQ_THREADS) {
        const int64_t i = first + threadIdx.x;
        some[threadIdx.x] = i < n ? x[i] : 0;
        __syncthreads(); /* they are there */
        for (int k = 0; threadIdx.x == 0 && k < BQ_THREADS; k += BATCH)
            for (int l = 0; l < BATCH; l++) sum += some[k + l];
        __syncthreads(); /* they have been read */
    }
    if (threadIdx.x == 0) to[0] = factor * sum;
}

void bq_cuda_sum(bq_dev *dev, const double *x, int64_t n, double factor, double *sum) {
    bq_launch(dev, dim3(1), BQ_THREADS, add_up, x, n, factor, bq_cuda_result(dev, sum, 1));
}

/* The sums of the rows, in scratch. */
static const double *errors(bq_dev *dev, bq_mat y, bq_mat target, double factor, bool relative, bq_mat dy) {
    BQ_WANT(dev, y.rows, y.cols, y, target);
    if (dy.data) BQ_WANT(dev, y.rows, y.cols, dy);
    double *sums = (double *)bq_arena_push(&dev->mem, y.rows, 1, BQ_F64).data;
    bq_launch(dev, bq_grid_teams(y.rows), BQ_THREADS, row_errors, y, target, factor, relative, dy, sums,
              y.rows, y.cols);
    return sums;
}

void bq_cuda_mse(bq_dev *dev, bq_mat y, bq_mat target, double factor, bq_mat dy, double *loss) {
    const size_t mark = bq_arena_mark(&dev->mem);
    bq_cuda_sum(dev, errors(dev, y, target, factor, false, dy), y.rows, factor, loss);
    bq_arena_reset(&dev->mem, mark);
}

void bq_cuda_mse_there(bq_dev *dev, bq_mat y, bq_mat target, double factor, bool relative, bq_mat dy,
                       bq_mat loss) {
    BQ_WANT_AS(dev, BQ_F64, 1, 1, loss);
    const size_t mark = bq_arena_mark(&dev->mem);
    bq_launch(dev, dim3(1), BQ_THREADS, add_up, errors(dev, y, target, factor, relative, dy), y.rows, factor,
              (double *)loss.data);
    bq_arena_reset(&dev->mem, mark);
}
