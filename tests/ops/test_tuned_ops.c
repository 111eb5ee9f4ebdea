/* SPDX-License-Identifier: Apache-2.0 */
/* tuned_weights, tuned_step and ends of the cpu backend: oracles in double, finite differences. */
#include "same_bits.h"

#include "kernels/adam.h"

#include <math.h>

static bq_dev dev;
static const bq_mat none;

typedef struct {
    bq_tuned p;
    bq_scheme s;
    bq_mat g, w_hat, scale, zero, fold, grad;
} problem;

#define SCHEME(of_element, of_symmetric, of_scale, of_grid)                                                  \
    {                                                                                                        \
        .element = of_element, .group = -1, .symmetric = of_symmetric, .scale = of_scale, .grid = of_grid,   \
        .rows = 1                                                                                            \
    }
static const bq_scheme schemes[] = {
    SCHEME(4, true, BQ_F32, BQ_GRID_AIMET),        SCHEME(4, true, BQ_F32, BQ_GRID_ABSMAX),
    SCHEME(3, false, BQ_F32, BQ_GRID_AIMET),       SCHEME(8, true, BQ_BF16, BQ_GRID_ABSMAX),
    SCHEME(4, false, BQ_F16, BQ_GRID_AIMET),       SCHEME(2, false, BQ_F32, BQ_GRID_AIMET),
    SCHEME(BQ_E4M3, true, BQ_F32, BQ_GRID_ABSMAX), SCHEME(BQ_E2M1, true, BQ_F8_E8M0, BQ_GRID_ABSMAX)};
enum { SCHEMES = sizeof schemes / sizeof *schemes, INTEGERS = 6, FORMS = 4, OPTIMIZERS = 3 };

static bq_mat *list(problem *q, int i) {
    bq_mat *const all[] = {&q->p.w,     &q->p.lo,    &q->p.hi, &q->p.low, &q->p.high, &q->p.m_row,
                           &q->p.v_row, &q->p.value, &q->p.m,  &q->p.v,   &q->g,      &q->w_hat,
                           &q->scale,   &q->zero,    &q->fold, &q->grad};
    return i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}

static void finish(problem *q) {
    for (int i = 0; list(q, i); i++) {
        assert_true(!list(q, i)->data || intact(*list(q, i)));
        drop(*list(q, i));
    }
}

static bool can(bq_tune form, bq_scheme s) { return bq_element_whole(s.element) || !bq_tune_ends(form); }

static problem start(int64_t rows, int64_t cols, int64_t pad, bq_scheme s, bq_tune form,
                     bq_train_optimizer by) {
    problem q = {.p = {.form = form, .optimizer = by}, .s = s};
    q.p.w = make_filled(rows, cols, pad, 1, 0.05f), q.g = make_filled(rows, cols, pad + 1, 2, 0.01f);
    q.w_hat = make(rows, cols, pad + 1, BQ_F32), q.fold = make(rows, cols, pad, BQ_F32);
    q.scale = make(rows, 1, pad, BQ_F32), q.grad = make(rows, cols + 2, pad, BQ_F32);
    if (!s.symmetric) q.zero = make(rows, 1, pad, BQ_F32);
    q.p.lo = make(rows, 1, 1, BQ_F32), q.p.hi = make(rows, 1, 0, BQ_F32);
    dev.op->range_ends(&dev, q.p.w, s, none, none, q.p.lo, q.p.hi);
    q.p.low = make_filled(rows, 1, 2, 3, 0.2f), q.p.high = make_filled(rows, 1, 1, 4, 0.2f);
    for (int64_t r = 0; r < rows; r++) {
        if (form == BQ_TUNE_ROUNDING)
            *ptr(q.p.low, r, 0) = 0.7f + 0.01f * (float)(r % 9), *ptr(q.p.high, r, 0) = 0.8f;
        if (form == BQ_TUNE_SCALES)
            *ptr(q.p.low, r, 0) = (float)(r % 3) - 0.8f, *ptr(q.p.high, r, 0) = 0.01f + 1e-3f * (float)r;
        if (form == BQ_TUNE_SCALES && !bq_element_whole(s.element)) *ptr(q.p.high, r, 0) = 0.05f / bq_qmax(s);
    }
    q.p.m_row = make_filled(rows, 2, pad, 5, 0), q.p.v_row = make_filled(rows, 2, 1, 6, 0);
    if (form != BQ_TUNE_CLIPPING)
        q.p.value = make_filled(rows, cols, pad + 2, 7, form == BQ_TUNE_ROUNDING ? 0.3f : 0.05f);
    q.p.m = make_filled(rows, cols, pad, 8, 0), q.p.v = make_filled(rows, cols, pad + 3, 9, 0);
    return q;
}

