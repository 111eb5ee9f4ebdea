/* SPDX-License-Identifier: Apache-2.0 */
/* Grids by torchao's rule, with zero points that are floats, and with the rules of MX and NVFP4: what ops
 * make of rows on them, against loops in double.  What a pass computes with, w_hat, is what stored codes
 * say. */
#include "same_bits.h"

#include <float.h>
#include <math.h>

#define EPS 1.1920928955078125e-7

static const bq_scheme schemes[] = {
    {4, -1, true, BQ_F32, BQ_GRID_TORCHAO, 1, 0, .eps = EPS},
    {8, -1, true, BQ_F16, BQ_GRID_TORCHAO, 1, 0, .eps = FLT_MIN},
    {1, -1, false, BQ_F32, BQ_GRID_TORCHAO, 1, 0, .eps = EPS},
    {3, -1, false, BQ_BF16, BQ_GRID_TORCHAO, 1, 0, .eps = EPS},
    {8, -1, false, BQ_F32, BQ_GRID_TORCHAO, 1, 0, .eps = FLT_MIN},
    {4, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0, .zero = BQ_ZERO_FLOAT, .eps = 1e-6},
    {4, -1, false, BQ_BF16, BQ_GRID_TORCHAO, 1, 0, .zero = BQ_ZERO_FLOAT, .eps = EPS},
    {2, -1, false, BQ_F16, BQ_GRID_AIMET, 1, 0, .zero = BQ_ZERO_FLOAT, .eps = EPS},
    {1, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0},
    {BQ_E4M3, -1, true, BQ_F32, BQ_GRID_TORCHAO, 1, 0, .eps = EPS},
    {BQ_E2M1, -1, true, BQ_F8_E4M3, BQ_GRID_TORCHAO, 1, 0.001f},
    {BQ_E2M1, -1, true, BQ_F8_E4M3, BQ_GRID_AIMET, 1, 1, .levels = BQ_OUTER_NONE},
    {BQ_E2M1, -1, true, BQ_F8_E8M0, BQ_GRID_AIMET, 1, 0, .power = BQ_POWER_FLOOR},
    {BQ_E2M3, -1, true, BQ_F8_E8M0, BQ_GRID_AIMET, 1, 0, .power = BQ_POWER_CEIL},
    {BQ_E4M3, -1, true, BQ_F8_E8M0, BQ_GRID_TORCHAO, 1, 0, .power = BQ_POWER_RCEIL},
    {BQ_E5M2, -1, true, BQ_F8_E8M0, BQ_GRID_TORCHAO, 1, 0},
};
#define SCHEMES ((int)(sizeof schemes / sizeof *schemes))

static const bq_mat none;
static bq_dev dev;

/* A row set and its grids. */
typedef struct {
    bq_mat w, scale, zero, code, w_hat;
} rows;

/* Rows of both signs, of one sign, far from 0, of zeros. */
static rows open_rows(int64_t n, int64_t cols, bq_scheme s, int64_t pad) {
    rows r = {.w = make_filled(n, cols, pad, 7, 0.05f), .scale = make(n, 1, pad, BQ_F32)};
    if (!s.symmetric) r.zero = make(n, 1, 1, BQ_F32);
    r.code = make(n, cols, pad + 1, BQ_I8), r.w_hat = make(n, cols, pad, BQ_F32);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < cols; c++) {
            float *x = ptr(r.w, i, c);
            *x = i % 5 == 1 ? fabsf(*x) : i % 5 == 2 ? -fabsf(*x) - 0.5f : i % 5 == 3 ? 0 : *x;
        }
    return r;
}

static void close_rows(rows r) {
    assert_true(intact(r.w) && intact(r.scale) && intact(r.code) && intact(r.w_hat));
    drop(r.w), drop(r.scale), drop(r.zero), drop(r.code), drop(r.w_hat);
}

static void encode(rows r, bq_scheme s) {
    dev.op->quantize(&dev, r.w, r.scale, r.zero, s, r.code);
    dev.op->dequantize(&dev, r.code, r.scale, r.zero, s, r.w_hat);
    dev.op->wait(&dev);
}

/* The values of integer schemes by their definition: no value is further than half a step from its weight,
 * but for those that a symmetric grid clips, and for rounded zero points. */
