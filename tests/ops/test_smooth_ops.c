/* SPDX-License-Identifier: Apache-2.0 */
/* The smoothing ops of the cpu backend against naive loops. */
#include "same_bits.h"

#include "base/power.h"

#include <float.h>
#include <math.h>

static bq_dev dev;

/* As the compiler's own libm has it, to 13 digits; exact at the ends. */
static void powers(void **state) {
    (void)state;
    for (double x = 1e-12; x < 1e13; x *= 1.37) {
        assert_true(fabs(bq_log2(x) - log2(x)) <= 1e-14 * fmax(1, fabs(log2(x))));
        for (double r = 0.05; r < 1; r += 0.05) assert_true(fabs(bq_power(x, r) / pow(x, r) - 1) < 1e-13);
        assert_true(bq_power(x, 0) == 1 && bq_power(x, 1) == x);
    }
    for (int k = -40; k <= 40; k++) {
        assert_true(bq_log2(ldexp(1, k)) == k && bq_exp2(k) == ldexp(1, k));
        assert_true(fabs(bq_exp2(k + 0.37) / exp2(k + 0.37) - 1) < 1e-14);
    }
    assert_true(bq_power(0, 0) == 1 && bq_power(0, 0.3) == 0 && isfinite(bq_power(INFINITY, 0.5)));
}

static void check_columns(int64_t rows, int64_t cols, int64_t pad) {
    bq_mat x = make_filled(rows, cols, pad, 1, 2), m = make(3, cols, pad + 1, BQ_F32),
           y = make(rows, cols, 1, BQ_F32);
    bq_mat s = make_filled(1, cols, 0, 2, 1), t = make_filled(rows, 1, 2, 3, 1),
           sum = make(4, cols, 0, BQ_F32);
    dev.op->set(&dev, m, -FLT_MAX);
    if (rows > 2) *(float *)bq_mat_at(x, 1, cols / 2) = NAN;
    for (int64_t r = 0; r < rows && cols > 2; r++) *ptr(x, r, 0) = r % 3 ? 0.0f : -0.0f;
    for (int k = 0; k < 3; k++) dev.op->column_max(&dev, x, (float)(1 - k), bq_mat_rows(m, k, 1));
    for (int64_t c = 0; c < cols; c++) {
        float want[3] = {-FLT_MAX, -FLT_MAX, -FLT_MAX};
        for (int64_t r = 0; r < rows; r++) {
            float v = f32(x, r, c);
            if (isnan(v)) continue;
            want[0] = fmaxf(want[0], v), want[1] = fmaxf(want[1], fabsf(v)), want[2] = fmaxf(want[2], -v);
        }
        for (int k = 0; k < 3; k++) assert_true(f32(m, k, c) == want[k]);
    }
    assert_true(cols < 3 || signbit(f32(m, 0, 0))); /* of equal numbers the first one */
    if (rows > 2) *(float *)bq_mat_at(x, 1, cols / 2) = 1;
    dev.op->column_abs(&dev, x, 0, bq_mat_rows(sum, 0, 1));
    dev.op->column_squares(&dev, x, bq_mat_rows(sum, 1, 1));
    bq_mat other = make_filled(rows, cols, pad + 2, 4, 1);
    dev.op->column_dot(&dev, x, other, bq_mat_rows(sum, 2, 1));
    dev.op->column_dot(&dev, x, (bq_mat){0}, bq_mat_rows(sum, 3, 1));
    for (int64_t c = 0; c < cols; c++) {
        double a = 0, q = 0, d = 0, s1 = 0;
        for (int64_t r = 0; r < rows; r++) {
            a += fabs(at(x, r, c)), q += at(x, r, c) * at(x, r, c);
            d += at(x, r, c) * at(other, r, c), s1 += at(x, r, c);
        }
        assert_true(f32(sum, 0, c) == (float)a && f32(sum, 1, c) == (float)q);
        assert_true(f32(sum, 2, c) == (float)d && f32(sum, 3, c) == (float)s1);
    }
    drop(other);
    bq_mat out = clone(x);
    dev.op->times_columns(&dev, x, s, y);
    dev.op->over_columns(&dev, out, s, out); /* in place */
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            assert_true(f32(y, r, c) == f32(x, r, c) * f32(s, 0, c) &&
                        f32(out, r, c) == f32(x, r, c) / f32(s, 0, c));
    dev.op->over_rows(&dev, x, t, y);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) assert_true(f32(y, r, c) == f32(x, r, c) / f32(t, r, 0));
    assert_true(intact(x) && intact(m) && intact(y) && intact(s) && intact(t) && intact(sum) && intact(out));
    drop(x), drop(m), drop(y), drop(s), drop(t), drop(sum), drop(out);
}

