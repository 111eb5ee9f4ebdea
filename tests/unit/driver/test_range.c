/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of static grids from histograms: against a search over the values themselves. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/rng.h"
#include "driver/score/range.h"

enum { COUNT = 1 << 16 };
static float value[COUNT];
static int64_t count[BQ_BINS];

/* Sums of uniform numbers, and few that are far away. */
static void make(float shift) {
    bq_rng_key key = {.seed = 3};
    for (int i = 0; i < COUNT; i++) {
        uint32_t word[4];
        bq_philox(key, (uint32_t)i, word);
        double sum = 0;
        for (int k = 0; k < 4; k++) sum += word[k] * 0x1p-32 - 0.5;
        value[i] = (float)(i % 4096 ? sum : 12 * sum) + shift;
    }
    for (int b = 0; b < BQ_BINS; b++) count[b] = 0;
    for (int i = 0; i < COUNT; i++) count[bq_bin_of(value[i])]++;
}

static void ends(float *lo, float *hi) {
    *lo = *hi = 0;
    for (int i = 0; i < COUNT; i++) *lo = fminf(*lo, value[i]), *hi = fmaxf(*hi, value[i]);
}

static double error_of(bq_rounding r, float lo, float hi) {
    bq_value_grid g = bq_value_grid_fit(lo, hi, r, 0);
    double sum = 0;
    for (int i = 0; i < COUNT; i++) {
        double d = (double)bq_value_on(value[i], g) - (double)value[i];
        sum += d * d;
    }
    return sum;
}

static void mse_is_near_the_best(void **state) {
    (void)state;
    static const bq_rounding how[] = {{BQ_INT4, true, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
                                      {BQ_INT8, false, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
                                      {BQ_INT16, false, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
                                      {BQ_E4M3, true, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0}};
    for (int i = 0; i < 8; i++) {
        bq_rounding r = how[i % 4];
        bq_activations a = {.range = BQ_RANGE_MSE};
        float lo, hi, from, to;
        make(i < 4 ? 0 : 0.7f);
        ends(&lo, &hi), from = lo, to = hi;
        bq_range_narrow(count, &a, r, &lo, &hi);
        assert_true(lo >= from && hi <= to && hi > 0);
        double best = INFINITY;
        for (int k = 0; k < 80; k++) {
            float part = (float)(100 - k) / 100;
            best = fmin(best, error_of(r, from * part, to * part));
        }
        assert_true(error_of(r, lo, hi) <= 1.03 * best);
    }
}

static void percentile_leaves_few_out(void **state) {
    (void)state;
    static const bq_rounding r = {BQ_INT8, false, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0};
    static const double percent[] = {100, 99.9, 99, 90, 50};
    for (int i = 0; i < 10; i++) {
        bq_activations a = {.range = BQ_RANGE_PERCENTILE, .percentile = percent[i % 5]};
        float lo, hi, from, to;
        make(i < 5 ? 0 : 5);
        ends(&lo, &hi), from = lo, to = hi;
        bq_range_narrow(count, &a, r, &lo, &hi);
        assert_true(lo >= from && hi <= to && lo <= 0);
        int64_t below = 0, above = 0, part = (int64_t)(COUNT * (100 - percent[i % 5]) / 200);
        for (int k = 0; k < COUNT; k++) below += value[k]<lo, above += value[k]> hi;
        assert_true(below <= part && above <= part);
        if (i % 5 == 0) assert_true(lo == from && hi == to);
        if (i % 5 == 3) assert_true(hi < to && above > part / 2);
    }
    bq_activations a = {.range = BQ_RANGE_MINMAX};
    float lo = -1, hi = 2;
    bq_range_narrow(count, &a, r, &lo, &hi);
    assert_true(lo == -1 && hi == 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(mse_is_near_the_best),
                                       cmocka_unit_test(percentile_leaves_few_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
