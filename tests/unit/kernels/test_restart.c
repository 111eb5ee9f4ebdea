/* SPDX-License-Identifier: Apache-2.0 */
#include "../base/child.h"

#include "kernels/restart.h"

#include <string.h>

static void core_as_wide_as_the_processor(void **state) {
    (void)state;
    const char *const cores[] = {"Prescott", "Sandybridge", "Haswell", "Zen",
                                 "SkylakeX", "Cooperlake",  "haswell", ""};
    const char *const on_avx512[] = {"SkylakeX", "SkylakeX", "SkylakeX", "SkylakeX",
                                     NULL,       NULL,       "SkylakeX", "SkylakeX"};
    const char *const on_avx2[] = {"Haswell", "Haswell", NULL, NULL, NULL, NULL, NULL, "Haswell"};
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++) {
        const char *wide = bq_restart_core(cores[i], 2), *narrow = bq_restart_core(cores[i], 1);
        assert_true(on_avx512[i] ? wide && strcmp(wide, on_avx512[i]) == 0 : !wide);
        assert_true(on_avx2[i] ? narrow && strcmp(narrow, on_avx2[i]) == 0 : !narrow);
        assert_null(bq_restart_core(cores[i], 0));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(core_as_wide_as_the_processor)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
