/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm and its backward.  A team of 16 lanes has a run of columns of a row (the whole row, or a head); it
 * reads it a second time, from the cache.  Whole rows are so few that a multiprocessor has one or two thread
 * blocks; then a lane loads WIDE columns before it uses any.  Heads are many; they load BATCH columns, with
 * fewer registers. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

enum { BATCH = 8, WIDE = 32 };

template <int N> static __device__ float inverse_rms(const float *x, int64_t n, int64_t cols, float eps) {
    float sum = 0;
    BQ_EACH_BATCH(c, n, N) {
        float some[N];
        bq_batch(x, c, n, some);
        for (int k = 0; k < N; k++) sum += some[k] * some[k];
    }
    return 1.0f / sqrtf(bq_team_sum(sum) / (float)cols + eps);
}

/* Run r of a matrix with `runs` runs of `cols` columns in a row. */
static __device__ float *run_at(bq_rows<float> m, int64_t r, int64_t runs, int64_t cols) {
    return bq_row(m, r / runs) + r % runs * cols;
}

template <int N>
static __global__ void norm_rows(bq_rows<float> x, const float *weight, float eps, bq_rows<float> y,
                                 int64_t rows, int64_t runs, int64_t cols) {
    BQ_EACH_ROW(r, rows * runs) {
        const int64_t n = r < rows * runs ? cols : 0;
        const float *from = run_at(x, r, runs, cols), by = inverse_rms<N>(from, n, cols, eps);
        float *to = run_at(y, r, runs, cols);
        BQ_EACH_BATCH(c, n, N) {
            float some[N], w[N];
            bq_batch(from, c, n, some), bq_batch(weight, c, n, w);
            for (int k = 0; k < N; k++)
                if (c + k * BQ_LANES < n) to[c + k * BQ_LANES] = some[k] * by * w[k];
        }
    }
}

template <int N>
static __global__ void norm_rows_bwd(bq_rows<float> x, const float *weight, float eps, bq_rows<float> dy,
                                     bq_rows<float> dx, int64_t rows, int64_t runs, int64_t cols) {
    BQ_EACH_ROW(r, rows * runs) {
        const int64_t n = r < rows * runs ? cols : 0;
        const float *in = run_at(x, r, runs, cols), *d = run_at(dy, r, runs, cols),
                    by = inverse_rms<N>(in, n, cols, eps);
        float *to = run_at(dx, r, runs, cols), sum = 0, xs[N], ds[N], ws[N], old[N];
        BQ_EACH_BATCH(c, n, N) {
            bq_batch(in, c, n, xs), bq_batch(d, c, n, ds), bq_batch(weight, c, n, ws);
            for (int k = 0; k < N; k++) sum += ws[k] * ds[k] * xs[k];
        }
        const float back = by * by * by / (float)cols * bq_team_sum(sum);
        BQ_EACH_BATCH(c, n, N) {
            bq_batch(in, c, n, xs), bq_batch(d, c, n, ds), bq_batch(weight, c, n, ws),
                bq_batch(to, c, n, old);
            for (int k = 0; k < N; k++)
                if (c + k * BQ_LANES < n) to[c + k * BQ_LANES] = old[k] + (ws[k] * ds[k] * by - xs[k] * back);
        }
    }
}

/* Is a run so wide that lanes fill larger batches? */
static bool wide(bq_mat weight) { return weight.cols > 2 * WIDE * BQ_LANES; }

static int64_t runs_of(const bq_dev *dev, bq_mat x, bq_mat weight) {
    BQ_WANT(dev, 1, weight.cols, weight);
    BQ_CHECK(weight.cols > 0 && x.cols % weight.cols == 0, "rmsnorm: %ld columns, a weight of %ld",
             (long)x.cols, (long)weight.cols);
    return x.cols / weight.cols;
}

void bq_cuda_rmsnorm(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat y) {
    BQ_WANT(dev, x.rows, x.cols, x, y);
    const int64_t runs = runs_of(dev, y, weight);
    bq_launch(dev, bq_grid_teams(y.rows * runs), BQ_THREADS,
              wide(weight) ? norm_rows<WIDE> : norm_rows<BATCH>, x, bq_f32(weight), eps, y, y.rows, runs,
              weight.cols);
}

void bq_cuda_rmsnorm_bwd(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat dy, bq_mat dx) {
    BQ_WANT(dev, x.rows, x.cols, x, dx, dy);
    const int64_t runs = runs_of(dev, x, weight);
    bq_launch(dev, bq_grid_teams(dx.rows * runs), BQ_THREADS,
              wide(weight) ? norm_rows_bwd<WIDE / 2> : norm_rows_bwd<BATCH>, x, bq_f32(weight), eps, dy, dx,
              dx.rows, runs, weight.cols);
}
