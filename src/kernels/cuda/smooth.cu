/* SPDX-License-Identifier: Apache-2.0 */
/* Smoothing scales, and what they do to a matrix. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

enum { BATCH = 16 };
enum { TIMES, OVER }; /* y = x * s, y = x / s */

/* The scale is s(r, 0) with by_row, else s(0, c). */
template <int KIND>
static __global__ void apply(bq_rows<float> x, bq_rows<float> s, bool by_row, bq_rows<float> y, int64_t rows,
                             int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const float by = by_row ? *bq_row(s, r) : s.data[c], v = bq_row(x, r)[c];
        bq_row(y, r)[c] = KIND == TIMES ? v * by : v / by;
    }
}

template <int KIND> static void scaled(bq_dev *dev, bq_mat x, bq_mat s, bool by_row, bq_mat y) {
    BQ_WANT(dev, x.rows, x.cols, x, y);
    BQ_WANT(dev, by_row ? x.rows : 1, by_row ? 1 : x.cols, s);
    bq_launch(dev, bq_grid_elements(x.rows, x.cols), BQ_THREADS, apply<KIND>, x, s, by_row, y, x.rows,
              x.cols);
}

void bq_cuda_times_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) { scaled<TIMES>(dev, x, s, false, y); }
void bq_cuda_over_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) { scaled<OVER>(dev, x, s, false, y); }
void bq_cuda_over_rows(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) { scaled<OVER>(dev, x, s, true, y); }

/* One thread block.  weight may be NULL. */
static __global__ void scales(bq_smooth_form f, const float *act, const float *weight, float *s,
                              int64_t cols) {
    float least = INFINITY, most = 0;
    for (int64_t c = threadIdx.x; c < cols; c += BQ_THREADS) {
        const float x = (float)bq_smooth_scale_of(f, (double)act[c], weight ? (double)weight[c] : 0);
        s[c] = x > 0 && x < INFINITY ? x : 1;
        least = s[c] < least ? s[c] : least;
        most = s[c] > most ? s[c] : most;
    }
    most = bq_block_max(most), least = -bq_block_max(-least);
    if (f.kind != BQ_SMOOTH_POWER && f.kind != BQ_SMOOTH_DUO) return;
    const double middle = sqrt((double)most * (double)least);
    for (int64_t c = threadIdx.x; c < cols; c += BQ_THREADS) s[c] = (float)((double)s[c] / middle);
}

void bq_cuda_smooth_scale(bq_dev *dev, bq_smooth_form f, bq_mat act, bq_mat weight, bq_mat s) {
    const bool weighted = f.kind == BQ_SMOOTH_ALPHA || f.kind == BQ_SMOOTH_DUO;
    BQ_WANT(dev, 1, s.cols, act, s);
    if (weighted) BQ_WANT(dev, 1, s.cols, weight);
    bq_launch(dev, dim3(1), BQ_THREADS, scales, f, bq_f32(act), weighted ? bq_f32(weight) : NULL, bq_f32(s),
              s.cols);
}

static __global__ void heads(bq_rows<float> s, int64_t head, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < head; r += gridDim.y) {
        float *row = bq_row(s, r), most = row[c];
        for (int64_t k = c; k < cols; k += head) most = row[k] > most ? row[k] : most;
        for (int64_t k = c; k < cols; k += head) row[k] = most;
    }
}

void bq_cuda_head_max(bq_dev *dev, bq_mat s, int64_t head) {
    BQ_WANT(dev, s.rows, s.cols, s);
    BQ_CHECK(head > 0 && s.cols % head == 0, "head_max: heads of %ld in %ld columns", (long)head,
             (long)s.cols);
    bq_launch(dev, bq_grid_elements(s.rows, head), BQ_THREADS, heads, s, head, s.rows, s.cols);
}

/* A team has one group of one row. */
static __global__ void fake_groups(bq_rows<float> w, const float *s, bq_scheme scheme, int64_t group,
                                   bq_rows<float> out, int64_t rows, int64_t groups) {
    BQ_EACH_ROW(g, rows * groups) {
        const bool in = g < rows * groups;
        const int64_t r = in ? g / groups : 0, first = in ? g % groups * group : 0;
        const float *from = bq_row(w, r) + first, *by = s + first;
        float *to = bq_row(out, r) + first, zero = 0, lo, hi;
        for (int64_t c = bq_lane(); in && c < group; c += BQ_LANES) to[c] = from[c] * by[c];
        const float start = in && bq_scheme_offset(scheme) ? from[0] * by[0] : 0;
        bq_team_ends(to, in ? group : 0, start, &lo, &hi); /* a lane reads what it wrote */
        const bq_row_grid grid = bq_row_grid_fit(lo, hi, 1, scheme, &zero);
        for (int64_t c = bq_lane(); in && c < group; c += BQ_LANES)
            to[c] = bq_on_code_grid(to[c], grid) / by[c];
    }
}

