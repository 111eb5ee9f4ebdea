/* SPDX-License-Identifier: Apache-2.0 */
/* Weight schemes against torchao and hqq (tests/vectors/README.md). */
#include "golden.h"

static void now(void **state) {
    (void)state;
    golden_report r = golden_check("peer_torchao", NULL);
    assert_int_equal(golden_compared(&r, "iterations"), 11);
    assert_int_equal(golden_compared(&r, "codes"), 198796);
    assert_int_equal(r.left, 19);
}

static void before(void **state) {
    (void)state;
    golden_report r = golden_check("peer_torchao_old", NULL);
    assert_int_equal(golden_compared(&r, "codes"), 10 * 16 * 128);
    assert_int_equal(r.left, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(now), cmocka_unit_test(before)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
