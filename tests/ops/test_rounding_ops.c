/* SPDX-License-Identifier: Apache-2.0 */
/* round_rows, ends, grid_of_ends and histogram: by hand in float, operation by operation. */
#include "same_bits.h"

#include <float.h>
#include <math.h>

static bq_dev dev;

enum {
    INT8_ASYM,
    INT8_TORCHAO,
    INT8_ASYM_TORCHAO,
    INT8_NARROW,
    INT4_NARROW,
    INT16_ASYM,
    FP8,
    MXFP8,
    NVFP4,
    MXFP8_TORCHAO,
    MXFP4_RCEIL,
    MXFP6_FLOOR,
    MXFP6_CEIL,
    NVFP4_TORCHAO,
    GROUPS,
    KINDS
};
static const bq_rounding kinds[KINDS] = {
    [INT8_ASYM] = {BQ_INT8, false, false, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
    [INT8_TORCHAO] = {BQ_INT8, true, false, BQ_ROUND_RECIPROCAL, -1, BQ_F32, FLT_EPSILON},
    [INT8_ASYM_TORCHAO] = {BQ_INT8, false, false, BQ_ROUND_RECIPROCAL, -1, BQ_F32, FLT_MIN},
    [INT8_NARROW] = {BQ_INT8, true, false, BQ_ROUND_NARROW, -1, BQ_F32, 1e-5f},
    [INT4_NARROW] = {BQ_INT4, true, false, BQ_ROUND_NARROW, 16, BQ_F32, 1e-5f},
    [INT16_ASYM] = {BQ_INT16, false, false, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
    [FP8] = {BQ_E4M3, true, false, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
    [MXFP8] = {BQ_E4M3, true, false, BQ_ROUND_DIVIDE, 32, BQ_F8_E8M0, 0},
    [NVFP4] = {BQ_E2M1, true, false, BQ_ROUND_DIVIDE, 16, BQ_F8_E4M3, 0},
    [MXFP8_TORCHAO] = {BQ_E4M3, true, false, BQ_ROUND_RECIPROCAL, 32, BQ_F8_E8M0, 0, BQ_POWER_EVEN},
    [MXFP4_RCEIL] = {BQ_E2M1, true, false, BQ_ROUND_RECIPROCAL, 32, BQ_F8_E8M0, 0, BQ_POWER_RCEIL},
    [MXFP6_FLOOR] = {BQ_E2M3, true, false, BQ_ROUND_DIVIDE, 32, BQ_F8_E8M0, 0, BQ_POWER_FLOOR},
    [MXFP6_CEIL] = {BQ_E3M2, true, false, BQ_ROUND_DIVIDE, 32, BQ_F8_E8M0, 0, BQ_POWER_CEIL},
    [NVFP4_TORCHAO] = {BQ_E2M1, true, false, BQ_ROUND_RECIPROCAL, 16, BQ_F8_E4M3, 0},
    [GROUPS] = {BQ_INT8, true, false, BQ_ROUND_DIVIDE, 8, BQ_F32, 0}};

/* The ends of group g of row r, or of all rows. */
static void ends_oracle(bq_mat x, int64_t r, int64_t g, int64_t group, float *lo, float *hi) {
    int64_t first = group > 0 ? g * group : 0,
            end = group > 0 && first + group < x.cols ? first + group : x.cols;
    *lo = *hi = 0;
    for (int64_t i = r < 0 ? 0 : r; i < (r < 0 ? x.rows : r + 1); i++)
        for (int64_t c = first; c < end; c++) *lo = fminf(*lo, f32(x, i, c)), *hi = fmaxf(*hi, f32(x, i, c));
}

/* Of integers: scale and zero, and x on that grid. */
static void grid_oracle(bq_rounding k, float lo, float hi, float *scale, float *zero) {
    float high = k.element == BQ_INT16 ? 32767 : (float)((1 << (k.element - 1)) - 1),
          low = k.rule == BQ_ROUND_NARROW ? -high : -high - 1;
    *zero = 0;
    *scale = k.even ? fmaxf(-lo, hi) / ((high - low) / 2) : (hi - lo) / (high - low);
    if (k.least > 0) *scale = fmaxf(*scale, k.least);
    if (*scale == 0) *scale = FLT_EPSILON;
    if (k.even) return;
    *zero = k.rule == BQ_ROUND_DIVIDE ? rintf(fminf(fmaxf(low - lo / *scale, low), high))
                                      : fminf(fmaxf(low - rintf(lo / *scale), low), high);
}

static float on_oracle(bq_rounding k, float x, float scale, float zero) {
    float high = k.element == BQ_INT16 ? 32767 : (float)((1 << (k.element - 1)) - 1),
          low = k.rule == BQ_ROUND_NARROW ? -high : -high - 1;
    float q = k.rule == BQ_ROUND_DIVIDE ? rintf(x / scale + zero) : rintf(x * (1.0f / scale)) + zero;
    return (fminf(fmaxf(q, low), high) - zero) * scale;
}

static void check_own(bq_rounding k, int64_t rows, int64_t cols, int64_t pad) {
    bq_mat x = make_filled(rows, cols, pad, 3, 2), y = make(rows, cols, pad + 1, BQ_F32), same = clone(x);
    for (int64_t r = 0; r < rows && cols; r++) *ptr(x, r, 0) = *ptr(same, r, 0) = r % 2 ? 9.5f : -0.25f;
    dev.op->round_rows(&dev, x, k, (bq_mat){0}, y);
    dev.op->round_rows(&dev, same, k, (bq_mat){0}, same);
    dev.op->wait(&dev);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            float lo, hi, scale, zero;
            ends_oracle(x, r, k.group > 0 ? c / k.group : 0, k.group, &lo, &hi);
            grid_oracle(k, lo, hi, &scale, &zero);
            assert_true(f32(y, r, c) == on_oracle(k, f32(x, r, c), scale, zero));
            assert_true(f32(same, r, c) == f32(y, r, c));
        }
    assert_true(intact(x) && intact(y) && intact(same));
    drop(x), drop(y), drop(same);
}

static void integers_of_tokens_and_groups(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int k = 0; k < KINDS; k++)
                if (bq_rounding_whole(kinds[k])) check_own(kinds[k], few_rows[i], odd_sizes[j], (i + j) % 4);
    check_own(kinds[INT8_ASYM], 0, 33, 0);
    check_own(kinds[GROUPS], 3, 0, 1);
}

/* Groups of a row are as short rows of weights with scales of that type. */
static void floats_are_as_weights(void **state) {
    (void)state;
    for (int k = FP8; k <= NVFP4_TORCHAO; k++) {
        bq_rounding r = kinds[k];
        bq_mat x = make_filled(5, 96, 0, 4, 3), y = make(5, 96, 0, BQ_F32), ends = make(1, 2, 0, BQ_F32);
        int64_t groups = bq_rounding_groups(r, 96), group = 96 / groups;
        dev.op->zero(&dev, ends);
        dev.op->ends(&dev, x, -1, ends);
        dev.op->grid_of_ends(&dev, ends, r, ends);
        bq_scheme s = {r.element, -1, true, r.scale, BQ_GRID_ABSMAX, 1, 0, .power = r.power};
        if (r.scale == BQ_F8_E4M3) s.outer = f32(ends, 0, 0);
        if (r.rule == BQ_ROUND_RECIPROCAL) s.grid = BQ_GRID_TORCHAO;
        bq_mat rows = bq_mat_reshape(x, group), scale = make(rows.rows, 1, 0, BQ_F32),
               code = make(rows.rows, group, 0, BQ_I8), back = make(rows.rows, group, 0, BQ_F32);
        dev.op->round_rows(&dev, x, r, ends, y);
        dev.op->range(&dev, rows, s, scale, (bq_mat){0});
        dev.op->quantize(&dev, rows, scale, (bq_mat){0}, s, code);
        dev.op->dequantize(&dev, code, scale, (bq_mat){0}, s, back);
        dev.op->wait(&dev);
        assert_true(same(bq_mat_reshape(y, group), back));
        drop(x), drop(y), drop(ends), drop(scale), drop(code), drop(back);
    }
}

static void given_grids_are_for_all_rows(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        bq_rounding r = kinds[k];
        if (!bq_rounding_whole(r)) continue;
        r.whole = true;
        bq_mat x = make_filled(17, 131, 3, 5, 2), y = make(17, 131, 1, BQ_F32);
        int64_t groups = bq_rounding_groups(r, 131);
        bq_mat ends = make(groups, 2, 1, BQ_F32), grid = make(groups, 2, 0, BQ_F32);
        dev.op->zero(&dev, ends);
        dev.op->ends(&dev, bq_mat_rows(x, 0, 5), r.group, ends);
        dev.op->ends(&dev, bq_mat_rows(x, 5, 12), r.group, ends);
        dev.op->grid_of_ends(&dev, ends, r, grid);
        dev.op->round_rows(&dev, x, r, grid, y);
        dev.op->wait(&dev);
        for (int64_t c = 0; c < 131; c++) {
            int64_t g = r.group > 0 ? c / r.group : 0;
            float lo, hi, scale, zero;
            ends_oracle(x, -1, g, r.group, &lo, &hi);
            assert_true(f32(ends, g, 0) == lo && f32(ends, g, 1) == hi);
            grid_oracle(r, lo, hi, &scale, &zero);
            assert_true(f32(grid, g, 0) == scale && f32(grid, g, 1) == zero);
            for (int64_t i = 0; i < 17; i++)
                assert_true(f32(y, i, c) == on_oracle(r, f32(x, i, c), scale, zero));
        }
        *ptr(grid, 0, 0) = 0; /* no grid: as they are */
        dev.op->round_rows(&dev, x, r, grid, x);
        dev.op->wait(&dev);
        assert_true(intact(x) && intact(y) && intact(ends) && intact(grid));
        drop(x), drop(y), drop(ends), drop(grid);
    }
}

