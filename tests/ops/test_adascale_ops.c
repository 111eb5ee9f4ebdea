/* SPDX-License-Identifier: Apache-2.0 */
/* AdaScale's forward and step of the cpu backend: golden vectors, oracles in double, finite differences. */
#include "adascale_problem.h"
#include "same_bits.h"

#include "base/num.h"

/* The matrix of adascale.md's golden vectors; the parameters are zero. */
static problem golden(void) {
    problem q = start(2, 4, 1, grid_of(4, BQ_F32), 0);
    put(q.p.w, (float[]){0.7f, -0.35f, 0.1f, -0.05f, -0.8f, 0.4f, 0.25f, 0.0625f});
    put(q.g, (float[]){1, -0.5f, 0.25f, 2, 1, 1, -1, 0.5f});
    dev.op->range(&dev, q.p.w, q.s, q.scale, (bq_mat){0});
    for (int r = 0; r < 2; r++) {
        assert_true(*ptr(q.scale, r, 0) == 0.100000001f);
        *ptr(q.p.hi, r, 0) = 7 * *ptr(q.scale, r, 0), *ptr(q.p.lo, r, 0) = -8 * *ptr(q.scale, r, 0);
        assert_true(*ptr(q.p.hi, r, 0) == 0.699999988f && *ptr(q.p.lo, r, 0) == -0.800000012f);
    }
    return q;
}

static void golden_case_a(void **state) {
    (void)state;
    problem q = golden();
    static const float code[] = {7, -4, 1, 0, -8, 4, 2, 1};
    static const double grad[] = {
        -0.7, -0.175, -0.025, 0.1,      1.25 * 0.8 / 15,   1.25 * 0.7 / 15,   -0.8,
        0.8,  -0.4,   0.25,   -0.03125, 0.6875 * 0.8 / 15, 0.6875 * 0.7 / 15, 0.61875};
    forward(&q), gradient(&q);
    for (int i = 0; i < 8; i++) {
        assert_true(*ptr(q.scale, i / 4, 0) == 0.100000001f);
        assert_true(*ptr(q.w_hat, i / 4, i % 4) == code[i] * 0.100000001f);
        assert_true(*ptr(q.fold, i / 4, i % 4) == *ptr(q.p.w, i / 4, i % 4));
    }
    expect(q.grad, grad, 1e-6);
    finish(&q);
}

static void golden_case_b(void **state) {
    (void)state;
    problem q = golden();
    put(q.p.beta, (float[]){0.1f, -0.1f}), put(q.p.gamma, (float[]){-0.2f, 0.05f});
    put(q.p.s3, (float[]){0.05f, -0.1f});
    put(q.p.s2, (float[]){-0.2f, 0.1f, 0, 0.3f, 0.02f, -0.3f, 0.1f, -0.5f});
    forward(&q), gradient(&q);
    expect(q.scale, (double[]){0.0971498862, 0.0973173156}, 1e-6);
    expect(q.fold,
           (double[]){0.81328398, -0.301247776, 0.0951229483, -0.0352344029, -0.86662966, 0.596729875,
                      0.249999985, 0.113882422},
           1e-6);
    expect(q.w_hat,
           (double[]){0.680049181, -0.291449666, 0.0971498862, 0, -0.778538525, 0.583903909, 0.291951954,
                      0.0973173156},
           1e-6);
    expect(q.grad,
           (double[]){0, -0.150623888, -0.0237807371, 0.0704688057, 0.452686876, 0.293438852, -0.103935815, 0,
                      -0.596729875, 0.249999985, -0.0569412112, -0.417334586, -0.424264401, -0.403671086},
           1e-6);
    finish(&q);
}