static void check_values(rows r, bq_scheme s) {
    for (int64_t i = 0; i < r.w.rows; i++) {
        const double step = at(r.scale, i, 0), zero = r.zero.data ? at(r.zero, i, 0) : 0;
        assert_true(step > 0 && step >= s.eps * 0.99);
        for (int64_t c = 0; c < r.w.cols; c++) {
            const double code = *(int8_t *)bq_mat_at(r.code, i, c), have = at(r.w_hat, i, c);
            const double want = bq_scheme_offset(s) ? code * step + zero : (code - zero) * step;
            assert_true(code >= (double)bq_qmin(s) && code <= (double)bq_qmax(s));
            assert_true(fabs(have - want) <= 1e-6 * (fabs(want) + fabs(zero)));
            if (s.scale == BQ_F32) assert_true(fabs(have - at(r.w, i, c)) <= 1.01 * step);
        }
    }
}

static void codes_and_values(void **state) {
    (void)state;
    for (int k = 0; k < SCHEMES; k++)
        for (int j = 0; j < ODD_SIZES; j++) {
            rows r = open_rows(11, odd_sizes[j], schemes[k], j % 3);
            dev.op->range(&dev, r.w, schemes[k], r.scale, r.zero);
            encode(r, schemes[k]);
            if (bq_element_whole(schemes[k].element) && odd_sizes[j]) check_values(r, schemes[k]);
            close_rows(r);
        }
}

/* The error that searches and smoothing see is that of the codes; fold keeps GPTQ's codes. */
static void fake_is_stored(void **state) {
    (void)state;
    for (int k = 0; k < SCHEMES; k++) {
        const bq_scheme s = schemes[k];
        rows r = open_rows(11, 37, s, 1);
        bq_mat e = make(11, 37, 2, BQ_F32), out = make(11, 37, 0, BQ_F32), ones = make(1, 37, 0, BQ_F32);
        dev.op->set(&dev, ones, 1);
        for (int i = 0; i < 2; i++) {
            dev.op->range_shrunk(&dev, r.w, s, i ? 0.75f : 1, r.scale, r.zero, e);
            encode(r, s);
            for (int64_t c = 0; c < 11 * 37; c++)
                assert_true(f32(e, c / 37, c % 37) ==
                            f32(r.w_hat, c / 37, c % 37) - f32(r.w, c / 37, c % 37));
        }
        dev.op->range(&dev, r.w, s, r.scale, r.zero);
        encode(r, s);
        dev.op->smooth_weights(&dev, r.w, ones, s, out);
        dev.op->wait(&dev);
        assert_true(same(out, r.w_hat));
        dev.op->clip_error(&dev, r.w, 1, s, out);
        dev.op->wait(&dev);
        for (int64_t c = 0; c < 11 * 37; c++)
            assert_true(f32(out, c / 37, c % 37) == f32(r.w_hat, c / 37, c % 37) - f32(r.w, c / 37, c % 37));
        close_rows(r), drop(e), drop(out), drop(ones);
    }
}

/* GPTQ with a factor that is nearly the identity; returns the fold. */
static bq_mat run_gptq(rows r, bq_scheme s, float below, bool dynamic) {
    const int64_t k = r.w.cols;
    bq_mat ut = make(k, k, 1, BQ_F32), order = make(k, 1, 0, BQ_I32), diag = make(k, 1, 0, BQ_F32),
           fold = make(r.w.rows, k, 0, BQ_F32);
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++)
            *ptr(ut, i, j) = i == j ? 1 : i > j ? below * (float)((i + j) % 3) : 0;
        *(int32_t *)bq_mat_at(order, i, 0) = (int32_t)i, *ptr(diag, i, 0) = 1;
    }
    const bq_gptq p = {.w = r.w,
                       .ut = ut,
                       .order = order,
                       .diag = diag,
                       .scale = r.scale,
                       .zero = r.zero,
                       .dynamic = dynamic,
                       .clip = BQ_CLIP_MSE,
                       .ends = {100, 20, BQ_NORM_2, 0}};
    dev.op->gptq(&dev, &p, s, fold);
    dev.op->wait(&dev);
    drop(ut), drop(order), drop(diag);
    return fold;
}

