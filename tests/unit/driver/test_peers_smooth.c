/* SPDX-License-Identifier: Apache-2.0 */
/* SmoothQuant, Auto-SmoothQuant and AWQ against llm-compressor and AMD Quark on a tiny Llama with loud
 * channels: statistics, losses, choices, scales, final weights. */
#include "golden.h"

static void smoothquant(void **state) {
    (void)state;
    golden_report r = golden_check("peer_smoothquant", NULL);
    assert_int_equal(golden_compared(&r, "unfolded blocks"), 3 * 2);
    assert_true(golden_compared(&r, "final weights") > 0);
    assert_int_equal(r.left, 0);
}

static void autosmooth(void **state) {
    (void)state;
    golden_report r = golden_check("peer_autosmooth", NULL);
    assert_int_equal(golden_compared(&r, "choices"), 4 * 2 * 4);
    assert_true(golden_compared(&r, "final weights") > 0);
    assert_int_equal(r.left, 1);
}

static void awq(void **state) {
    (void)state;
    golden_report r = golden_check("peer_awq", NULL);
    assert_int_equal(golden_compared(&r, "choices"), (3 + 3 + 4) * 2);
    assert_int_equal(golden_compared(&r, "unlike zero points of a linear"), 7 * 2);
    assert_true(golden_compared(&r, "final weights") > 0);
    assert_int_equal(r.left, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(smoothquant), cmocka_unit_test(autosmooth),
                                       cmocka_unit_test(awq)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
