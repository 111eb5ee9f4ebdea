/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs of linears, keys and values against torchao itself: every bit. */
#include "golden.h"

static void as_torchao_does(void **state) {
    (void)state;
    golden_report r = golden_check("peer_rounding", NULL);
    assert_int_equal(golden_compared(&r, "rounded inputs"), (7 + 7 + 6 + 7) * 128);
    assert_int_equal(golden_compared(&r, "outputs"), 4);
    assert_int_equal(golden_compared(&r, "keys and values"), 2 * 8 * 16);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_torchao_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
