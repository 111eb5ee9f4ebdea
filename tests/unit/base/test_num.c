/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include "base/num.h"

#include <float.h>
#include <math.h>

static float after(float x, float to) { return nextafterf(x, to); }

static void bf16_there_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float x = bq_from_bf16((uint16_t)h);
        assert_true(bq_bits(x) == h << 16);
        if (isnan(x))
            assert_true(isnan(bq_from_bf16(bq_to_bf16(x))));
        else
            assert_int_equal(bq_to_bf16(x), h);
    }
}

/* Between two neighbours the middle goes to the even one, and the numbers next to the middle to the nearer
 * one. Beyond the largest number the middle to the next power of two is the border of infinity. */
static void bf16_ties(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7f80; h++) {
        float middle = bq_float(h << 16 | 0x8000u);
        uint32_t even = h & 1u ? h + 1 : h;
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float s = sign ? -1.0f : 1.0f;
            assert_int_equal(bq_to_bf16(s * middle), even | sign);
            assert_int_equal(bq_to_bf16(s * after(middle, 0)), h | sign);
            assert_int_equal(bq_to_bf16(s * after(middle, INFINITY)), (h + 1) | sign);
        }
    }
    assert_int_equal(bq_to_bf16(FLT_MAX), 0x7f80);
    assert_int_equal(bq_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(bq_from_bf16(bq_to_bf16(bq_float(0x7f800001u))))); /* a NaN whose payload is cut off */
    assert_true(isnan(bq_from_bf16(bq_to_bf16(bq_float(0xffffffffu)))));
}

static void f16_there_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t pattern = (uint16_t)h;
        _Float16 truth; /* the compiler's own */
        memcpy(&truth, &pattern, 2);
        float x = bq_from_f16(pattern);
        if (isnan(x)) {
            assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0);
            assert_true(isnan(bq_from_f16(bq_to_f16(x))));
        } else {
            assert_true(bq_bits(x) == bq_bits((float)truth));
            assert_int_equal(bq_to_f16(x), h);
        }
    }
}

static void f16_ties(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float above = h == 0x7bff ? 65536.0f : bq_from_f16((uint16_t)(h + 1));
        float middle = (bq_from_f16((uint16_t)h) + above) / 2; /* exact: 12 bits */
        uint32_t even = h & 1u ? h + 1 : h;
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float s = sign ? -1.0f : 1.0f;
            assert_int_equal(bq_to_f16(s * middle), even | sign);
            assert_int_equal(bq_to_f16(s * after(middle, 0)), h | sign);
            assert_int_equal(bq_to_f16(s * after(middle, INFINITY)), (h + 1) | sign);
        }
    }
    assert_int_equal(bq_to_f16(FLT_MAX), 0x7c00);
    assert_int_equal(bq_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(bq_to_f16(FLT_TRUE_MIN), 0);
    assert_true(isnan(bq_from_f16(bq_to_f16(bq_float(0x7f800001u)))));
}

static void f16_of_any_float(void **state) {
    (void)state;
    for (uint64_t u = 0; u <= 0xffffffffu; u += 1021) {
        float x = bq_float((uint32_t)u);
        _Float16 truth = (_Float16)x;
        uint16_t want;
        memcpy(&want, &truth, 2);
        if (!isnan(x)) assert_true(bq_to_f16(x) == want);
    }
}

/* Error in units of the last place of the true value. */
static double exp_error(float x) {
    double truth = exp((double)x);
    return fabs((double)bq_exp(x) - truth) / ldexp(1, ilogb(truth) - 23);
}

static void exp_within_two_ulp(void **state) {
    (void)state;
    double worst = 0;
    for (double x = -87.33; x <= 88; x += 4.7e-5) worst = fmax(worst, exp_error((float)x));
    for (uint32_t u = 0; u < 0x42b00000u; u += 997) /* all magnitudes up to 88 */
        worst = fmax(worst, fmax(exp_error(bq_float(u)), u < 0x42aea000u ? exp_error(-bq_float(u)) : 0));
    print_message("largest error of bq_exp: %.3f ulp\n", worst);
    assert_true(worst <= 2);
}

static void exp_at_its_ends(void **state) {
    (void)state;
    assert_true(bq_exp(0) == 1 && bq_exp(-0.0f) == 1);
    assert_true(bq_exp(-87.33f) > 0 && exp_error(-87.33f) <= 2);
    assert_true(bq_exp(after(-87.33f, -100)) == 0 && bq_exp(-1e30f) == 0 && bq_exp(-INFINITY) == 0);
    assert_true(isfinite(bq_exp(88)) && bq_exp(after(88, 100)) == bq_exp(88));
    assert_true(bq_exp(1e30f) == bq_exp(88) && bq_exp(INFINITY) == bq_exp(88));
    assert_true(isnan(bq_exp(NAN)));
}

static void exp_rises(void **state) {
    (void)state;
    /* s2 and the log scales move in small steps: between neighbours the value may stall, not fall by more
     * than an ulp */
    float before = bq_exp(-1);
    for (float x = -1; x < 1; x += 0x1p-20f) {
        float now = bq_exp(x);
        assert_true(now >= before * (1 - 0x1p-23f));
        before = now;
    }
}

static void tanh_within_two_ulp(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t u = 0x00800000u; u < 0x42800000u; u += 997) { /* all magnitudes up to 64 */
        double truth = tanh((double)bq_float(u)),
               error = fabs((double)bq_tanh(bq_float(u)) - truth) / ldexp(1, ilogb(truth) - 23);
        worst = fmax(worst, error);
        assert_true(bq_tanh(-bq_float(u)) == -bq_tanh(bq_float(u)));
    }
    print_message("largest error of bq_tanh: %.3f ulp\n", worst);
    assert_true(worst <= 2);
    assert_true(bq_tanh(0) == 0 && bq_tanh(INFINITY) == 1 && bq_tanh(-1e30f) == -1 && isnan(bq_tanh(NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_there_and_back), cmocka_unit_test(bf16_ties),
        cmocka_unit_test(f16_there_and_back),  cmocka_unit_test(f16_ties),
        cmocka_unit_test(f16_of_any_float),    cmocka_unit_test(exp_within_two_ulp),
        cmocka_unit_test(exp_at_its_ends),     cmocka_unit_test(exp_rises),
        cmocka_unit_test(tanh_within_two_ulp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