/* Numbers for which multiplying by the reciprocal of the scale gives 7, 3, -8. */
static void golden_case_c(void **state) {
    (void)state;
    static const float scale[] = {0.0299999993f, 0.109999999f, 0.300000012f}, code[] = {6, 4, -7};
    problem q = start(3, 1, 0, grid_of(4, BQ_F32), 0);
    put(q.p.w, (float[]){0.194999993f, 0.38499999f, -2.25f}), put(q.g, (float[]){1, 1, 1});
    for (int r = 0; r < 3; r++) *ptr(q.p.hi, r, 0) = 7 * scale[r], *ptr(q.p.lo, r, 0) = -8 * scale[r];
    forward(&q), gradient(&q);
    for (int r = 0; r < 3; r++) {
        float ratio = *ptr(q.p.w, r, 0) / scale[r];
        assert_true(*ptr(q.scale, r, 0) == scale[r] && *ptr(q.w_hat, r, 0) == code[r] * scale[r]);
        expect_near(at(q.grad, r, 2), (double)((code[r] - ratio) * *ptr(q.p.hi, r, 0) / 15), 0.1, 1e-6);
    }
    finish(&q);
}

/* One element of s2 pushed by given gradients through the cosine schedule. */
static void golden_adam_with_cosine(void **state) {
    (void)state;
    static const double want[] = {-4.99995e-4, -7.49251732e-4, -9.27901686e-4}, push[] = {1e-3, -2e-4, 5e-9};
    problem q = start(1, 1, 0, grid_of(4, BQ_F32), 0);
    bq_adam adam = {.lr_clip = 0, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f};
    for (int t = 1; t <= 3; t++) {
        *ptr(q.p.s3, 0, 0) = 0, *ptr(q.g, 0, 0) = 1; /* s3 moves too, but is not looked at here */
        gradient(&q); /* ds2 is linear in g while s2 moves little: one division gives the g that is wanted */
        *ptr(q.g, 0, 0) = (float)(push[t - 1] / at(q.grad, 0, 0));
        adam.lr_weight = (float)(5e-4 * (1 + cos(M_PI * (t - 1) / 10)) / 2), adam.step = t;
        step(&q, adam);
        expect_near(at(q.p.s2, 0, 0), want[t - 1], want[t - 1], 1e-6);
    }
    finish(&q);
}

/* Forward and gradients of one row against doubles; the codes follow from the fold and scale that came out.
 */
static void check_row(problem *q, int64_t r) {
    double qmin = (double)bq_qmin(q->s), qmax = (double)bq_qmax(q->s), steps = qmax - qmin,
           scale = at(q->scale, r, 0);
    double high = exp(at(q->p.gamma, r, 0)) * at(q->p.hi, r, 0),
           low = exp(at(q->p.beta, r, 0)) * at(q->p.lo, r, 0);
    double dscale = 0, ds3 = 0, size = 0, size3 = 0;
    double place = q->s.scale == BQ_F32   ? 1e-6
                   : q->s.scale == BQ_F16 ? fmax(0x1p-11, 0x1p-25 / scale)
                                          : 0x1p-8;
    expect_near(scale, (high - low) / steps, scale, place * 1.001);
    for (int64_t c = 0; c < q->p.w.cols; c++) {
        double fold = at(q->fold, r, c), g = at(q->g, r, c);
        assert_true((float)fold ==
                    *ptr(q->p.w, r, c) / bq_exp(*ptr(q->p.s2, r, c)) / bq_exp(*ptr(q->p.s3, r, 0)));
        double k = rint((double)((float)fold / (float)scale)), code = fmin(fmax(k, qmin), qmax);
        bool inside = k == code;
        expect_near(fold, at(q->p.w, r, c) / exp(at(q->p.s2, r, c)) / exp(at(q->p.s3, r, 0)), fold, 1e-6);
        assert_true(*ptr(q->w_hat, r, c) == (float)code * (float)scale);
        expect_near(at(q->grad, r, c), inside ? -g * fold : 0, g * fold, 1e-7);
        dscale += inside ? g * (k - fold / scale) : g * code,
            size += fabs(g) * fmax(1, fabs(k)); /* r = fold / scale is a rounded float */
        ds3 += inside ? -g * fold : 0, size3 += fabs(g * fold);
    }
    int64_t cols = q->p.w.cols;
    expect_near(at(q->grad, r, cols), -dscale * low / steps, size * low / steps, 2e-7);
    expect_near(at(q->grad, r, cols + 1), dscale * high / steps, size * high / steps, 2e-7);
    expect_near(at(q->grad, r, cols + 2), ds3, size3, 1e-7);
}

