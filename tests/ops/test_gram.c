/* SPDX-License-Identifier: Apache-2.0 */
/* gram, order and factor against naive loops in double. */
#include "gptq_problem.h"

#define LIMIT 1e-12

static void gram_equals_naive(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 31, 33, 127, 129, 257, 401, 800};
    for (size_t i = 0; i < 2 * (sizeof sizes / sizeof *sizes); i++) {
        int64_t k = sizes[i / 2], tokens = i / 2 % 2 ? 37 : 130;
        dev.compute = i % 2 ? BQ_COMPUTE_FP16X2 : BQ_COMPUTE_F32; /* to the cpu the same */
        bq_mat x = make_filled(tokens, k, 3, (uint32_t)i, 1), h = make(k, k, 2, BQ_F32);
        double *want = zeros(k * k);
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t a = 0; a < k; a++)
                for (int64_t b = 0; b < k; b++) want[a * k + b] += at(x, t, a) * at(x, t, b);
        dev.op->gram(&dev, x, h);
        assert_true(nmse(h, want) < LIMIT && intact(h) && intact(x));
        for (int64_t a = 0; a < k; a++)
            for (int64_t b = 0; b < a; b++) assert_true(*ptr(h, a, b) == *ptr(h, b, a));
        drop(x), drop(h), free(want);
    }
    dev.compute = BQ_COMPUTE_F32;
}

static void no_tokens_are_no_moments(void **state) {
    (void)state;
    bq_mat x = make(0, 9, 0, BQ_F32), h = make_filled(9, 9, 1, 1, 1);
    dev.op->gram(&dev, x, h);
    for (int64_t i = 0; i < 81; i++) assert_true(*ptr(h, i / 9, i % 9) == 0);
    assert_true(intact(h));
    drop(x), drop(h);
}

static void orders(void **state) {
    (void)state;
    bq_mat d = make(8, 1, 0, BQ_F32), order = make(8, 1, 0, BQ_I32);
    static const float diag[] = {1, 5, 5, 0, NAN, 7, 2, 5};
    static const int32_t want[3][8] = {
        {0, 1, 2, 3, 4, 5, 6, 7}, {5, 1, 2, 7, 6, 0, 3, 4}, {5, 4, 1, 0, 2, 3, 7, 6}};
    static const bq_order kind[] = {BQ_ORDER_NONE, BQ_ORDER_ACT, BQ_ORDER_GAR};
    for (int c = 0; c < 8; c++) *ptr(d, c, 0) = diag[c];
    for (int k = 0; k < 3; k++) {
        dev.op->order(&dev, d, kind[k], 2, order);
        for (int i = 0; i < 8; i++) assert_int_equal(order_at(order, i), want[k][i]);
    }
    assert_true(intact(order));
    drop(d), drop(order);
}

/* Two ways to U: A U^T U = 1, and the classic chain, the upper Cholesky factor of the inverse. */
static void check_factor(int64_t k, bool ordered, double damp, int64_t dead) {
    bq_mat x = inputs(3 * k + 5, k, 7), h = make(k, k, 0, BQ_F32), u = make(k, k, 1, BQ_F32);
    bq_mat order = ordered ? make(k, 1, 0, BQ_I32) : (bq_mat){0};
    for (int64_t t = 0; t < x.rows && dead >= 0; t++) *ptr(x, t, dead) = 0;
    for (int64_t i = 0; i < k && ordered; i++)
        *(int32_t *)bq_mat_at(order, i, 0) = (int32_t)((i * 7 + 3) % k);
    dev.op->gram(&dev, x, h);
    assert_true(dev.op->factor(&dev, h, order, 2.0 / 3, damp, u));
    double *a = damped(h, order, 2.0 / 3, damp), *r = upper_root(a, k), *want = zeros(k * k);
    for (int64_t j = 0; j < k; j++) /* the inverse of R, transposed, column by column */
        for (int64_t i = j; i >= 0; i--) {
            double sum = i == j;
            for (int64_t n = i + 1; n <= j; n++) sum -= r[i * k + n] * want[j * k + n];
            want[j * k + i] = sum / r[i * k + i];
        }
    assert_true(nmse(u, want) < LIMIT && intact(u));
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < i; j++) assert_true(*ptr(u, j, i) == 0);
    double worst = 0, *du = doubles(u), *half = zeros(k * k);
    for (int64_t n = 0; n < k; n++)
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j <= p; j++) half[n * k + j] += a[n * k + p] * du[p * k + j];
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) { /* U A U^T = 1 */
            double sum = 0;
            for (int64_t n = i; n < k; n++) sum += du[n * k + i] * half[n * k + j];
            worst = fmax(worst, fabs(sum - (i == j)));
        }
    assert_true(worst < 1e-4);
    dev.op->factor(&dev, h, order, 2.0 / 3, damp, h);
    assert_true(same(h, u)); /* in place */
    drop(x), drop(h), drop(u), drop(order), free(a), free(r), free(want), free(du), free(half);
}

