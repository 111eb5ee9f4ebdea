/* SPDX-License-Identifier: Apache-2.0 */
/* Float elements: their codes and numbers, rounding, scales of each type, tiles; the ops range, share_scales,
 * quantize, dequantize, round_rows, fit and gptq on them. */
#include "same_bits.h"

#include "base/num.h"

#include <math.h>

static bq_dev dev;

static const int floats[] = {BQ_E2M1, BQ_E2M3, BQ_E3M2, BQ_E4M3, BQ_E5M2};
enum { FLOATS = sizeof floats / sizeof *floats };
static const int mantissas[] = {1, 3, 2, 3, 2}, biases[] = {1, 1, 3, 7, 15};

static bq_scheme scheme_of(int element, bq_type scale) {
    return (bq_scheme){element, -1, true, scale, BQ_GRID_ABSMAX, 1, 0};
}

/* The number of a code, by the definition of the format; the sign apart. */
static double number_of(int i, int code) {
    int m = mantissas[i], field = code & ((1 << (bq_element_of(floats[i]).bits - 1)) - 1);
    int exponent = field >> m, fraction = field & ((1 << m) - 1);
    return exponent ? ldexp((1 << m) + fraction, exponent - biases[i] - m)
                    : ldexp(fraction, 1 - biases[i] - m);
}

/* The codes 0 ... of numbers that are not negative, in order: so many. */
static int positive(int i) {
    int n = 0;
    while (number_of(i, n) < (double)bq_element_of(floats[i]).high) n++;
    return n + 1;
}

/* The nearest of these, of two as near the one with the even code; with the sign of x. */
static int nearest_code(int i, double x) {
    int best = 0, n = positive(i);
    for (int c = 1; c < n; c++) {
        double d = fabs(number_of(i, c) - fabs(x)), least = fabs(number_of(i, best) - fabs(x));
        if (d < least || (d == least && c % 2 == 0)) best = c;
    }
    return best | (signbit(x) ? 1 << (bq_element_of(floats[i]).bits - 1) : 0);
}

static int code_of(float x, int element) {
    float one = 1;
    int8_t code;
    dev.op->quantize(&dev, bq_mat_host(&x, 1, 1, BQ_F32), bq_mat_host(&one, 1, 1, BQ_F32), (bq_mat){0},
                     scheme_of(element, BQ_F32), bq_mat_host(&code, 1, 1, BQ_I8));
    dev.op->wait(&dev);
    return (uint8_t)code;
}

static void codes_are_those_of_the_format(void **state) {
    (void)state;
    for (int i = 0; i < FLOATS; i++) {
        int n = positive(i), sign = 1 << (bq_element_of(floats[i]).bits - 1);
        assert_true(number_of(i, n - 1) == (double)bq_element_of(floats[i]).high);
        for (int c = 0; c < n; c++) {
            float one = 1, back[2];
            int8_t code[2] = {(int8_t)c, (int8_t)(c | sign)};
            dev.op->dequantize(&dev, bq_mat_host(code, 1, 2, BQ_I8), bq_mat_host(&one, 1, 1, BQ_F32),
                               (bq_mat){0}, scheme_of(floats[i], BQ_F32), bq_mat_host(back, 1, 2, BQ_F32));
            dev.op->wait(&dev);
            assert_true((double)back[0] == number_of(i, c) && back[1] == -back[0]);
            assert_true(signbit(back[1]) && !signbit(back[0]));
            assert_int_equal(code_of(back[0], floats[i]), c);
            assert_int_equal(code_of(back[1], floats[i]), c | sign);
        }
    }
}

static void rounds_to_nearest_even(void **state) {
    (void)state;
    for (int i = 0; i < FLOATS; i++) {
        float high = bq_element_of(floats[i]).high;
        for (int c = 0; c + 1 < positive(i); c++) {
            float middle = (float)((number_of(i, c) + number_of(i, c + 1)) / 2);
            const float some[] = {middle, nextafterf(middle, 0), nextafterf(middle, 1e9f)};
            for (int k = 0; k < 3; k++) {
                assert_int_equal(code_of(some[k], floats[i]), nearest_code(i, (double)some[k]));
                assert_int_equal(code_of(-some[k], floats[i]), nearest_code(i, -(double)some[k]));
            }
        }
        bq_mat x = make_filled(1, 301, 0, 9, high / 2);
        for (int64_t c = 0; c < x.cols; c++)
            assert_int_equal(code_of(f32(x, 0, c), floats[i]), nearest_code(i, (double)f32(x, 0, c)));
        drop(x);
        assert_int_equal(code_of(2 * high, floats[i]), nearest_code(i, (double)high));
        assert_int_equal(code_of(-INFINITY, floats[i]), nearest_code(i, -(double)high));
        assert_int_equal(code_of(NAN, floats[i]),
                         nearest_code(i, -(double)high)); /* the lowest, as integers */
        assert_int_equal(code_of(1e-30f, floats[i]), 0);
        assert_int_equal(code_of(-1e-30f, floats[i]), nearest_code(i, -0.0));
    }
}

