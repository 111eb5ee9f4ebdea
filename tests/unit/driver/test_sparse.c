/* SPDX-License-Identifier: Apache-2.0 */
/* 2:4 masks against torchao itself: every weight. */
#include "golden.h"

static void as_torchao_does(void **state) {
    (void)state;
    golden_report r = golden_check("peer_sparse", NULL);
    assert_int_equal(golden_compared(&r, "weights behind masks"), 2 * 33 * 132);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_torchao_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