static void forward(problem *q) {
    dev.op->tuned_weights(&dev, &q->p, q->s, q->w_hat, q->scale, q->zero, q->fold);
}
static void gradient(problem *q) {
    dev.op->tuned_step(&dev, &q->p, q->s, q->scale, q->zero, q->g, none, q->grad);
}
static void step(problem *q, bq_adam adam) {
    bq_mat numbers = make(1, BQ_ADAM_NUMBERS, 0, BQ_F32);
    bq_adam_put(&dev, adam, numbers);
    dev.op->tuned_step(&dev, &q->p, q->s, q->scale, q->zero, q->g, numbers, none);
    drop(numbers);
}

static void near_to(double got, double want, double size, double limit) {
    if (!(fabs(got - want) <= limit * fabs(size) + 1e-30)) {
        print_error("got %.10g, expected %.10g\n", got, want);
        fail();
    }
}

static double factor(bq_tune form, double x) { return form == BQ_TUNE_CLIPPING ? 1 / (1 + exp(-x)) : x; }

/* The scale of row r in double, not rounded to its type, with low and high moved. */
static double scale_of(const problem *q, int64_t r, const double move[2]) {
    double low = at(q->p.low, r, 0) + move[0], high = at(q->p.high, r, 0) + move[1];
    if (q->p.form == BQ_TUNE_SCALES) return high;
    double qmin = (double)bq_qmin(q->s), qmax = (double)bq_qmax(q->s);
    double lo = factor(q->p.form, low) * at(q->p.lo, r, 0), hi = factor(q->p.form, high) * at(q->p.hi, r, 0);
    if (q->p.form == BQ_TUNE_WEIGHTS) {
        lo = hi = 0;
        for (int64_t c = 0; c < q->p.w.cols; c++)
            lo = fmin(lo, at(q->p.value, r, c)), hi = fmax(hi, at(q->p.value, r, c));
    }
    if (!q->s.symmetric) return (hi - lo) / (qmax - qmin);
    if (q->s.grid == BQ_GRID_AIMET) return fmax(hi / qmax, lo / qmin);
    return fmax(hi, -lo) / ((qmax - qmin) / 2);
}

/* dL of the straight-through forward of row r, with what is rounded frozen, as low and high move. */
static double frozen_loss(const problem *q, int64_t r, const double move[2]) {
    static const double stay[2];
    double s0 = scale_of(q, r, stay), s = scale_of(q, r, move), z0 = q->zero.data ? at(q->zero, r, 0) : 0,
           z = z0, loss = 0;
    bq_tune form = q->p.form;
    if (!q->s.symmetric && form == BQ_TUNE_ROUNDING)
        z += at(q->p.low, r, 0) * at(q->p.lo, r, 0) / s0 -
             (at(q->p.low, r, 0) + move[0]) * at(q->p.lo, r, 0) / s;
    if (!q->s.symmetric && form == BQ_TUNE_SCALES) z += move[0];
    for (int64_t c = 0; c < q->p.w.cols; c++) {
        double w = at(form == BQ_TUNE_SCALES ? q->p.value : q->p.w, r, c);
        double k = rint((double)(*ptr(q->fold, r, c) / *ptr(q->scale, r, 0))) + z0;
        double code = fmin(fmax(k, (double)bq_qmin(q->s)), (double)bq_qmax(q->s));
        loss += at(q->g, r, c) * s * (k == code ? k - z0 + w / s - w / s0 : code - z);
    }
    return loss;
}