static void oracle_on_odd_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int k = 0; k < 12; k++) {
                bq_scheme s = grid_of(bit_widths[k % 4], scale_types[k / 4]);
                problem q = start(few_rows[i], odd_sizes[j], (i + j) % 3, s, 0.2f);
                forward(&q), gradient(&q);
                for (int64_t r = 0; r < few_rows[i]; r++) check_row(&q, r);
                finish(&q);
            }
    for (int64_t rows = 0; rows < 3; rows += 2) { /* nothing to do, or rows of nothing */
        problem q = start(rows, rows ? 0 : 33, 1, grid_of(4, BQ_F32), 0.2f);
        forward(&q), gradient(&q);
        step(&q, (bq_adam){.step = 1});
        finish(&q);
    }
}

/* The codes in a type of 16 bits, times the scales of the rows, are w_hat; scales and fold are the same. */
static void codes_are_w_hat(const problem *q, bq_type type) {
    int64_t rows = q->p.w.rows, cols = q->p.w.cols;
    bq_mat code = make(rows, cols, 3, type), scale = make(rows, 1, 1, BQ_F32),
           fold = make(rows, cols, 2, BQ_F32);
    dev.op->adascale_weights(&dev, &q->p, q->s, code, scale, fold);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            uint16_t x = *(uint16_t *)bq_mat_at(code, r, c);
            float number = type == BQ_F16 ? bq_from_f16(x) : bq_from_bf16(x);
            assert_true(number * *ptr(scale, r, 0) == *ptr(q->w_hat, r, c));
        }
    assert_true(same(scale, q->scale) && same(fold, q->fold) && intact(code));
    drop(code), drop(scale), drop(fold);
}

/* Untouched parameters: the forward is quantize and dequantize with (hi - lo) / (qmax - qmin).  And always:
 * quantizing the fold with the scale gives w_hat, so what training saw is what an export holds. */
static void forward_is_quantize_dequantize(void **state) {
    (void)state;
    for (int k = 0; k < 24; k++) {
        bq_scheme s = grid_of(bit_widths[k % 4], scale_types[k / 4 % 3]);
        problem q = start(17, 129, 2, s, k < 12 ? 0 : 0.3f);
        bq_mat code = make(17, 129, 1, BQ_I8), back = make(17, 129, 0, BQ_F32), alone = clone(q.w_hat);
        forward(&q);
        for (int64_t r = 0; k < 12 && r < 17; r++) {
            float plain = (*ptr(q.p.hi, r, 0) - *ptr(q.p.lo, r, 0)) / (bq_qmax(s) - bq_qmin(s));
            if (s.scale == BQ_BF16) plain = bq_from_bf16(bq_to_bf16(plain));
            if (s.scale == BQ_F16) plain = (float)(_Float16)plain;
            assert_true(*ptr(q.scale, r, 0) == plain);
        }
        if (k < 12) assert_true(same(q.fold, q.p.w));
        dev.op->quantize(&dev, q.fold, q.scale, (bq_mat){0}, s, code);
        dev.op->dequantize(&dev, code, q.scale, (bq_mat){0}, s, back);
        assert_true(same(back, q.w_hat));
        dev.op->adascale_weights(&dev, &q.p, s, alone, q.scale, none); /* without a fold */
        assert_true(same(alone, q.w_hat));
        codes_are_w_hat(&q, BQ_F16), codes_are_w_hat(&q, BQ_BF16);
        drop(code), drop(back), drop(alone), finish(&q);
    }
}

