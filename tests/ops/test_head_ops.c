/* SPDX-License-Identifier: Apache-2.0 */
/* Ops on the output head against naive loops in double: cross-entropy and distillation. */
#include "same_bits.h"

#include <math.h>

#define LIMIT 1e-12 /* of values: float32 rounding leaves about 1e-14 */

static void xent(void **state) {
    (void)state;
    static const struct {
        int64_t t, h, v;
        float deviation; /* of the head: how peaked */
        float cap;
    } cases[] = {{1, 1, 1, 1, 0},     {31, 33, 127, 1, 0},  {129, 31, 257, 1, 0},
                 {257, 16, 33, 1, 0}, {5, 64, 1031, 40, 0}, {0, 4, 9, 1, 0},
                 {1, 3, 1, 1, 2},     {131, 33, 257, 1, 3}, {7, 64, 1031, 40, 30}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t t = cases[i].t, h = cases[i].h, v = cases[i].v;
        bq_dev dev = cpu_with(2, bq_op_scratch(t, (bq_attention)HEADS(1, 1, 1, 1, 0), v));
        bq_mat x = make_filled(t, h, 2, 1, 1), head = make_filled(v, h, 1, 2, cases[i].deviation);
        bq_mat next = make(t, 1, 1, BQ_I32), nll = make(t, 1, 0, BQ_F64);
        fill_below(next, 3, (int32_t)v);
        dev.op->xent(&dev, x, head, cases[i].cap, next, nll.data);
        dev.op->wait(&dev);
        double error = 0, power = 0, *logits = zeros(v);
        for (int64_t r = 0; r < t; r++) {
            double max = -INFINITY, sum = 0;
            for (int64_t c = 0; c < v; c++) {
                logits[c] = 0;
                for (int64_t k = 0; k < h; k++) logits[c] += at(x, r, k) * at(head, c, k);
                double cap = (double)cases[i].cap;
                if (cap != 0) logits[c] = cap * tanh(logits[c] / cap);
                max = fmax(max, logits[c]);
            }
            for (int64_t c = 0; c < v; c++) sum += exp(logits[c] - max);
            double want = max + log(sum) - logits[*(int32_t *)bq_mat_at(next, r, 0)];
            double e = *(double *)bq_mat_at(nll, r, 0) - want;
            error += e * e, power += want * want;
        }
        assert_true(error <= LIMIT * power && intact(nll) && dev.mem.used == 0);
        drop(x), drop(head), drop(next), drop(nll), free(logits), bq_dev_close(&dev);
    }
}

/* Against plain loops in double, and the gradient against differences of the divergence.  An error of
 * 2^-24 of a logit is one of its probability, relative to it: so the limit grows with the square of the
 * largest logit. */
static void distill(void **state) {
    (void)state;
    static const struct {
        int64_t t, h, v;
        float deviation, cap;
    } cases[] = {{1, 1, 2, 1, 0}, {31, 33, 127, 1, 0},  {129, 31, 257, 0.3f, 0}, {5, 64, 1031, 4, 0},
                 {0, 4, 9, 1, 0}, {131, 33, 257, 1, 3}, {7, 64, 1031, 4, 30}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t t = cases[i].t, h = cases[i].h, v = cases[i].v;
        double cap = (double)cases[i].cap, factor = 0.37, error = 0, power = 1e-30, dkl = 0, all = 1e-30,
               peak = 0;
        bq_dev dev = cpu_with(2, bq_distill_scratch(t, v));
        bq_mat x = make_filled(t, h, 2, 1, 0.5f), y = make_filled(t, h, 1, 3, 0.5f),
               dx = make(t, h, 2, BQ_F32);
        bq_mat head = make_filled(v, h, 1, 2, cases[i].deviation), kl = make(t, 1, 0, BQ_F64);
        dev.op->distill(&dev, x, y, head, cases[i].cap, factor, dx, kl.data);
        dev.op->wait(&dev);
        double *logit[2] = {zeros(v), zeros(v)}, *slope = zeros(v);
        for (int64_t r = 0; r < t; r++) {
            double log_sum[2], want = 0;
            for (int k = 0; k < 2; k++) {
                double max = -INFINITY, sum = 0;
                for (int64_t c = 0; c < v; c++) {
                    double l = 0;
                    for (int64_t j = 0; j < h; j++) l += at(k ? y : x, r, j) * at(head, c, j);
                    if (cap != 0 && k == 0) slope[c] = 1 - tanh(l / cap) * tanh(l / cap);
                    if (cap != 0) l = cap * tanh(l / cap);
                    logit[k][c] = l, max = fmax(max, l), peak = fmax(peak, fabs(l));
                }
                for (int64_t c = 0; c < v; c++) sum += exp(logit[k][c] - max);
                log_sum[k] = max + log(sum);
            }
            for (int64_t c = 0; c < v; c++) {
                double q = exp(logit[0][c] - log_sum[0]), p = exp(logit[1][c] - log_sum[1]);
                want += p * ((logit[1][c] - log_sum[1]) - (logit[0][c] - log_sum[0]));
                slope[c] = factor * (q - p) * (cap != 0 ? slope[c] : 1);
            }
            double e = *(double *)bq_mat_at(kl, r, 0) - want;
            dkl += e * e, all += want * want;
            for (int64_t j = 0; j < h; j++) {
                double g = 0;
                for (int64_t c = 0; c < v; c++) g += slope[c] * at(head, c, j);
                error += (g - at(dx, r, j)) * (g - at(dx, r, j)), power += g * g;
            }
        }
        const double limit = LIMIT * (1 + peak * peak / 64);
        assert_true(error <= limit * power && dkl <= limit * all && intact(dx) && intact(kl) &&
                    dev.mem.used == 0);
        drop(x), drop(y), drop(dx), drop(head), drop(kl), free(logit[0]), free(logit[1]), free(slope);
        bq_dev_close(&dev);
    }
}

static uint64_t all_bits(void) {
    enum { T = 131, H = 114, V = 77 };
    bq_dev dev = cpu_with(0, bq_distill_scratch(T, V));
    bq_mat x = make_filled(T, H, 1, 1, 1), y = make_filled(T, H, 2, 2, 2), dx = make(T, H, 3, BQ_F32);
    bq_mat ids = make(T, 1, 0, BQ_I32), nll = make(T, 1, 0, BQ_F64);
    uint64_t bits = 0;
    fill_below(ids, 7, V);
    for (int cap = 0; cap < 50; cap += 30) {
        bq_mat head = bq_mat_rows(y, 0, V);
        dev.op->xent(&dev, x, head, (float)cap, ids, nll.data), bits = bits_of(bits, nll);
        dev.op->distill(&dev, x, y, head, (float)cap, 0.5, dx, nll.data),
            bits = bits_of(bits_of(bits, nll), dx);
    }
    drop(x), drop(y), drop(dx), drop(ids), drop(nll), bq_dev_close(&dev);
    return bits;
}

int main(void) {
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(xent), cmocka_unit_test(distill), SAME_BITS};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