static void columns_on_odd_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++) check_columns(few_rows[i], odd_sizes[j], (i + j) % 3);
    check_columns(31, 33, 0), check_columns(33, 65, 1), check_columns(300, 33, 2);
}

/* Groups within, across and beyond what a thread takes at a time. */
static void relative_sums(void **state) {
    (void)state;
    const int64_t shapes[][2] = {{8, 264}, {24, 264}, {132, 264}, {300, 600}, {600, 600}};
    for (int k = 0; k < 5; k++) {
        int64_t group = shapes[k][0], cols = shapes[k][1], rows = 11;
        bq_mat x = make_filled(rows, cols, 1, 4, 1), sum = make(1, cols, 0, BQ_F32);
        dev.op->column_abs(&dev, x, group, sum);
        for (int64_t c = 0; c < cols; c++) {
            double want = 0;
            for (int64_t r = 0; r < rows; r++) {
                double most = 0;
                for (int64_t i = c / group * group; i < (c / group + 1) * group; i++)
                    most = fmax(most, fabs(at(x, r, i)));
                want += fabs(at(x, r, c)) / (most + 1e-6);
            }
            assert_true(fabs(at(sum, 0, c) - want) <= 1e-6 * want);
        }
        drop(x), drop(sum);
    }
    float row[4] = {1, INFINITY, -2, 2}, sums[4]; /* beside an infinite number the others are nothing */
    dev.op->column_abs(&dev, bq_mat_host(row, 1, 4, BQ_F32), 2, bq_mat_host(sums, 1, 4, BQ_F32));
    assert_true(sums[0] == 0 && isnan(sums[1]) && fabsf(sums[2] - 1) < 1e-6f && sums[3] == sums[2]);
}

static double form_of(bq_smooth_form f, double a, double w) {
    double s = 0;
    if (f.kind == BQ_SMOOTH_ALPHA) {
        w = fmax(w * f.weight_factor, f.weight_floor);
        s = w > 0 ? pow(a, f.ratio) / pow(w, 1 - f.ratio) : a;
    }
    if (f.kind == BQ_SMOOTH_LOG) s = a / log2(2 + a);
    if (f.kind == BQ_SMOOTH_POWER) s = pow(a, f.ratio);
    if (f.kind == BQ_SMOOTH_DUO) s = pow(a, f.ratio) / (pow(w, 1 - f.ratio) + 1e-4);
    return fmax(s, f.floor);
}

static void scales_by_form(void **state) {
    (void)state;
    enum { N = 37 };
    float a[N], w[N], s[N];
    for (int i = 0; i < N; i++) a[i] = (float)pow(1.5, i - 20), w[i] = (float)(i % 5) * 0.3f;
    a[3] = 0;
    for (int kind = 0; kind < 4; kind++)
        for (int r = 0; r <= 10; r++) {
            bq_smooth_form f = {(bq_smooth_kind)kind, r / 10.0, 1e-3, 2, r % 2 ? 1e-5 : 0};
            double want[N], least = INFINITY, most = 0;
            bool weighted = kind == BQ_SMOOTH_ALPHA || kind == BQ_SMOOTH_DUO;
            dev.op->smooth_scale(&dev, f, bq_mat_host(a, 1, N, BQ_F32),
                                 weighted ? bq_mat_host(w, 1, N, BQ_F32) : (bq_mat){0},
                                 bq_mat_host(s, 1, N, BQ_F32));
            for (int i = 0; i < N; i++) {
                want[i] = form_of(f, (double)a[i], (double)w[i]);
                least = fmin(least, want[i]), most = fmax(most, want[i]);
            }
            double by = kind >= BQ_SMOOTH_POWER ? sqrt(least * most) : 1;
            for (int i = 0; i < N; i++) assert_true(fabs((double)s[i] - want[i] / by) <= 3e-7 * want[i] / by);
            if (kind == BQ_SMOOTH_POWER && r == 0)
                for (int i = 0; i < N; i++) assert_true(s[i] == 1);
        }
    a[5] = INFINITY, a[6] = NAN; /* what is no number scales nothing */
    bq_smooth_form log = {BQ_SMOOTH_LOG, 0, 1e-3, 0, 0};
    dev.op->smooth_scale(&dev, log, bq_mat_host(a, 1, N, BQ_F32), (bq_mat){0}, bq_mat_host(s, 1, N, BQ_F32));
    for (int i = 0; i < N; i++) assert_true(isfinite(s[i]) && s[i] > 0);
}