/* Codes, fold and gradients of one row. */
static void check_row(problem *q, int64_t r) {
    static const double stay[2];
    bool own = !bq_tune_ends(q->p.form), whole = bq_element_whole(q->s.element);
    float s = *ptr(q->scale, r, 0), z = q->zero.data ? *ptr(q->zero, r, 0) : 0;
    double place = q->s.scale == BQ_F32    ? 2e-6
                   : q->s.scale == BQ_F16  ? fmax(0x1p-11, 0x1p-25 / (double)s)
                   : q->s.scale == BQ_BF16 ? 0x1p-8
                                           : 1;
    near_to((double)s, scale_of(q, r, stay), (double)s, place * 1.001);
    for (int64_t c = 0; c < q->p.w.cols; c++) {
        float x = own ? *ptr(q->p.value, r, c) : *ptr(q->p.w, r, c), g = *ptr(q->g, r, c);
        if (q->p.form == BQ_TUNE_ROUNDING) x = (x / s + *ptr(q->p.value, r, c)) * s;
        assert_true(*ptr(q->fold, r, c) == x);
        double k = rint((double)(x / s)),
               inside = k >= (double)(bq_qmin(q->s) - z) && k <= (double)(bq_qmax(q->s) - z);
        if (!whole) inside = q->p.form == BQ_TUNE_WEIGHTS || fabsf(x / s) <= bq_qmax(q->s);
        float want = q->p.form == BQ_TUNE_CLIPPING || inside == 0 ? 0
                     : q->p.form == BQ_TUNE_ROUNDING              ? g * s
                                                                  : g;
        assert_true(*ptr(q->grad, r, c) == want);
    }
    if (q->p.form == BQ_TUNE_WEIGHTS || !whole || q->s.scale != BQ_F32) return;
    for (int k = 0; k < 2; k++) {
        double h = q->p.form == BQ_TUNE_SCALES && k == 1 ? 1e-7 : 1e-4, up[2] = {0}, down[2] = {0}, size = 0;
        up[k] = h, down[k] = -h;
        for (int64_t c = 0; c < q->p.w.cols; c++)
            size += fabs(at(q->g, r, c)) * (q->p.form == BQ_TUNE_SCALES && k ? 8 : 0.1);
        near_to(at(q->grad, r, q->p.w.cols + k), (frozen_loss(q, r, up) - frozen_loss(q, r, down)) / (2 * h),
                size, 1e-3);
    }
}

/* w_hat has the codes that quantize makes of fold: what training saw is what an export holds. */
static void codes_are_those_of_fold(problem *q) {
    bq_mat code = make(q->p.w.rows, q->p.w.cols, 1, BQ_I8), back = make(q->p.w.rows, q->p.w.cols, 0, BQ_F32),
           alone = clone(q->w_hat);
    dev.op->quantize(&dev, q->fold, q->scale, q->zero, q->s, code);
    dev.op->dequantize(&dev, code, q->scale, q->zero, q->s, back);
    assert_true(same(back, q->w_hat));
    dev.op->tuned_weights(&dev, &q->p, q->s, alone, q->scale, q->zero, none);
    assert_true(same(alone, q->w_hat));
    drop(code), drop(back), drop(alone);
}

static void oracle_on_odd_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int k = 0; k < SCHEMES; k++)
                for (int form = 0; form < FORMS; form++) {
                    if (!can((bq_tune)form, schemes[k])) continue;
                    problem q =
                        start(few_rows[i], odd_sizes[j], (i + j) % 3, schemes[k], (bq_tune)form, BQ_SIGN);
                    forward(&q), gradient(&q);
                    for (int64_t r = 0; r < few_rows[i]; r++) check_row(&q, r);
                    codes_are_those_of_fold(&q);
                    finish(&q);
                }
    for (int64_t rows = 0; rows < 3; rows += 2) { /* nothing to do, or rows of nothing */
        problem q = start(rows, rows ? 0 : 33, 1, schemes[0], BQ_TUNE_ROUNDING, BQ_SIGN);
        forward(&q), gradient(&q);
        step(&q, (bq_adam){.step = 1});
        finish(&q);
    }
}

/* A value and its moments before a step; after it, in double. */
typedef struct {
    double p, m, v;
} moment;