/* dL of the straight-through forward with codes and mask frozen, as one parameter of row r moves by h. */
static double frozen_loss(const problem *q, int64_t r, int which, int64_t col, double h) {
    double steps = (double)(bq_qmax(q->s) - bq_qmin(q->s)), s0 = at(q->scale, r, 0), loss = 0;
    double beta = at(q->p.beta, r, 0) + (which == 0 ? h : 0),
           gamma = at(q->p.gamma, r, 0) + (which == 1 ? h : 0);
    double s3 = at(q->p.s3, r, 0) + (which == 2 ? h : 0);
    double s = (exp(gamma) * at(q->p.hi, r, 0) - exp(beta) * at(q->p.lo, r, 0)) / steps;
    for (int64_t c = 0; c < q->p.w.cols; c++) {
        double r0 = at(q->fold, r, c) / s0, k = rint(r0), move = which == 3 && c == col ? h : 0;
        double code = fmin(fmax(k, (double)bq_qmin(q->s)), (double)bq_qmax(q->s));
        double fold = at(q->p.w, r, c) / exp(at(q->p.s2, r, c) + move) / exp(s3);
        loss += at(q->g, r, c) * (k == code ? fold + s * (k - r0) : s * code);
    }
    return loss;
}

static void finite_differences(void **state) {
    (void)state;
    problem q = start(3, 33, 0, grid_of(3, BQ_F32), 0.2f);
    double h = 1e-4;
    forward(&q), gradient(&q);
    for (int64_t r = 0; r < 3; r++) {
        for (int which = 0; which < 3; which++) {
            double slope = (frozen_loss(&q, r, which, 0, h) - frozen_loss(&q, r, which, 0, -h)) / (2 * h);
            expect_near(at(q.grad, r, 33 + which), slope, 0.01, 1e-5);
        }
        for (int64_t c = 0; c < 33; c++) {
            double slope = (frozen_loss(&q, r, 3, c, h) - frozen_loss(&q, r, 3, c, -h)) / (2 * h);
            expect_near(at(q.grad, r, c), slope, 0.001, 1e-5);
        }
    }
    finish(&q);
}

typedef struct {
    double p, m, v;
} moment;

static moment moved(moment x, double g, double lr, int t) {
    double b1 = 0.9, b2 = 0.999;
    x.m = b1 * x.m + (1 - b1) * g, x.v = b2 * x.v + (1 - b2) * g * g;
    x.p -= lr * (x.m / (1 - pow(b1, t))) / (sqrt(x.v / (1 - pow(b2, t))) + 1e-8);
    return x;
}

/* Compare one element and its moments with Adam in double, one step from the same floats. */
static void check_moved(bq_mat p, bq_mat m, bq_mat v, const bq_mat before[3], int64_t r, int64_t c,
                        int64_t mc, double g, double lr, int t) {
    moment x = {at(before[0], r, c), at(before[1], r, mc), at(before[2], r, mc)};
    moment want = moved(x, g, lr, t);
    expect_near(at(p, r, c), want.p, fabs(want.p) + lr, 1e-6);
    expect_near(at(m, r, mc), want.m, fabs(x.m) + fabs(g), 1e-6);
    expect_near(at(v, r, mc), want.v, fabs(want.v), 1e-6);
}

/* Four steps: looking at gradients moves nothing; stepping moves all by Adam from gradients of the old
 * values. */