static void heads_share_the_largest(void **state) {
    (void)state;
    enum { GROUPS = 2, REPEAT = 3, HEAD = 5 };
    bq_mat s = make_filled(GROUPS, REPEAT * HEAD, 2, 6, 1), was = clone(s);
    dev.op->head_max(&dev, s, HEAD);
    for (int g = 0; g < GROUPS; g++)
        for (int c = 0; c < HEAD; c++)
            for (int h = 0; h < REPEAT; h++) {
                float most = fmaxf(fmaxf(f32(was, g, c), f32(was, g, c + HEAD)), f32(was, g, c + 2 * HEAD));
                assert_true(f32(s, g, h * HEAD + c) == most);
            }
    assert_true(intact(s));
    drop(s), drop(was);
}

/* One pass gives the bits of multiply, range, quantize, dequantize, divide. */
static void check_weights(int64_t rows, int64_t cols, bq_scheme scheme) {
    int64_t group = scheme.group > 0 ? scheme.group : cols, grids = rows * cols / group;
    bq_mat w = make_filled(rows, cols, 3, 7, 0.1f), s = make_filled(1, cols, 0, 8, 1),
           out = make(rows, cols, 1, BQ_F32);
    bq_mat flat = make(rows, cols, 0, BQ_F32), code = make(grids, group, 0, BQ_I8);
    bq_mat scale = make(grids, 1, 0, BQ_F32),
           zero = scheme.symmetric ? (bq_mat){0} : make(grids, 1, 0, BQ_F32);
    for (int64_t c = 0; c < cols; c++) *(float *)bq_mat_at(s, 0, c) = fabsf(f32(s, 0, c)) + 0.1f;
    dev.op->smooth_weights(&dev, w, s, scheme, out);
    dev.op->times_columns(&dev, w, s, flat);
    bq_mat grouped = bq_mat_reshape(flat, group);
    dev.op->range(&dev, grouped, scheme, scale, zero);
    dev.op->quantize(&dev, grouped, scale, zero, scheme, code);
    dev.op->dequantize(&dev, code, scale, zero, scheme, grouped);
    dev.op->over_columns(&dev, flat, s, flat);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) assert_true(f32(out, r, c) == f32(flat, r, c));
    assert_true(intact(w) && intact(s) && intact(out));
    drop(w), drop(s), drop(out), drop(flat), drop(code), drop(scale), drop(zero);
}

static void weights_in_one_pass(void **state) {
    (void)state;
    for (int bits = 2; bits <= 8; bits += 2)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
            check_weights(5, 129, (bq_scheme){bits, -1, symmetric, BQ_F32, BQ_GRID_AIMET, 1, 0});
            check_weights(17, 96, (bq_scheme){bits, 32, symmetric, BQ_BF16, BQ_GRID_ABSMAX, 1, 0});
            check_weights(1, 40, (bq_scheme){bits, 8, symmetric, BQ_F16, BQ_GRID_AIMET, 1, 0});
        }
}

static void distances(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++) {
            bq_mat a = make_filled(few_rows[i], odd_sizes[j], 1, 9, 1),
                   b = make_filled(few_rows[i], odd_sizes[j], 2, 10, 1);
            double want[3] = {0}, sum;
            for (int64_t r = 0; r < a.rows; r++)
                for (int64_t c = 0; c < a.cols; c++) {
                    double d = fabs(at(a, r, c) - at(b, r, c));
                    want[0] += d * d, want[1] += d, want[2] += sqrt(d);
                }
            for (int k = 0; k < 3; k++) {
                dev.op->distance(&dev, a, b, (bq_distance)k, &sum);
                assert_true(fabs(sum - want[k]) <= 1e-6 * want[k]);
                dev.op->distance(&dev, a, a, (bq_distance)k, &sum);
                assert_true(sum == 0);
            }
            drop(a), drop(b);
        }
}