static void special_values(void **state) {
    (void)state;
    float x[3][4] = {{0, -0.0f, 0, 0}, {1, 2, 3, 255}, {NAN, 1, -1, INFINITY}}, y[3][4];
    bq_mat from = bq_mat_host(x, 3, 4, BQ_F32), to = bq_mat_host(y, 3, 4, BQ_F32);
    for (int k = INT8_ASYM; k <= GROUPS; k++) {
        if (bq_rounding_given(kinds[k])) continue;
        dev.op->round_rows(&dev, bq_mat_rows(from, 0, 2), kinds[k], (bq_mat){0}, bq_mat_rows(to, 0, 2));
        dev.op->wait(&dev);
        for (int c = 0; c < 4; c++) assert_true(y[0][c] == 0);
    }
    /* all codes serve a row of one sign */
    dev.op->round_rows(&dev, from, kinds[INT8_ASYM], (bq_mat){0}, to);
    dev.op->wait(&dev);
    for (int c = 0; c < 4; c++) assert_true(y[1][c] == x[1][c]);
    assert_true(isnan(y[2][0]));
}

static void bins_are_numbers_of_bf16(void **state) {
    (void)state;
    bq_mat x = make_filled(7, 33, 2, 6, 3), count = make(1, BQ_BINS, 0, BQ_I32);
    int32_t *n = count.data;
    *ptr(x, 1, 1) = -0.0f;
    dev.op->zero(&dev, count);
    dev.op->histogram(&dev, x, count);
    dev.op->histogram(&dev, bq_mat_rows(x, 1, 2), count);
    dev.op->wait(&dev);
    for (int64_t r = 0; r < 7; r++)
        for (int64_t c = 0; c < 33; c++) n[bq_bits(f32(x, r, c)) >> 16] -= r == 1 || r == 2 ? 2 : 1;
    for (int b = 0; b < BQ_BINS; b++) assert_int_equal(n[b], 0);
    drop(x), drop(count);
}

