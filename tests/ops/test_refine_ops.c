/* SPDX-License-Identifier: Apache-2.0 */
/* refine: an oracle in double, and losses that never rise. */
#include "gptq_problem.h"
#include "same_bits.h"

static bq_scheme grid(int element, int64_t group, bool symmetric, bq_type scale) {
    return (bq_scheme){element, group, symmetric, scale, BQ_GRID_AIMET, 1, 0};
}

/* H of the contract. */
static double *damped_gram(const layer *l, double damp) {
    double *h = doubles(l->h), mean = 0;
    for (int64_t c = 0; c < l->k; c++) mean += h[c * l->k + c] / (double)l->k;
    for (int64_t c = 0; c < l->k; c++) h[c * l->k + c] += damp * mean;
    return h;
}

static double loss_of(const layer *l, const double *h, int64_t n, const double *q) {
    double sum = 0;
    for (int64_t i = 0; i < l->k; i++)
        for (int64_t j = 0; j < l->k; j++)
            sum += (q[i] - at(l->w, n, i)) * h[i * l->k + j] * (q[j] - at(l->w, n, j));
    return sum;
}

static void values(bq_mat m, int64_t n, double *to) {
    for (int64_t c = 0; c < m.cols; c++) to[c] = at(m, n, c);
}

/* Half the gradient of the loss by value c. */
static double slope_of(const layer *l, const double *h, int64_t n, const double *q, int64_t c) {
    double sum = 0;
    for (int64_t j = 0; j < l->k; j++) sum += (q[j] - at(l->w, n, j)) * h[c * l->k + j];
    return sum;
}

/* Refits group g of a row: the least loss over its scale, from the definition. */
static void refit_naive(const layer *l, const double *h, int64_t n, int64_t g, double *q, double *scale) {
    double slope = 0, curve = 0;
    for (int64_t i = g * l->group; i < (g + 1) * l->group; i++) {
        slope += q[i] / *scale * slope_of(l, h, n, q, i);
        for (int64_t j = g * l->group; j < (g + 1) * l->group; j++)
            curve += q[i] / *scale * h[i * l->k + j] * q[j] / *scale;
    }
    double best = *scale - slope / curve;
    if (!(curve > 0 && best > 0)) return;
    double to = (double)bq_scale_stored((float)best, l->s), by = to - *scale;
    if (by * (2 * slope + by * curve) >= 0) return;
    for (int64_t i = g * l->group; i < (g + 1) * l->group; i++) q[i] *= to / *scale;
    *scale = to;
}

static void sweep_naive(const layer *l, const double *h, int64_t n, double *q, const double *scale) {
    for (int64_t i = 0; i < l->k; i++) {
        int64_t c = order_at(l->order, i), g = c / l->group;
        double z = l->zero.data ? at(l->zero, n * l->groups + g, 0) : 0;
        double x = rint((q[c] - slope_of(l, h, n, q, c) / h[c * l->k + c]) / scale[g]);
        q[c] = fmin(fmax(x, (double)bq_qmin(l->s) - z), (double)bq_qmax(l->s) - z) * scale[g];
    }
}

static bq_refine problem_of(const layer *l, int sweeps, bool refit) {
    return (bq_refine){.fold = l->fold,
                       .target = l->w,
                       .h = l->h,
                       .order = l->order,
                       .diag = l->diag,
                       .scale = l->scale,
                       .zero = l->zero,
                       .damp = 0.01,
                       .sweeps = sweeps,
                       .refit = refit};
}

