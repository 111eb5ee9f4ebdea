/* SPDX-License-Identifier: Apache-2.0 */
/* Two complete AdaScale runs of AIMET, number by number, through the code of `blockq run`. */
#include "golden.h"

static bq_comm comm;

static void check(void **state) {
    golden_report r = golden_check(*state, &comm);
    assert_int_equal(golden_compared(&r, "losses"), 48);
    assert_int_equal(golden_compared(&r, "codes that differ"), 46080);
    assert_int_equal(golden_compared(&r, "folded"), 46080);
    assert_int_equal(golden_compared(&r, "trained"), 50240);
    assert_int_equal(golden_compared(&r, "scales"), 832);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(check, "aimet_tiny_qt0"),
                                       cmocka_unit_test_prestate(check, "aimet_tiny_qt1")};
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    if (bq_comm_open(&comm, NULL, NULL)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_comm_close(&comm);
    return failed;
}
