/* SPDX-License-Identifier: Apache-2.0 */
/* Ops of mixtures of experts.  A team has a token: its lanes look for the next expert together, and one lane
 * writes what was found. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

static __global__ void choose(bq_router r, bq_rows<float> logits, const float *bias, int experts,
                              bq_rows<int32_t> index, bq_rows<float> weight, int64_t tokens) {
    BQ_EACH_ROW(t, tokens) {
        const bool in = t < tokens;
        const bq_routing of = {r, in ? bq_row(logits, t) : NULL, bias, in ? experts : 0};
        uint64_t groups = r.kept < r.groups ? 0 : UINT64_MAX, key = UINT64_MAX;
        for (int i = 0; i < r.kept && r.kept < r.groups; i++) {
            key = bq_team_max(bq_route_next_group(of, bq_lane(), BQ_LANES, key));
            groups |= UINT64_C(1) << bq_route_number(key);
        }
        key = UINT64_MAX;
        for (int i = 0; i < r.chosen; i++)
            key = bq_team_max(bq_route_next(of, groups, bq_lane(), BQ_LANES, key));
        if (in && bq_lane() == 0) bq_route_write(of, groups, key, bq_row(index, t), bq_row(weight, t));
    }
}

static __global__ void choose_bwd(bq_router r, bq_rows<float> logits, int experts, bq_rows<int32_t> index,
                                  bq_rows<float> dweight, bq_rows<float> dlogits, int64_t tokens) {
    const int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (t < tokens)
        bq_route_back({r, bq_row(logits, t), NULL, experts}, bq_row(index, t), bq_row(dweight, t),
                      bq_row(dlogits, t));
}

void bq_cuda_route(bq_dev *dev, bq_router r, bq_mat logits, bq_mat bias, bq_mat index, bq_mat weight) {
    BQ_WANT_ROUTER(dev, r, logits, index, weight);
    if (bias.data) BQ_WANT(dev, 1, logits.cols, bias);
    bq_launch(dev, bq_grid_teams(logits.rows), BQ_THREADS, choose, r, logits, (const float *)bias.data,
              (int)logits.cols, index, weight, logits.rows);
}

void bq_cuda_route_bwd(bq_dev *dev, bq_router r, bq_mat logits, bq_mat index, bq_mat dweight,
                       bq_mat dlogits) {
    BQ_WANT_ROUTER(dev, r, logits, index, dweight);
    BQ_WANT(dev, logits.rows, logits.cols, dlogits);
    const unsigned threads = 32; /* a token a thread: more thread blocks use more of the GPU */
    bq_launch(dev, bq_pieces(logits.rows, threads), threads, choose_bwd, r, logits, (int)logits.cols, index,
              dweight, dlogits, logits.rows);
}

/* start(e + 1) = how many tokens take expert e. */
static __global__ void count_tokens(bq_rows<int32_t> index, int64_t rows, int64_t cols, int32_t *start,
                                    int experts) {
    const int e = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    int32_t n = 0;
    if (e >= experts) return;
    for (int64_t i = 0; i < rows * cols; i++) n += bq_row(index, i / cols)[i % cols] == e;
    start[e + 1] = n;
}

static __global__ void sum_counts(int32_t *start, int experts) {
    if (threadIdx.x) return;
    start[0] = 0;
    for (int e = 0; e < experts; e++) start[e + 1] += start[e];
}

static __global__ void fill_lists(bq_rows<int32_t> index, int64_t rows, int64_t cols, const int32_t *start,
                                  int experts, int32_t *row, int32_t *slot) {
    const int e = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (e >= experts) return;
    int32_t at = start[e];
    for (int64_t i = 0; i < rows * cols; i++)
        if (bq_row(index, i / cols)[i % cols] == e) row[at] = (int32_t)(i / cols), slot[at++] = (int32_t)i;
}