/* Rows differ from the oracle's only where a rounding was near a tie; no loss rises. */
static void check(int64_t rows, int64_t k, bq_scheme s, bq_order kind, bool refit) {
    layer l = open_layer(rows, k, k + 9, s, kind);
    assert_true(run_layer(&l, 2.0, 0.01, false, BQ_CLIP_MINMAX));
    double *h = damped_gram(&l, 0.01), *q = zeros(k), *got = zeros(k), sum[3] = {0};
    bq_mat start = clone(l.what), scale = clone(l.scale);
    bq_refine p = problem_of(&l, 2, refit);
    int64_t unlike = 0;
    dev.op->refine(&dev, &p, l.s);
    encode(&l, l.fold);
    for (int64_t n = 0; n < rows; n++) {
        double *fitted = zeros(l.groups), away = 0;
        values(start, n, q);
        for (int64_t g = 0; g < l.groups; g++) fitted[g] = at(scale, n * l.groups + g, 0);
        double before = loss_of(&l, h, n, q);
        for (int i = 0; i < 2; i++) {
            sweep_naive(&l, h, n, q, fitted);
            for (int64_t g = 0; g < l.groups && refit; g++) refit_naive(&l, h, n, g, q, fitted + g);
        }
        values(l.what, n, got);
        for (int64_t c = 0; c < k; c++)
            away = fmax(away, fabs(got[c] - q[c]) / at(scale, n * l.groups + c / l.group, 0));
        double after = loss_of(&l, h, n, got);
        assert_true(after <= before * (1 + 1e-5));
        unlike += away > 1e-3;
        sum[0] += before, sum[1] += fmin(loss_of(&l, h, n, q), before), sum[2] += after;
        free(fitted);
    }
    assert_true(unlike <= rows / 10 && fabs(sum[2] - sum[1]) <= 0.01 * sum[1] + 1e-12);
    assert_true(sum[2] <= sum[0] * (1 + 1e-5) && (k < 30 || sum[2] < sum[0] * 0.999));
    assert_true(refit || same(scale, l.scale));
    free(h), free(q), free(got), drop(start), drop(scale), close_layer(&l);
}

static void equals_the_oracle(void **state) {
    (void)state;
    for (int refit = 0; refit < 2; refit++) {
        check(1, 1, grid(4, -1, true, BQ_F32), BQ_ORDER_NONE, refit);
        check(31, 33, grid(3, -1, false, BQ_F32), BQ_ORDER_ACT, refit);
        check(5, 129, grid(2, -1, true, BQ_BF16), BQ_ORDER_ACT, refit);
        check(17, 96, grid(3, 32, true, BQ_F32), BQ_ORDER_GAR, refit);
        check(19, 96, grid(4, 8, false, BQ_F16), BQ_ORDER_ACT, refit);
        if (few_cases()) continue;
        check(130, 127, grid(4, -1, true, BQ_F32), BQ_ORDER_ACT, refit);
        check(9, 280, grid(3, 140, true, BQ_F32), BQ_ORDER_NONE, refit);
        check(3, 257, grid(8, -1, true, BQ_F32), BQ_ORDER_ACT, refit);
    }
}

/* Floats, scales of one byte, tiles, and zero points that are floats; their scales stay but for floats in
 * f32. */
static void other_grids_gain(void **state) {
    (void)state;
    const bq_scheme some[] = {
        {BQ_E2M1, 40, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0},
        {BQ_E4M3, -1, true, BQ_BF16, BQ_GRID_ABSMAX, 1, 0},
        {BQ_E2M1, 40, true, BQ_F8_E8M0, BQ_GRID_ABSMAX, 1, 0},
        {3, 40, true, BQ_F32, BQ_GRID_AIMET, 40, 0},
        {4, 40, false, BQ_F32, BQ_GRID_TORCHAO, 1, 0, BQ_ZERO_FLOAT, 1e-6},
        {4, 40, true, BQ_F32, BQ_GRID_TORCHAO, 1, 0, BQ_ZERO_CODE, 1e-6},
    };
    for (int i = 0; i < 6; i++) {
        layer l = open_layer(50, 120, 200, some[i], BQ_ORDER_ACT);
        assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
        double *h = damped_gram(&l, 0.01), *q = zeros(l.k), sum[2] = {0}, *before = zeros(l.rows);
        bq_mat scale = clone(l.scale);
        bq_refine p = problem_of(&l, 1, true);
        for (int64_t n = 0; n < l.rows; n++)
            values(l.what, n, q), before[n] = loss_of(&l, h, n, q), sum[0] += before[n];
        dev.op->refine(&dev, &p, l.s);
        encode(&l, l.fold);
        for (int64_t n = 0; n < l.rows; n++) {
            values(l.what, n, q);
            double after = loss_of(&l, h, n, q);
            assert_true(after <= before[n] * (1 + 1e-5));
            sum[1] += after;
        }
        assert_true(sum[1] < 0.995 * sum[0]);
        assert_true(same(scale, l.scale) == (i == 2 || i == 3 || i == 4));
        free(h), free(q), free(before), drop(scale), close_layer(&l);
    }
}

