/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs of a linear rounded a token at a time, against compressed-tensors itself: every bit. */
#include "golden.h"

static void as_compressed_tensors_does(void **state) {
    (void)state;
    golden_report r = golden_check("peer_inputs", NULL);
    assert_int_equal(golden_compared(&r, "rounded inputs"), 2 * 9 * 67);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_compressed_tensors_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