void bq_cuda_expert_lists(bq_dev *dev, bq_mat index, bq_mat rows, bq_mat slots, bq_mat start) {
    const int64_t n = index.rows * index.cols;
    const int experts = (int)start.rows - 1;
    BQ_WANT_AS(dev, BQ_I32, index.rows, index.cols, index);
    BQ_WANT_AS(dev, BQ_I32, n, 1, rows, slots);
    BQ_WANT_AS(dev, BQ_I32, (int64_t)experts + 1, 1, start);
    const unsigned threads = 32; /* an expert a thread */
    int32_t *first = (int32_t *)start.data;
    bq_launch(dev, bq_pieces(experts, threads), threads, count_tokens, index, index.rows, index.cols, first,
              experts);
    bq_launch(dev, 1, threads, sum_counts, first, experts);
    bq_launch(dev, bq_pieces(experts, threads), threads, fill_lists, index, index.rows, index.cols,
              (const int32_t *)first, experts, (int32_t *)rows.data, (int32_t *)slots.data);
}

/* Entry i of an index; -1 where it is not a row of a matrix with `rows` rows. */
static __device__ int64_t row_of(bq_rows<int32_t> index, int64_t i, int64_t rows) {
    const int32_t row = *bq_row(index, i);
    return row >= 0 && row < rows ? row : -1;
}

static __global__ void gather(bq_rows<float> x, int64_t from, bq_rows<int32_t> index, bq_rows<float> weight,
                              bq_rows<float> out, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t i = blockIdx.y; i < rows && c < cols; i += gridDim.y) {
        const int64_t r = row_of(index, i, from);
        const float v = r < 0 ? NAN : bq_row(x, r)[c];
        bq_row(out, i)[c] = weight.data ? v * *bq_row(weight, i) : v;
    }
}

static __global__ void scatter_add(bq_rows<float> x, bq_rows<int32_t> index, bq_rows<float> weight,
                                   bq_rows<float> y, int64_t to, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t i = blockIdx.y; i < rows && c < cols; i += gridDim.y) {
        const int64_t r = row_of(index, i, to);
        if (r >= 0) bq_row(y, r)[c] += bq_row(x, i)[c] * *bq_row(weight, i);
    }
}

static __global__ void dots(bq_rows<float> a, int64_t from, bq_rows<int32_t> index, bq_rows<float> b,
                            bq_rows<float> dot, int64_t rows, int64_t cols) {
    BQ_EACH_ROW(i, rows) {
        const int64_t r = i < rows ? row_of(index, i, from) : -1, n = r < 0 ? 0 : cols;
        const float *x = bq_row(a, r < 0 ? 0 : r), *y = bq_row(b, r < 0 ? 0 : i);
        float sum = 0;
        for (int64_t c = bq_lane(); c < n; c += BQ_LANES) sum += x[c] * y[c];
        sum = bq_team_sum(sum);
        if (i < rows && bq_lane() == 0) *bq_row(dot, i) = r < 0 ? NAN : sum;
    }
}

void bq_cuda_gather_rows(bq_dev *dev, bq_mat x, bq_mat index, bq_mat weight, bq_mat out) {
    BQ_WANT(dev, x.rows, out.cols, x);
    BQ_WANT(dev, index.rows, x.cols, out);
    BQ_WANT_AS(dev, BQ_I32, out.rows, 1, index);
    if (weight.data) BQ_WANT(dev, out.rows, 1, weight);
    bq_launch(dev, bq_grid_elements(out.rows, out.cols), BQ_THREADS, gather, x, x.rows, index, weight, out,
              out.rows, out.cols);
}

void bq_cuda_scatter_add_rows(bq_dev *dev, bq_mat x, bq_mat index, bq_mat weight, bq_mat y) {
    BQ_WANT(dev, index.rows, y.cols, x);
    BQ_WANT(dev, y.rows, x.cols, y);
    BQ_WANT_AS(dev, BQ_I32, x.rows, 1, index);
    BQ_WANT(dev, x.rows, 1, weight);
    bq_launch(dev, bq_grid_elements(x.rows, x.cols), BQ_THREADS, scatter_add, x, index, weight, y, y.rows,
              x.rows, x.cols);
}

void bq_cuda_dot_rows(bq_dev *dev, bq_mat a, bq_mat index, bq_mat b, bq_mat dot) {
    BQ_WANT(dev, a.rows, b.cols, a);
    BQ_WANT(dev, index.rows, a.cols, b);
    BQ_WANT_AS(dev, BQ_I32, b.rows, 1, index);
    BQ_WANT(dev, b.rows, 1, dot);
    bq_launch(dev, bq_grid_teams(b.rows), BQ_THREADS, dots, a, a.rows, index, b, dot, b.rows, b.cols);
}
