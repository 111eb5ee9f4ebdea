/* SPDX-License-Identifier: Apache-2.0 */
/* llm-compressor's quantize_weight on three small layers, code by code. */
#include "golden.h"

static void equals_llm_compressor(void **state) {
    (void)state;
    golden_report r = golden_check("peer_gptq", NULL);
    assert_int_equal(golden_compared(&r, "H"), 2);
    assert_int_equal(golden_compared(&r, "unlike rows of a case"), 3 * 7);
    assert_int_equal(r.left, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_llm_compressor)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