/* The scale of one row whose largest |w| is a. */
static float scale_for(float a, bq_scheme s) {
    float w[3] = {0, -a, a / 2}, scale;
    dev.op->range(&dev, bq_mat_host(w, 1, 3, BQ_F32), s, bq_mat_host(&scale, 1, 1, BQ_F32), (bq_mat){0});
    dev.op->wait(&dev);
    return scale;
}

static void scales_cover_the_row(void **state) {
    (void)state;
    for (int i = 0; i < FLOATS; i++) {
        const bq_element e = bq_element_of(floats[i]);
        int kept = e.bits == 8 ? 1 : mantissas[i], top = ilogb((double)e.high);
        assert_true(scale_for(3, scheme_of(floats[i], BQ_F32)) == 3 / e.high);
        assert_true(scale_for(0, scheme_of(floats[i], BQ_F32)) == 0x1p-23f);
        assert_true(scale_for(3, scheme_of(floats[i], BQ_F16)) == (float)(_Float16)(3 / e.high));
        for (float a = 1e-5f; a < 1e6f; a *= 1.07f) { /* rounded to `kept` bits, half away from zero */
            double unit = ldexp(1, ilogb((double)a) - kept), rounded = floor((double)a / unit + 0.5) * unit;
            double want = ldexp(1, ilogb(rounded) - top);
            assert_true((double)scale_for(a, scheme_of(floats[i], BQ_F8_E8M0)) == want);
        }
        assert_true(scale_for(0, scheme_of(floats[i], BQ_F8_E8M0)) == 0x1p-127f);
    }
    for (int c = 0; c < 400; c++) {
        bq_scheme s = scheme_of(BQ_E2M1, BQ_F8_E4M3);
        float a = 1e-4f * powf(1.05f, (float)c);
        assert_true(scale_for(a, s) == a / 6); /* its outer factor is not known yet */
        s.outer = 448 * 6 / 1e3f;
        int code = nearest_code(3, fmin((double)(a / 6 * s.outer), 448));
        float inner = code ? (float)number_of(3, code) : 0.125f;
        assert_true(scale_for(a, s) == inner / s.outer);
        assert_true(isnan(bq_scale_stored(NAN, s))); /* a run that diverged must show it */
    }
}

static void tiles_have_one_scale(void **state) {
    (void)state;
    const int64_t sizes[][3] = {{7, 3, 4}, {8, 1, 4}, {1, 5, 128}, {257, 3, 128}, {9, 2, -1}};
    for (int k = 0; k < 5; k++) {
        int64_t rows = sizes[k][0], groups = sizes[k][1], tile = sizes[k][2];
        bq_scheme s = {BQ_E4M3, 24, true, BQ_F32, BQ_GRID_AIMET, tile, 0};
        bq_mat w = make_filled(rows * groups, 24, 0, 3, 0.2f), scale = make(rows, groups, 0, BQ_F32);
        bq_mat flat = bq_mat_reshape(scale, 1);
        for (int64_t c = 0; c < 24; c++) *ptr(w, 0, c) = 0; /* a row without values */
        for (int64_t r = 0; r < rows && k < 2; r++)
            for (int64_t c = 0; c < 24; c++) *ptr(w, r * groups, c) *= 1e-7f; /* and a group of tiny ones */
        dev.op->range(&dev, w, s, flat, (bq_mat){0});
        dev.op->share_scales(&dev, scale, s);
        dev.op->wait(&dev);
        if (tile < 0) tile = rows;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t g = 0; g < groups; g++) {
                float most = 0;
                int64_t first = r / tile * tile, end = first + tile < rows ? first + tile : rows;
                for (int64_t i = first; i < end; i++)
                    for (int64_t c = 0; c < 24; c++) most = fmaxf(most, fabsf(f32(w, i * groups + g, c)));
                assert_true(f32(scale, r, g) == (most > 0 ? most / 448 : 0x1p-23f));
            }
        drop(w), drop(scale);
    }
}