static uint64_t all_bits(void) {
    uint64_t bits = 1;
    bq_mat x = make_filled(300, 257, 3, 4, 0.3f), y = clone(x), ends = make(40, 2, 0, BQ_F32);
    bq_mat count = make(1, BQ_BINS, 0, BQ_I32);
    for (int k = 0; k < KINDS; k++) {
        bq_mat of = bq_mat_rows(ends, 0, bq_rounding_given(kinds[k]) ? 1 : bq_rounding_groups(kinds[k], 257));
        dev.op->zero(&dev, ends);
        dev.op->ends(&dev, x, bq_rounding_given(kinds[k]) ? -1 : kinds[k].group, of);
        dev.op->grid_of_ends(&dev, of, kinds[k], of);
        dev.op->round_rows(&dev, x, kinds[k], of, y);
        bits = bits_of(bits_of(bits, ends), y);
    }
    dev.op->zero(&dev, count);
    dev.op->histogram(&dev, x, count);
    bits = bits_of(bits, count);
    drop(x), drop(y), drop(ends), drop(count);
    return bits;
}

int main(void) {
    dev = cpu_with(2, 1 << 20);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_tokens_and_groups), cmocka_unit_test(floats_are_as_weights),
        cmocka_unit_test(given_grids_are_for_all_rows),  cmocka_unit_test(special_values),
        cmocka_unit_test(bins_are_numbers_of_bf16),      SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