static void clips(void **state) {
    (void)state;
    enum { ROWS = 7, COLS = 33, LIMITS = 10 };
    bq_scheme s = {3, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0};
    bq_mat w = make_filled(ROWS, COLS, 2, 11, 1), was = clone(w), d = make(ROWS, COLS, 1, BQ_F32);
    bq_mat error = make_filled(LIMITS, ROWS, 1, 12, 1);
    for (int k = 0; k < LIMITS; k++) {
        float factor = 1 - (float)k * 0.05f;
        dev.op->clip_error(&dev, w, factor, s, d);
        for (int r = 0; r < ROWS; r++) {
            float most = 0, row[COLS], scale, zero, back[COLS];
            int8_t code[COLS];
            for (int c = 0; c < COLS; c++) most = fmaxf(most, fabsf(f32(w, r, c)));
            for (int c = 0; c < COLS; c++) row[c] = fmaxf(fminf(f32(w, r, c), factor * most), -factor * most);
            bq_mat one = bq_mat_host(row, 1, COLS, BQ_F32), z = bq_mat_host(&zero, 1, 1, BQ_F32);
            bq_mat delta = bq_mat_host(&scale, 1, 1, BQ_F32), q = bq_mat_host(code, 1, COLS, BQ_I8);
            dev.op->range(&dev, one, s, delta, z);
            dev.op->quantize(&dev, one, delta, z, s, q);
            dev.op->dequantize(&dev, q, delta, z, s, bq_mat_host(back, 1, COLS, BQ_F32));
            for (int c = 0; c < COLS; c++) assert_true(f32(d, r, c) == back[c] - f32(w, r, c));
        }
    }
    for (int k = 0; k < LIMITS; k++) *(float *)bq_mat_at(error, k, 2) = 1; /* a tie: nothing is clipped */
    dev.op->clip_rows(&dev, error, 0.05f, w);
    for (int r = 0; r < ROWS; r++) {
        int best = 0;
        float most = 0;
        for (int k = 1; k < LIMITS; k++)
            if (f32(error, k, r) < f32(error, best, r)) best = k;
        for (int c = 0; c < COLS; c++) most = fmaxf(most, fabsf(f32(was, r, c)));
        float limit = (1 - (float)best * 0.05f) * most;
        assert_true(r != 2 || best == 0);
        for (int c = 0; c < COLS; c++)
            assert_true(f32(w, r, c) ==
                        (best ? fmaxf(fminf(f32(was, r, c), limit), -limit) : f32(was, r, c)));
    }
    assert_true(intact(w) && intact(d) && intact(error));
    drop(w), drop(was), drop(d), drop(error);
}

/* Outputs of every op on something large enough for threads. */
static uint64_t all_bits(void) {
    enum { ROWS = 150, COLS = 528 };
    uint64_t bits = 0;
    double sum[3];
    bq_mat x = make_filled(ROWS, COLS, 0, 20, 1), y = make(ROWS, COLS, 0, BQ_F32),
           b = make_filled(ROWS, COLS, 0, 21, 1);
    bq_mat s = make_filled(1, COLS, 0, 22, 1), m = make(5, COLS, 0, BQ_F32),
           e = make_filled(5, ROWS, 0, 23, 1);
    dev.op->set(&dev, m, 0);
    dev.op->column_max(&dev, x, 0, bq_mat_rows(m, 0, 1));
    dev.op->column_abs(&dev, x, 0, bq_mat_rows(m, 1, 1));
    dev.op->column_abs(&dev, x, 16, bq_mat_rows(m, 2, 1));
    dev.op->column_squares(&dev, x, bq_mat_rows(m, 3, 1));
    dev.op->column_dot(&dev, x, b, bq_mat_rows(m, 4, 1));
    bits = bits_of(bits, m);
    bq_smooth_form duo = {BQ_SMOOTH_DUO, 0.35, 1e-4, 0, 0};
    dev.op->smooth_scale(&dev, duo, bq_mat_rows(m, 0, 1), bq_mat_rows(m, 2, 1), s);
    bits = bits_of(bits, s);
    for (int k = 0; k < 2; k++) {
        dev.op->smooth_weights(&dev, x, s, (bq_scheme){4, k ? 16 : -1, k, BQ_F32, BQ_GRID_ABSMAX, 1, 0}, y);
        bits = bits_of(bits, y);
    }
    for (int k = 0; k < 3; k++) dev.op->distance(&dev, x, b, (bq_distance)k, &sum[k]);
    bits = bits_of(bits, bq_mat_host(sum, 1, 3, BQ_F64));
    dev.op->clip_error(&dev, x, 0.7f, (bq_scheme){4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0}, y);
    bits = bits_of(bits, y);
    dev.op->clip_rows(&dev, e, 0.1f, x);
    bits = bits_of(bits, x);
    drop(x), drop(y), drop(b), drop(s), drop(m), drop(e);
    return bits;
}

int main(void) {
    dev = cpu_with(2, 1 << 16);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(powers),
        cmocka_unit_test(columns_on_odd_shapes),
        cmocka_unit_test(relative_sums),
        cmocka_unit_test(scales_by_form),
        cmocka_unit_test(heads_share_the_largest),
        cmocka_unit_test(weights_in_one_pass),
        cmocka_unit_test(distances),
        cmocka_unit_test(clips),
        SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
