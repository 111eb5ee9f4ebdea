/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/cayley.h"

#include <math.h>

enum { MATRICES = 5 };

size_t bq_cayley_need(int64_t n) {
    return MATRICES * bq_arena_need(n, n, BQ_F32) + bq_gemm_scratch(BQ_COMPUTE_F32, n, n, n);
}

/* The new momentum, and its norm. */
static double add_gradient(int64_t n, float *m, bq_mat a) {
    double sum = 0;
#pragma omp parallel for schedule(static, 8)
    for (int64_t i = 0; i < n; i++) {
        m[i * n + i] = 0;
        for (int64_t j = 0; j < i; j++) {
            float skew = (*(float *)bq_mat_at(a, i, j) - *(float *)bq_mat_at(a, j, i)) / 2;
            m[i * n + j] = 0.9f * m[i * n + j] + skew;
            m[j * n + i] = -m[i * n + j];
        }
    }
    for (int64_t i = 0; i < n * n; i++) sum += (double)m[i] * m[i];
    return sqrt(sum);
}

static void swap(bq_mat *a, bq_mat *b) {
    bq_mat c = *a;
    *a = *b, *b = c;
}

void bq_cayley_step(bq_dev *dev, int64_t n, float *r, float *momentum, bq_mat gradient, double angle) {
    const bq_ops *op = dev->op;
    double norm = add_gradient(n, momentum, gradient);
    if (!(norm > 0)) return;
    const float f = (float)(-fmin(angle * sqrt((double)n), 1) / norm / 2);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat m[MATRICES];
    for (int k = 0; k < MATRICES; k++) m[k] = bq_arena_push(&dev->mem, n, n, BQ_F32);
    bq_mat s = m[0], fixed = m[1], y = m[2], next = m[3], square = m[4];
    op->put(dev, bq_mat_host(momentum, n, n, BQ_F32), s);
    op->put(dev, bq_mat_host(r, n, n, BQ_F32), y);
    op->copy(dev, y, fixed);
    op->gemm(dev, false, false, f, s, y, 1, fixed); /* (I + f M) R */
    for (int k = 0; k < BQ_CAYLEY_INVERSE; k++) {
        op->copy(dev, fixed, next);
        op->gemm(dev, false, false, f, s, y, 1, next);
        swap(&y, &next);
    }
    for (int k = 0; k < BQ_CAYLEY_POLISH; k++) { /* Y <- Y (3 I - Y^T Y) / 2 */
        op->gemm(dev, true, false, 1, y, y, 0, square);
        op->copy(dev, y, next);
        op->gemm(dev, false, false, -0.5f, y, square, 1.5f, next);
        swap(&y, &next);
    }
    op->get(dev, y, bq_mat_host(r, n, n, BQ_F32));
    op->wait(dev);
    bq_arena_reset(&dev->mem, mark);
}