static moment moved(bq_train_optimizer by, moment x, double g, double lr, bq_adam a) {
    double b1 = a.beta1, b2 = a.beta2, t = (double)a.step, decay = (double)a.decay;
    if (by == BQ_SIGN) {
        x.p -= lr * (g > 0 ? 1 : g < 0 ? -1 : 0);
    } else if (by == BQ_MOMENTUM) {
        x.m = b1 * x.m + g + decay * x.p, x.p -= lr * x.m;
    } else {
        x.m = b1 * x.m + (1 - b1) * g, x.v = b2 * x.v + (1 - b2) * g * g, x.p *= 1 - lr * decay;
        x.p -= lr * (x.m / (1 - pow(b1, t))) / (sqrt(x.v / (1 - pow(b2, t))) + 1e-8);
    }
    return x;
}

static void check_moved(const problem *q, bq_mat p, bq_mat m, bq_mat v, const bq_mat was[3], int64_t r,
                        int64_t c, int64_t mc, double g, double lr, bq_adam a) {
    moment want =
        moved(q->p.optimizer, (moment){at(was[0], r, c), at(was[1], r, mc), at(was[2], r, mc)}, g, lr, a);
    if (q->p.form == BQ_TUNE_ROUNDING && mc != c) want.p = fmin(fmax(want.p, 0), 1);
    near_to(at(p, r, c), want.p, fabs(want.p) + lr, 1e-6);
    near_to(at(m, r, mc), want.m, fabs(g) + fabs(want.m), 1e-6);
    near_to(at(v, r, mc), want.v, fabs(want.v) + g * g, 1e-6);
}

static void steps_of_optimizers(void **state) {
    (void)state;
    enum { ROWS = 3, COLS = 273 };
    bq_adam adam = {
        .lr_clip = 3e-2f, .lr_weight = 1e-2f, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f, .decay = 0.1f};
    for (int by = 0; by < OPTIMIZERS; by++)
        for (int form = 0; form < FORMS; form++) {
            problem q = start(ROWS, COLS, 1, schemes[2], (bq_tune)form, (bq_train_optimizer)by);
            for (adam.step = 1; adam.step <= 3; adam.step++) {
                bool rows = form != BQ_TUNE_WEIGHTS, values = form != BQ_TUNE_CLIPPING;
                bq_mat was[3] = {clone(values ? q.p.value : q.p.w), clone(q.p.m), clone(q.p.v)};
                bq_mat low[3] = {clone(q.p.low), clone(q.p.m_row), clone(q.p.v_row)},
                       high[3] = {clone(q.p.high), low[1], low[2]};
                fill(q.g, (uint32_t)(10 + adam.step), 0.01f);
                forward(&q), gradient(&q), step(&q, adam);
                for (int64_t r = 0; r < ROWS; r++) {
                    for (int64_t c = 0; values && c < COLS; c++)
                        check_moved(&q, q.p.value, q.p.m, q.p.v, was, r, c, c, at(q.grad, r, c),
                                    (double)adam.lr_weight, adam);
                    bq_mat ends[3] = {low[0], low[1], low[2]};
                    if (rows)
                        check_moved(&q, q.p.low, q.p.m_row, q.p.v_row, ends, r, 0, 0, at(q.grad, r, COLS),
                                    (double)adam.lr_clip, adam);
                    bq_mat m = bq_mat_cols(q.p.m_row, 1, 1), v = bq_mat_cols(q.p.v_row, 1, 1);
                    bq_mat other[3] = {high[0], bq_mat_cols(high[1], 1, 1), bq_mat_cols(high[2], 1, 1)};
                    if (rows)
                        check_moved(&q, q.p.high, m, v, other, r, 0, 0, at(q.grad, r, COLS + 1),
                                    (double)adam.lr_clip, adam);
                }
                for (int i = 0; i < 3; i++) drop(was[i]), drop(low[i]);
                drop(high[0]);
            }
            finish(&q);
        }
}

