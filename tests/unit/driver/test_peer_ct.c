/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized checkpoints against compressed-tensors and auto-round (tests/vectors/README.md). */
#include "golden.h"

static void floats(void **state) {
    (void)state;
    golden_report r = golden_check("peer_ct_float", NULL);
    assert_int_equal(golden_compared(&r, "values that differ"),
                     5 * 20 * 64 - 20 * 64 + 40 * 96 + 9 * 20 * 96);
}

static void packed(void **state) {
    (void)state;
    golden_report r = golden_check("peer_pack", NULL);
    assert_int_equal(r.left, 0);
    assert_int_equal(golden_compared(&r, "values that differ"),
                     8 * 64 * 96 + 4 * 16 * 64 + 6 * (16 * 64 + 5 * 40) / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(floats), cmocka_unit_test(packed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