static void step_is_adam(void **state) {
    (void)state;
    enum { ROWS = 3, COLS = 273 };
    problem q = start(ROWS, COLS, 1, grid_of(4, BQ_F32), 0.1f);
    bq_adam adam = {.lr_clip = 1e-2f, .lr_weight = 3e-3f, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f};
    double clip = (double)adam.lr_clip, weight = (double)adam.lr_weight;
    for (int t = 1; t <= 4; t++) {
        bq_mat s2[3] = {clone(q.p.s2), clone(q.p.m_s2), clone(q.p.v_s2)};
        bq_mat beta[3] = {clone(q.p.beta), clone(q.p.m_row), clone(q.p.v_row)};
        bq_mat gamma[3] = {clone(q.p.gamma), beta[1], beta[2]}, s3[3] = {clone(q.p.s3), beta[1], beta[2]};
        fill(q.g, (uint32_t)(10 + t), 0.01f);
        gradient(&q);
        assert_true(same(s2[0], q.p.s2) && same(s2[1], q.p.m_s2) && same(beta[1], q.p.m_row) &&
                    same(s3[0], q.p.s3));
        adam.step = t;
        step(&q, adam);
        for (int64_t r = 0; r < ROWS; r++) {
            double db = at(q.grad, r, COLS), dg = at(q.grad, r, COLS + 1), d3 = at(q.grad, r, COLS + 2);
            for (int64_t c = 0; c < COLS; c++)
                check_moved(q.p.s2, q.p.m_s2, q.p.v_s2, s2, r, c, c, at(q.grad, r, c), weight, t);
            check_moved(q.p.beta, q.p.m_row, q.p.v_row, beta, r, 0, 0, db, clip, t);
            check_moved(q.p.gamma, q.p.m_row, q.p.v_row, gamma, r, 0, 1, dg, clip, t);
            check_moved(q.p.s3, q.p.m_row, q.p.v_row, s3, r, 0, 2, d3, weight, t);
        }
        for (int i = 0; i < 3; i++) drop(s2[i]), drop(beta[i]);
        drop(gamma[0]), drop(s3[0]);
    }
    finish(&q);
}

/* The mask looks at the rounded value: at 4 bits [-8.5, 7.5) is inside. */
static void mask_borders(void **state) {
    (void)state;
    enum { N = 8 };
    static const float w[N] = {-8.5f, -8.4f, -8.6f, 7.5f, 7.49f, 7.6f, -8.500001f, 0.5f};
    static const bool inside[N] = {true, true, false, false, true, false, false, true};
    problem q = start(1, N, 0, grid_of(4, BQ_F32), 0);
    put(q.p.w, w), put(q.g, (float[N]){1, 1, 1, 1, 1, 1, 1, 1});
    *ptr(q.p.hi, 0, 0) = 7, *ptr(q.p.lo, 0, 0) = -8;
    forward(&q), gradient(&q);
    double dscale = 0;
    for (int i = 0; i < N; i++) {
        double code = fmin(fmax(rint((double)w[i]), -8), 7);
        assert_true(*ptr(q.w_hat, 0, i) == (float)code);
        assert_true(*ptr(q.grad, 0, i) == (inside[i] ? -w[i] : 0));
        dscale += inside[i] ? code - (double)w[i] : code;
    }
    expect_near(at(q.grad, 0, N + 1), dscale * 7 / 15, 1, 1e-6);
    finish(&q);
}

/* Rows of zeros, of one sign, and with no numbers in them. */
static void special_rows(void **state) {
    (void)state;
    enum { N = 37 };
    problem q = start(5, N, 0, grid_of(4, BQ_F32), 0);
    for (int c = 0; c < N; c++) {
        *ptr(q.p.w, 0, c) = 0;
        *ptr(q.p.w, 1, c) = fabsf(*ptr(q.p.w, 1, c)) + 0.01f, *ptr(q.p.w, 2, c) = -*ptr(q.p.w, 1, c);
    }
    dev.op->range(&dev, q.p.w, q.s, q.scale, (bq_mat){0});
    for (int r = 0; r < 3; r++) {
        *ptr(q.p.hi, r, 0) = 7 * *ptr(q.scale, r, 0), *ptr(q.p.lo, r, 0) = -8 * *ptr(q.scale, r, 0);
    }
    *ptr(q.p.w, 3, 5) = NAN, *ptr(q.p.w, 4, 36) = INFINITY, *ptr(q.p.s2, 4, 7) = -1000,
                   *ptr(q.p.s2, 4, 8) = 1000;
    forward(&q), gradient(&q);
    for (int r = 0; r < 3; r++) check_row(&q, r);
    for (int c = 0; c < N + 3; c++) assert_true(*ptr(q.grad, 0, c) == 0);
    assert_true(isnan(*ptr(q.w_hat, 3, 5)) && !isnan(*ptr(q.w_hat, 3, 6))); /* a diverged weight shows */
    assert_true(*ptr(q.w_hat, 4, 36) == 7 * *ptr(q.scale, 4, 0) && *ptr(q.w_hat, 4, 8) == 0);
    bq_adam adam = {
        .lr_clip = 1e-3f, .lr_weight = 5e-4f, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f, .step = 1};
    step(&q, adam);
    for (int c = 0; c < N; c++) assert_true(*ptr(q.p.s2, 0, c) == 0);
    finish(&q);
}

