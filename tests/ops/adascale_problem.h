/* SPDX-License-Identifier: Apache-2.0 */
/* adascale_problem.h - one matrix under AdaScale with everything around it, for the tests of its two ops. */
#ifndef ADASCALE_PROBLEM_H
#define ADASCALE_PROBLEM_H

#include "ops_common.h"

#include "kernels/adam.h"

#include <math.h>

static const bq_mat none; /* no fold, no gradients */
static bq_dev dev;        /* opened by main */

typedef struct {
    bq_adascale p;
    bq_scheme s;
    bq_mat g, w_hat, scale, fold, grad;
} problem;

static inline void each(problem *q, void (*visit)(bq_mat m)) {
    bq_mat all[] = {q->p.w,     q->p.hi,   q->p.lo,   q->p.beta, q->p.gamma, q->p.s3,  q->p.s2, q->p.m_row,
                    q->p.v_row, q->p.m_s2, q->p.v_s2, q->g,      q->w_hat,   q->scale, q->fold, q->grad};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) visit(all[i]);
}

static inline void expect_intact(bq_mat m) { assert_true(intact(m)); }
static inline void finish(problem *q) { each(q, expect_intact), each(q, drop); }

static inline bq_mat zeroed(int64_t rows, int64_t cols, int64_t pad) {
    return make_filled(rows, cols, pad, 0, 0);
}

/* hi, lo from the range op; parameters of deviation `far` (0: a fresh start); w of deviation 0.05. */
static inline problem start(int64_t rows, int64_t cols, int64_t pad, bq_scheme s, float far) {
    problem q = {.s = s};
    q.p.w = make_filled(rows, cols, pad, 1, 0.05f), q.g = make_filled(rows, cols, pad + 1, 2, 0.01f);
    q.p.hi = make(rows, 1, 0, BQ_F32), q.p.lo = make(rows, 1, pad, BQ_F32);
    q.p.beta = make_filled(rows, 1, pad, 3, far), q.p.gamma = make_filled(rows, 1, 0, 4, far);
    q.p.s3 = make_filled(rows, 1, 1, 5, far), q.p.s2 = make_filled(rows, cols, pad + 2, 6, far);
    q.p.m_row = zeroed(rows, 3, pad), q.p.v_row = zeroed(rows, 3, 1);
    q.p.m_s2 = zeroed(rows, cols, pad), q.p.v_s2 = zeroed(rows, cols, pad + 3);
    q.w_hat = make(rows, cols, pad + 1, BQ_F32), q.fold = make(rows, cols, pad, BQ_F32);
    q.scale = make(rows, 1, pad, BQ_F32), q.grad = make(rows, cols + 3, pad, BQ_F32);
    dev.op->range(&dev, q.p.w, grid_of(s.element, BQ_F32), q.scale, (bq_mat){0});
    for (int64_t r = 0; r < rows; r++) {
        *ptr(q.p.hi, r, 0) = bq_qmax(s) * *ptr(q.scale, r, 0);
        *ptr(q.p.lo, r, 0) = bq_qmin(s) * *ptr(q.scale, r, 0);
    }
    return q;
}

static inline void forward(problem *q) {
    dev.op->adascale_weights(&dev, &q->p, q->s, q->w_hat, q->scale, q->fold);
}
static inline void gradient(problem *q) { dev.op->adascale_step(&dev, &q->p, q->s, q->g, none, q->grad); }
static inline void step(problem *q, bq_adam adam) {
    bq_mat numbers = make(1, BQ_ADAM_NUMBERS, 0, BQ_F32);
    bq_adam_put(&dev, adam, numbers);
    dev.op->adascale_step(&dev, &q->p, q->s, q->g, numbers, none);
    drop(numbers);
}

/* |got - want| <= limit * |size| */
static inline void expect_near(double got, double want, double size, double limit) {
    if (!(fabs(got - want) <= limit * fabs(size))) {
        print_error("got %.10g, expected %.10g\n", got, want);
        fail();
    }
}

static inline void put(bq_mat m, const float *values) {
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c++) *ptr(m, r, c) = values[r * m.cols + c];
}

static inline void expect(bq_mat m, const double *want, double limit) {
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c++)
            expect_near(at(m, r, c), want[r * m.cols + c], want[r * m.cols + c], limit);
}

#endif