static void factor_equals_naive(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 31, 33, 64, 65, 127, 129, 191, 193, 257};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bool coprime = sizes[i] % 7;
        check_factor(sizes[i], false, 0.01, -1);
        check_factor(sizes[i], coprime, 0.1, sizes[i] > 2 ? sizes[i] / 2 : -1);
    }
}

/* Digits beyond those of a float count; without them the factor is that of floats. */
static void doubles_are_factored(void **state) {
    (void)state;
    for (int64_t k = 33; k < 200; k += 96) {
        bq_mat x = inputs(3 * k, k, 5), h = make(k, k, 1, BQ_F32), wide = make(k, k, 3, BQ_F64), u[3];
        bq_mat order = make(k, 1, 0, BQ_I32);
        for (int64_t i = 0; i < k; i++) *(int32_t *)bq_mat_at(order, i, 0) = (int32_t)((i * 7 + 3) % k);
        for (int n = 0; n < 3; n++) u[n] = make(k, k, n, BQ_F32);
        dev.op->gram(&dev, x, h), dev.op->zero(&dev, wide), dev.op->add(&dev, h, wide);
        assert_true(dev.op->factor(&dev, h, order, 1, 0.01, u[0]));
        assert_true(dev.op->factor(&dev, wide, order, 1, 0.01, u[1]));
        assert_true(same(u[0], u[1]));
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++) *(double *)bq_mat_at(wide, i, j) *= 1 + 1e-8 * (double)(i == j);
        assert_true(dev.op->factor(&dev, wide, order, 1, 0.01, u[2]));
        double *want = doubles(u[0]);
        assert_true(!same(u[0], u[2]) && nmse(u[2], want) < 1e-12);
        assert_true(intact(wide) && intact(u[1]) && intact(u[2]));
        drop(x), drop(h), drop(wide), drop(order), free(want);
        for (int n = 0; n < 3; n++) drop(u[n]);
    }
}

static void not_definite_is_said(void **state) {
    (void)state;
    for (int64_t k = 3; k < 200; k += 98) {
        bq_mat x = inputs(k / 3, k, 5), h = make(k, k, 0, BQ_F32), u = make_filled(k, k, 0, 9, 1),
               before = clone(u);
        dev.op->gram(&dev, x, h);
        assert_true(dev.op->factor(&dev, h, (bq_mat){0}, 1, 0.01, u)); /* deficient rank: damping is enough */
        dev.op->copy(&dev, before, u);
        *ptr(h, k - 1, k - 1) = -1e6f;
        assert_false(dev.op->factor(&dev, h, (bq_mat){0}, 1, 0.01, u));
        *ptr(h, k - 1, k - 1) = NAN;
        assert_false(dev.op->factor(&dev, h, (bq_mat){0}, 1, 0.01, u));
        *ptr(h, k - 1, k - 1) = INFINITY;
        assert_false(dev.op->factor(&dev, h, (bq_mat){0}, 1, 0.01, u));
        assert_true(same(u, before));
        drop(x), drop(h), drop(u), drop(before);
    }
}

static void threads_change_nothing(void **state) {
    (void)state;
    const int64_t k = ops_mirror ? 300 : 900;
    bq_mat x = inputs(1000, k, 3), h[2], u[2];
    for (int n = 0; n < 2; n++) {
        bq_dev d = cpu_with(n ? 3 : 1, bq_factor_scratch(k));
        h[n] = make(k, k, 0, BQ_F32), u[n] = make(k, k, 0, BQ_F32);
        d.op->gram(&d, x, h[n]);
        assert_true(d.op->factor(&d, h[n], (bq_mat){0}, 1, 0.01, u[n]));
        assert_true(d.mem.peak == d.mem.size);
        bq_dev_close(&d);
    }
    assert_true(same(h[0], h[1]) && same(u[0], u[1]));
    drop(x), drop(h[0]), drop(h[1]), drop(u[0]), drop(u[1]);
}

int main(void) {
    dev = cpu_with(2, (size_t)8 << 20);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gram_equals_naive),
        cmocka_unit_test(no_tokens_are_no_moments),
        cmocka_unit_test(orders),
        cmocka_unit_test(factor_equals_naive),
        cmocka_unit_test(doubles_are_factored),
        cmocka_unit_test(not_definite_is_said),
        cmocka_unit_test(threads_change_nothing),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