static void fake_rows_are_codes_and_back(void **state) {
    (void)state;
    for (int i = 0; i < FLOATS; i++) {
        bq_scheme s = bq_scheme_of_tokens(floats[i]);
        bq_mat x = make_filled(5, 131, 2, 4, 3), y = make(5, 131, 1, BQ_F32), back = make(5, 131, 0, BQ_F32);
        bq_mat scale = make(5, 1, 0, BQ_F32), code = make(5, 131, 0, BQ_I8);
        dev.op->round_rows(&dev, x, bq_rounding_of_tokens(floats[i]), (bq_mat){0}, y);
        dev.op->range(&dev, x, s, scale, (bq_mat){0});
        dev.op->quantize(&dev, x, scale, (bq_mat){0}, s, code);
        dev.op->dequantize(&dev, code, scale, (bq_mat){0}, s, back);
        dev.op->wait(&dev);
        assert_true(same(y, back));
        for (int64_t c = 0; c < x.cols; c++)
            assert_true(code_of(f32(x, 2, c) / f32(scale, 2, 0), floats[i]) ==
                        *(uint8_t *)bq_mat_at(code, 2, c));
        drop(x), drop(y), drop(back), drop(scale), drop(code);
    }
}

/* A clipped scale is one of the candidates, and its weighted error is the least. */
static void fit_takes_the_best(void **state) {
    (void)state;
    bq_mat w = make_filled(7, 67, 1, 5, 0.3f), h = make_filled(1, 67, 0, 6, 1), scale = make(7, 1, 0, BQ_F32);
    for (int64_t c = 0; c < 67; c++) *ptr(h, 0, c) = fabsf(f32(h, 0, c));
    for (int i = 0; i < FLOATS; i++) {
        bq_scheme s = scheme_of(floats[i], BQ_F32);
        dev.op->fit(&dev, w, h, s, scale, (bq_mat){0});
        dev.op->wait(&dev);
        for (int64_t r = 0; r < 7; r++) {
            float most = 0, kept = 0;
            double least = INFINITY;
            for (int64_t c = 0; c < 67; c++) most = fmaxf(most, fabsf(f32(w, r, c)));
            for (int k = 0; k < 80; k++) {
                float at = most / bq_qmax(s) * ((float)(100 - k) / 100);
                double error = 0;
                for (int64_t c = 0; c < 67; c++) {
                    int code = nearest_code(i, (double)(f32(w, r, c) / at));
                    float x = (float)number_of(i, code) * at, d = fabsf(f32(w, r, c)) - x;
                    error += (double)(f32(h, 0, c) * d * d);
                }
                if (error < least * (1 - 1e-6)) least = error, kept = at;
            }
            assert_true(fabsf(f32(scale, r, 0) - kept) <= 1e-6f * kept);
        }
    }
    drop(w), drop(h), drop(scale);
}

static uint64_t all_bits(void) {
    uint64_t bits = 1;
    bq_mat w = make_filled(131, 257, 3, 4, 0.03f), out = clone(w), h = make_filled(1, 257, 0, 6, 1);
    bq_mat scale = make(131, 1, 0, BQ_F32), code = make(131, 257, 1, BQ_I8);
    *ptr(w, 7, 250) = INFINITY, *ptr(w, 8, 1) = -1e20f;
    for (int i = 0; i < FLOATS; i++) {
        bq_scheme s = scheme_of(floats[i], i % 2 ? BQ_F8_E8M0 : BQ_BF16);
        dev.op->range_mse(&dev, w, s, (bq_shrink){100, 40, BQ_NORM_24}, scale, (bq_mat){0});
        dev.op->quantize(&dev, w, scale, (bq_mat){0}, s, code);
        dev.op->dequantize(&dev, code, scale, (bq_mat){0}, s, out);
        bits = bits_of(bits_of(bits_of(bits, scale), code), out);
        dev.op->fit(&dev, bq_mat_rows(w, 9, 60), h, s, bq_mat_rows(scale, 0, 60), (bq_mat){0});
        dev.op->round_rows(&dev, w, bq_rounding_of_tokens(floats[i]), (bq_mat){0}, out);
        bits = bits_of(bits_of(bits, scale), out);
        s.rows = 50;
        dev.op->share_scales(&dev, scale, s);
        bits = bits_of(bits, scale);
    }
    drop(w), drop(out), drop(h), drop(scale), drop(code);
    return bits;
}

int main(void) {
    dev = cpu_with(2, 0);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_the_format),
        cmocka_unit_test(rounds_to_nearest_even),
        cmocka_unit_test(scales_cover_the_row),
        cmocka_unit_test(tiles_have_one_scale),
        cmocka_unit_test(fake_rows_are_codes_and_back),
        cmocka_unit_test(fit_takes_the_best),
        SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
