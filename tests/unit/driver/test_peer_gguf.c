/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF files against the Python package gguf (tests/vectors/README.md). */
#include "golden.h"

static void gguf(void **state) {
    (void)state;
    golden_report r = golden_check("peer_gguf", NULL);
    assert_int_equal(golden_compared(&r, "values that differ"), 20076);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gguf)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