/* Two inputs that are nearly the same: of 0.4 + 0.4 one weight becomes 1, which no rounding finds. */
static void by_hand(void **state) {
    (void)state;
    for (int refit = 0; refit < 2; refit++) {
        float target[2] = {0.4f, 0.4f}, fold[2] = {0.4f, 0.4f}, h[4] = {1, 0.9f, 0.9f, 1}, scale = 1;
        int32_t order[2] = {0, 1};
        float diag[2] = {1, 1};
        bq_refine p = {.fold = bq_mat_host(fold, 1, 2, BQ_F32),
                       .target = bq_mat_host(target, 1, 2, BQ_F32),
                       .h = bq_mat_host(h, 2, 2, BQ_F32),
                       .order = bq_mat_host(order, 2, 1, BQ_I32),
                       .diag = bq_mat_host(diag, 2, 1, BQ_F32),
                       .scale = bq_mat_host(&scale, 1, 1, BQ_F32),
                       .sweeps = 1,
                       .refit = refit};
        dev.op->refine(&dev, &p, grid(4, -1, true, BQ_F32));
        assert_true(fold[1] == 0 && fold[0] == scale);
        assert_true(refit ? fabsf(scale - 0.76f) < 1e-6f : scale == 1);
    }
}

/* A row with NaN, and one whose weights are on the grid, stay; a dead column stays in all rows. */
static void some_weights_stay(void **state) {
    (void)state;
    layer l = open_layer(4, 60, 100, grid(4, -1, true, BQ_F32), BQ_ORDER_ACT);
    for (int64_t t = 0; t < l.x.rows; t++) *ptr(l.x, t, 7) = 0;
    dev.op->gram(&dev, l.x, l.h);
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    *ptr(l.w, 1, 3) = NAN;
    for (int64_t c = 0; c < 60; c++) *ptr(l.w, 2, c) = *ptr(l.fold, 2, c) = *ptr(l.what, 2, c);
    bq_mat fold = clone(l.fold), scale = clone(l.scale);
    bq_refine p = problem_of(&l, 2, true);
    dev.op->refine(&dev, &p, l.s);
    for (int64_t n = 0; n < 4; n++) {
        bool stays = same(bq_mat_rows(fold, n, 1), bq_mat_rows(l.fold, n, 1));
        assert_true(stays == (n == 1 || n == 2) && f32(l.fold, n, 7) == f32(fold, n, 7));
        assert_true(!stays || *ptr(scale, n, 0) == *ptr(l.scale, n, 0));
    }
    bq_refine none = problem_of(&l, 1, true);
    none.fold.rows = none.target.rows = none.scale.rows = 0;
    dev.op->refine(&dev, &none, l.s);
    drop(fold), drop(scale), close_layer(&l);
}

/* Given the Gram matrix, which comes out of a BLAS. */
static uint64_t all_bits(void) {
    uint64_t sum = 1;
    int64_t k = few_cases() ? 66 : 300, rows = few_cases() ? 5 : 270;
    bq_mat near = make_filled(1, k, 0, 8, 0.1f);
    for (int n = 0; n < 4; n++) {
        const bq_scheme s[] = {grid(4, -1, true, BQ_F32),
                               grid(3, k / 6, false, BQ_F16),
                               {BQ_E2M1, k / 3, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0},
                               {4, k / 6, true, BQ_F32, BQ_GRID_TORCHAO, 1, 0, BQ_ZERO_CODE, 1e-6}};
        layer l = open_layer(rows, k, 5, s[n], n % 2 ? BQ_ORDER_GAR : BQ_ORDER_ACT);
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++)
                *ptr(l.h, i, j) = i == j ? 1 + (float)(i % 5) * 0.1f : 0.3f * *ptr(near, 0, llabs(i - j));
        for (int64_t i = 0; i < k; i++) *ptr(l.diag, i, 0) = *ptr(l.h, i, i);
        dev.op->order(&dev, l.diag, l.kind, l.group, l.order);
        dev.op->range(&dev, grouped(&l, l.w), l.s, l.scale, l.zero);
        dev.op->copy(&dev, l.w, l.fold);
        bq_refine p = problem_of(&l, 2, true);
        dev.op->refine(&dev, &p, l.s);
        sum = bits_of(bits_of(sum, l.fold), l.scale);
        if (n < 2) assert_false(same(l.fold, l.w));
        close_layer(&l);
    }
    drop(near);
    return sum;
}

int main(void) {
    dev = cpu_with(2, (size_t)16 << 20);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_oracle),
        cmocka_unit_test(other_grids_gain),
        cmocka_unit_test(by_hand),
        cmocka_unit_test(some_weights_stay),
        SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