/* The ends of a grid give this grid again; ends of a row hold 0 and skip NaN. */
static void ends_of_rows_and_grids(void **state) {
    (void)state;
    for (int k = 0; k < INTEGERS; k++) {
        problem q = start(17, 33, 1, schemes[k], BQ_TUNE_ROUNDING, BQ_SIGN);
        bq_mat again = clone(q.scale), zeros = q.zero.data ? clone(q.zero) : none;
        dev.op->range(&dev, q.p.w, q.s, q.scale, q.zero);
        dev.op->range_ends(&dev, q.p.w, q.s, q.scale, q.zero, q.p.lo, q.p.hi);
        dev.op->set(&dev, q.p.low, 1), dev.op->set(&dev, q.p.high, 1), dev.op->zero(&dev, q.p.value);
        dev.op->tuned_weights(&dev, &q.p, q.s, q.w_hat, again, zeros, none);
        for (int64_t r = 0; r < 17; r++) {
            near_to(at(again, r, 0), at(q.scale, r, 0), at(q.scale, r, 0), 2e-7);
            assert_true(!zeros.data || *ptr(zeros, r, 0) == *ptr(q.zero, r, 0));
        }
        drop(again), drop(zeros), finish(&q);
    }
    float w[] = {1, NAN, 3, -2, -1, -5}, lo[2], hi[2];
    dev.op->range_ends(&dev, bq_mat_host(w, 2, 3, BQ_F32), schemes[0], none, none,
                       bq_mat_host(lo, 2, 1, BQ_F32), bq_mat_host(hi, 2, 1, BQ_F32));
    assert_true(lo[0] == 0 && hi[0] == 3 && lo[1] == -5 && hi[1] == 0);
}

/* A row of zeros has a scale and codes 0; NaN in a gradient moves nothing beyond itself. */
static void special_rows(void **state) {
    (void)state;
    for (int k = 0; k < SCHEMES; k++)
        for (int form = 0; form < FORMS; form++) {
            if (!can((bq_tune)form, schemes[k])) continue;
            problem q = start(3, 37, 0, schemes[k], (bq_tune)form, BQ_SIGN);
            dev.op->zero(&dev, bq_mat_rows(q.p.w, 1, 1)), dev.op->zero(&dev, bq_mat_rows(q.p.lo, 1, 1)),
                dev.op->zero(&dev, bq_mat_rows(q.p.hi, 1, 1));
            if (q.p.value.data) dev.op->zero(&dev, bq_mat_rows(q.p.value, 1, 1));
            *ptr(q.g, 2, 5) = NAN;
            forward(&q), gradient(&q), step(&q, (bq_adam){.step = 1, .lr_weight = 1e-3f});
            assert_true(*ptr(q.scale, 1, 0) > 0);
            for (int c = 0; c < 37; c++)
                assert_true(*ptr(q.w_hat, 1, c) == 0 && isfinite(*ptr(q.w_hat, 2, c)));
            if (q.p.value.data)
                assert_true(isfinite(*ptr(q.p.value, 2, 5)) && isfinite(*ptr(q.p.value, 2, 6)));
            finish(&q);
        }
}

/* All outputs on a matrix that threads share. */
static uint64_t all_bits(void) {
    uint64_t bits = 1;
    for (int k = 0; k < SCHEMES; k++)
        for (int form = 0; form < FORMS; form++)
            for (int by = 0; by < OPTIMIZERS && can((bq_tune)form, schemes[k]); by++) {
                problem q = start(67, 517, 3, schemes[k], (bq_tune)form, (bq_train_optimizer)by);
                bq_adam adam = {.lr_clip = 1e-2f,
                                .lr_weight = 1e-3f,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8f,
                                .decay = 0.01f};
                for (adam.step = 1; adam.step <= 2; adam.step++) forward(&q), gradient(&q), step(&q, adam);
                for (int i = 0; list(&q, i); i++)
                    if (list(&q, i)->data) bits = bits_of(bits, *list(&q, i));
                finish(&q);
            }
    return bits;
}

int main(void) {
    dev = cpu_with(2, 0);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oracle_on_odd_shapes),
        cmocka_unit_test(steps_of_optimizers),
        cmocka_unit_test(ends_of_rows_and_grids),
        cmocka_unit_test(special_rows),
        SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
