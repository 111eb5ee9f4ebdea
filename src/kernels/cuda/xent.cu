/* SPDX-License-Identifier: Apache-2.0 */
/* Cross-entropy and distillation.  GEMM makes the logits of some rows at a time; then a thread block has a
 * row. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

constexpr int64_t ROWS = 128; /* rows of logits at a time, as on the cpu: the plan counts them */

static __global__ void cap_logits(bq_rows<float> logits, float cap, int64_t rows, int64_t vocab) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < vocab; r += gridDim.y)
        bq_row(logits, r)[c] = cap * bq_tanh(bq_row(logits, r)[c] / cap);
}

static __global__ void row_losses(bq_rows<float> logits, int64_t vocab, const int32_t *next, int64_t ldn,
                                  double *nll) {
    const float *x = bq_row(logits, blockIdx.x);
    float top = -INFINITY;
    for (int64_t c = threadIdx.x; c < vocab; c += BQ_THREADS) top = x[c] > top ? x[c] : top;
    top = bq_block_max(top);
    double sum = 0;
    for (int64_t c = threadIdx.x; c < vocab; c += BQ_THREADS) sum += (double)bq_exp(x[c] - top);
    sum = bq_block_sum(sum);
    const int32_t id = next[blockIdx.x * ldn];
    if (threadIdx.x == 0)
        nll[blockIdx.x] = id >= 0 && id < vocab ? log(sum) + ((double)top - (double)x[id]) : (double)NAN;
}

void bq_cuda_xent(bq_dev *dev, bq_mat x, bq_mat head, float cap, bq_mat next, double *nll) {
    BQ_WANT(dev, next.rows, head.cols, x);
    BQ_WANT(dev, head.rows, x.cols, head);
    BQ_WANT_AS(dev, BQ_I32, x.rows, 1, next);
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_mat logits = bq_arena_push(&dev->mem, x.rows < ROWS ? x.rows : ROWS, head.rows, BQ_F32);
    double *to = bq_cuda_result(dev, nll, x.rows);
    for (int64_t first = 0; first < x.rows; first += ROWS) {
        const int64_t rows = x.rows - first < ROWS ? x.rows - first : ROWS;
        const bq_mat part = bq_mat_rows(logits, 0, rows);
        bq_cuda_gemm(dev, false, true, 1, bq_mat_rows(x, first, rows), head, 0, part);
        if (cap != 0)
            bq_launch(dev, bq_grid_elements(rows, head.rows), BQ_THREADS, cap_logits, part, cap, rows,
                      head.rows);
        bq_launch(dev, dim3((unsigned)rows), BQ_THREADS, row_losses, part, head.rows,
                  (const int32_t *)next.data + first * next.ld, next.ld, to + first);
    }
    bq_arena_reset(&dev->mem, mark);
}

/* The largest logit of a row, and the sum of exp(x - top): in all threads. */
static __device__ double sum_exp(const float *x, int64_t vocab, float *top) {
    float most = -INFINITY;
    for (int64_t c = threadIdx.x; c < vocab; c += BQ_THREADS) most = x[c] > most ? x[c] : most;
    *top = bq_block_max(most);
    double sum = 0;
    for (int64_t c = threadIdx.x; c < vocab; c += BQ_THREADS) sum += (double)bq_exp(x[c] - *top);
    return bq_block_sum(sum);
}

/* As vec_model.c's distill. */
static __global__ void distill_rows(bq_rows<float> logits, bq_rows<float> targets, int64_t vocab, float cap,
                                    float slope, double *kl) {
    float *x = bq_row(logits, blockIdx.x), topx, topy;
    const float *y = bq_row(targets, blockIdx.x);
    const double sumx = sum_exp(x, vocab, &topx), sumy = sum_exp(y, vocab, &topy);
    const float overx = (float)(1 / sumx), overy = (float)(1 / sumy), bend = cap != 0 ? 1 / cap : 0;
    double sum = 0;
    for (int64_t c = threadIdx.x; c < vocab; c += BQ_THREADS) {
        const float a = x[c], b = y[c], q = bq_exp(a - topx) * overx, p = bq_exp(b - topy) * overy,
                    lean = a * bend;
        if (p > 0) sum += (double)(p * ((b - topy) - (a - topx)));
        x[c] = slope * (q - p) * (1 - lean * lean);
    }
    sum = bq_block_sum(sum);
    if (threadIdx.x == 0) kl[blockIdx.x] = sum + (log(sumx) - log(sumy));
}

void bq_cuda_distill(bq_dev *dev, bq_mat x, bq_mat y, bq_mat head, float cap, double factor, bq_mat dx,
                     double *kl) {
    BQ_WANT(dev, x.rows, head.cols, x, y, dx);
    BQ_WANT(dev, head.rows, x.cols, head);
    const size_t mark = bq_arena_mark(&dev->mem);
    bq_mat logits[2];
    for (int k = 0; k < 2; k++)
        logits[k] = bq_arena_push(&dev->mem, x.rows < ROWS ? x.rows : ROWS, head.rows, BQ_F32);
    double *to = bq_cuda_result(dev, kl, x.rows);
    for (int64_t first = 0; first < x.rows; first += ROWS) {
        const int64_t rows = x.rows - first < ROWS ? x.rows - first : ROWS;
        const bq_mat q = bq_mat_rows(logits[0], 0, rows), p = bq_mat_rows(logits[1], 0, rows);
        bq_cuda_gemm(dev, false, true, 1, bq_mat_rows(x, first, rows), head, 0, q);
        bq_cuda_gemm(dev, false, true, 1, bq_mat_rows(y, first, rows), head, 0, p);
        for (int k = 0; k < 2 && cap != 0; k++)
            bq_launch(dev, bq_grid_elements(rows, head.rows), BQ_THREADS, cap_logits, k ? p : q, cap, rows,
                      head.rows);
        bq_launch(dev, dim3((unsigned)rows), BQ_THREADS, distill_rows, q, p, head.rows, cap, (float)factor,
                  to + first);
        bq_cuda_gemm(dev, false, false, 1, q, head, 0, bq_mat_rows(dx, first, rows));
    }
    bq_arena_reset(&dev->mem, mark);
}