/* A matrix with groups is one of rows * groups short rows; each gets what it gets alone. */
static void groups_are_short_rows(void **state) {
    (void)state;
    enum { GROUP = 16, ROWS = 3 * 64 / GROUP };
    problem q = start(ROWS, GROUP, 0, grid_of(4, BQ_BF16), 0.1f);
    bq_mat own = make(1, GROUP, 0, BQ_F32), scale = make(1, 1, 0, BQ_F32),
           grad = make(1, GROUP + 3, 0, BQ_F32);
    bq_mat layer = q.p.w;
    layer.rows = 3, layer.cols = layer.ld = 64;
    q.p.w = bq_mat_reshape(layer, GROUP);
    forward(&q), gradient(&q);
    for (int64_t r = 0; r < ROWS; r++) {
        bq_adascale one = {.w = bq_mat_cols(bq_mat_rows(layer, r / 4, 1), r % 4 * GROUP, GROUP)};
        one.hi = bq_mat_rows(q.p.hi, r, 1), one.lo = bq_mat_rows(q.p.lo, r, 1);
        one.beta = bq_mat_rows(q.p.beta, r, 1), one.gamma = bq_mat_rows(q.p.gamma, r, 1);
        one.s3 = bq_mat_rows(q.p.s3, r, 1), one.s2 = bq_mat_rows(q.p.s2, r, 1);
        dev.op->adascale_weights(&dev, &one, q.s, own, scale, none);
        dev.op->adascale_step(&dev, &one, q.s, bq_mat_rows(q.g, r, 1), none, grad);
        assert_true(same(own, bq_mat_rows(q.w_hat, r, 1)) && same(scale, bq_mat_rows(q.scale, r, 1)));
        assert_true(same(grad, bq_mat_rows(q.grad, r, 1)));
    }
    drop(own), drop(scale), drop(grad), finish(&q);
}

/* All that the ops write, on a matrix large enough for threads to share. */
static uint64_t all_bits(void) {
    uint64_t bits = 1;
    for (int k = 0; k < 4; k++) {
        problem q = start(131, 257, k, grid_of(bit_widths[k], scale_types[k % 3]), 0.2f);
        bq_adam adam = {
            .lr_clip = 1e-3f, .lr_weight = 5e-4f, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f, .step = 2};
        gradient(&q);
        for (int t = 0; t < 2; t++) step(&q, adam);
        forward(&q);
        bq_mat out[] = {q.w_hat,   q.scale, q.fold, q.grad,    q.p.beta,
                        q.p.gamma, q.p.s3,  q.p.s2, q.p.m_row, q.p.v_s2};
        for (size_t i = 0; i < sizeof out / sizeof *out; i++) bits = bits_of(bits, out[i]);
        finish(&q);
    }
    return bits;
}

int main(void) {
    dev = cpu_with(2, 0);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_case_a),         cmocka_unit_test(golden_case_b),
        cmocka_unit_test(golden_case_c),         cmocka_unit_test(golden_adam_with_cosine),
        cmocka_unit_test(oracle_on_odd_shapes),  cmocka_unit_test(forward_is_quantize_dequantize),
        cmocka_unit_test(finite_differences),    cmocka_unit_test(step_is_adam),
        cmocka_unit_test(mask_borders),          cmocka_unit_test(special_rows),
        cmocka_unit_test(groups_are_short_rows), SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