static void gptq_keeps_codes(void **state) {
    (void)state;
    for (int k = 0; k < SCHEMES; k++) {
        rows r = open_rows(9, 40, schemes[k], 0);
        dev.op->range(&dev, r.w, schemes[k], r.scale, r.zero);
        encode(r, schemes[k]);
        bq_mat code = clone(r.code), fold = run_gptq(r, schemes[k], 0, false);
        dev.op->quantize(&dev, fold, r.scale, r.zero, schemes[k], r.code);
        dev.op->wait(&dev);
        assert_true(same(code, r.code));
        drop(code), drop(fold), close_rows(r);
    }
}

/* Four over six: of each block the better of the scales for 6 and for 4. */
static void search_grows(void **state) {
    (void)state;
    const bq_shrink both = {2, 1, BQ_NORM_2, 1};
    for (int k = 0; k < SCHEMES; k++) {
        const bq_scheme s = schemes[k];
        rows r = open_rows(40, 16, s, 0);
        bq_mat e = make(40, 16, 0, BQ_F32), scale = make(40, 1, 0, BQ_F32), zero = make(40, 1, 0, BQ_F32);
        double loss[40][2] = {{0}};
        int larger = 0;
        dev.op->range_mse(&dev, r.w, s, both, r.scale, r.zero);
        encode(r, s);
        dev.op->range(&dev, r.w, s, scale, r.zero.data ? zero : none);
        dev.op->wait(&dev);
        for (int64_t i = 0; i < 40; i++) {
            for (int64_t c = 0; c < 16; c++) {
                const float x = f32(r.w, i, c),
                            plain = bq_on_grid(
                                x, bq_row_grid_of(s, f32(scale, i, 0), r.zero.data ? f32(zero, i, 0) : 0));
                loss[i][0] += pow((double)(plain - x), 2),
                    loss[i][1] += pow(at(r.w_hat, i, c) - (double)x, 2);
            }
            assert_true(loss[i][1] <= loss[i][0] * (1 + 1e-6));
            larger += f32(r.scale, i, 0) > f32(scale, i, 0);
        }
        if (s.scale == BQ_F8_E4M3 && s.grid == BQ_GRID_TORCHAO) assert_true(larger > 5);
        drop(e), drop(scale), drop(zero), close_rows(r);
    }
}

/* With float zero points the fractions of HQQ's zero points stay, and with them its gain. */
static void fractions_stay(void **state) {
    (void)state;
    const bq_quadratic o = {.solve = BQ_SOLVE_ZERO,
                            .iterations = 20,
                            .p = 0.7,
                            .beta = 10,
                            .kappa = 1.01,
                            .early_stop = true,
                            .whole = true};
    double loss[2] = {0};
    for (int k = 0; k < 2; k++) {
        rows r = open_rows(64, 64, schemes[5], 0);
        double sum;
        dev.op->range(&dev, r.w, schemes[5], r.scale, r.zero);
        if (k) dev.op->half_quadratic(&dev, r.w, schemes[5], o, r.scale, r.zero);
        encode(r, schemes[5]);
        dev.op->distance(&dev, r.w, r.w_hat, BQ_DISTANCE_MAE, &sum);
        dev.op->wait(&dev);
        loss[k] = sum;
        close_rows(r);
    }
    assert_true(loss[1] < 0.98 * loss[0]);
}

static uint64_t all_bits(void) {
    uint64_t bits = 0;
    for (int k = 0; k < SCHEMES; k++) {
        const bq_scheme s = schemes[k];
        rows r = open_rows(23, 72, s, 1);
        bq_mat weight = make(1, 72, 0, BQ_F32);
        dev.op->set(&dev, weight, 0.5f);
        dev.op->fit(&dev, r.w, weight, s, r.scale, r.zero);
        encode(r, s);
        bits = bits_of(bits_of(bits, r.scale), r.w_hat);
        dev.op->range_mse(&dev, r.w, s, (bq_shrink){100, 40, BQ_NORM_24, 60}, r.scale, r.zero);
        encode(r, s);
        bits = bits_of(bits_of(bits, r.scale), r.w_hat);
        bq_mat fold = run_gptq(r, s, 0.1f, true);
        bits = bits_of(bits, fold);
        drop(fold), drop(weight), close_rows(r);
    }
    return bits;
}

int main(void) {
    dev = cpu_with(2, 1 << 24);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_and_values), cmocka_unit_test(fake_is_stored),
        cmocka_unit_test(gptq_keeps_codes), cmocka_unit_test(search_grows),
        cmocka_unit_test(fractions_stay),   SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