void bq_cuda_smooth_weights(bq_dev *dev, bq_mat w, bq_mat s, bq_scheme scheme, bq_mat out) {
    const int64_t group = scheme.group > 0 ? scheme.group : w.cols;
    BQ_WANT(dev, w.rows, w.cols, w, out);
    BQ_WANT(dev, 1, w.cols, s);
    BQ_CHECK(w.cols % group == 0, "smooth_weights: groups of %ld in %ld columns", (long)group, (long)w.cols);
    bq_launch(dev, bq_grid_teams(w.rows * (w.cols / group)), BQ_THREADS, fake_groups, w, bq_f32(s), scheme,
              group, out, w.rows, w.cols / group);
}

static __device__ float difference(float a, float b, bq_distance kind) {
    const float d = a - b;
    return kind == BQ_DISTANCE_MSE ? d * d : kind == BQ_DISTANCE_MAE ? fabsf(d) : sqrtf(fabsf(d));
}

static __global__ void __launch_bounds__(BQ_THREADS, 1)
    row_distances(bq_rows<float> a, bq_rows<float> b, bq_distance kind, double *sums, int64_t rows,
                  int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        const int64_t n = r < rows ? cols : 0;
        double sum = 0;
        BQ_EACH_BATCH(c, n, BATCH) {
            float x[BATCH], y[BATCH];
            bq_batch(bq_row(a, r), c, n, x), bq_batch(bq_row(b, r), c, n, y);
            for (int k = 0; k < BATCH; k++)
                sum += (double)difference(x[k], y[k], kind); /* 0 behind the row */
        }
        sum = bq_team_sum(sum);
        if (r < rows && bq_lane() == 0) sums[r] = sum;
    }
}

void bq_cuda_distance(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *sum) {
    BQ_WANT(dev, a.rows, a.cols, a, b);
    const size_t mark = bq_arena_mark(&dev->mem);
    double *sums = (double *)bq_arena_push(&dev->mem, 1, a.rows, BQ_F64).data;
    bq_launch(dev, bq_grid_teams(a.rows), BQ_THREADS, row_distances, a, b, kind, sums, a.rows, a.cols);
    bq_cuda_sum(dev, sums, a.rows, 1, sum);
    bq_arena_reset(&dev->mem, mark);
}

static __device__ float clipped(float w, float c) {
    const float x = w > c ? c : w;
    return x < -c ? -c : x;
}

static __global__ void clip_errors(bq_rows<float> w, float factor, bq_scheme s, bq_rows<float> out,
                                   int64_t rows, int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        const int64_t n = r < rows ? cols : 0;
        const float *from = bq_row(w, r);
        float *to = bq_row(out, r), zero = 0, lo, hi;
        bq_team_ends(from, n, 0, &lo, &hi);
        const float limit = factor * fmaxf(-lo, hi);
        for (int64_t c = bq_lane(); c < n; c += BQ_LANES) to[c] = clipped(from[c], limit);
        const float start = clipped(bq_ends_start(s, from, n), limit);
        bq_team_ends(to, n, start, &lo, &hi); /* a lane reads what it wrote */
        const bq_row_grid grid = bq_row_grid_fit(lo, hi, 1, s, &zero);
        for (int64_t c = bq_lane(); c < n; c += BQ_LANES) to[c] = bq_on_code_grid(to[c], grid) - from[c];
    }
}

void bq_cuda_clip_error(bq_dev *dev, bq_mat w, float factor, bq_scheme s, bq_mat out) {
    BQ_WANT(dev, w.rows, w.cols, w, out);
    bq_launch(dev, bq_grid_teams(w.rows), BQ_THREADS, clip_errors, w, factor, s, out, w.rows, w.cols);
}

static __global__ void clip_best(bq_rows<float> error, int64_t candidates, float step, bq_rows<float> w,
                                 int64_t rows, int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        const int64_t n = r < rows ? cols : 0;
        int64_t best = 0;
        for (int64_t i = 1; r < rows && i < candidates; i++)
            if (bq_row(error, i)[r] < bq_row(error, best)[r]) best = i;
        float *row = bq_row(w, r), lo, hi;
        bq_team_ends(row, n, 0, &lo, &hi);
        const float limit = (1 - (float)best * step) * fmaxf(-lo, hi);
        for (int64_t c = bq_lane(); best > 0 && c < n; c += BQ_LANES) row[c] = clipped(row[c], limit);
    }
}

void bq_cuda_clip_rows(bq_dev *dev, bq_mat error, float step, bq_mat w) {
    BQ_WANT(dev, error.rows, w.rows, error);
    BQ_WANT(dev, w.rows, w.cols, w);
    bq_launch(dev, bq_grid_teams(w.rows), BQ_THREADS, clip_best, error, error.rows, step, w, w.rows, w.cols);
}
