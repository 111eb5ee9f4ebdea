/* SPDX-License-Identifier: Apache-2.0 */
/* What measuring rates takes: the product of the model's shape where it is small, never more than may be
 * taken. */
#include "driver/plan/machine.h"
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static bq_arch arch_of(int64_t hidden, int64_t inter) {
    return rig_arch((rig_model){bq_family_find("llama"), hidden, inter, .heads = 4, .kv_heads = 2,
                                .vocab = 97, .blocks = 1});
}

static void bounded(void **state) {
    (void)state;
    static const int64_t side[] = {64, 4096, 16384, (int64_t)1 << 24};
    static const size_t most[] = {1 << 20, 64 << 20, (size_t)1 << 30};
    for (size_t h = 0; h < 4; h++)
        for (size_t i = 0; i < 4; i++)
            for (size_t k = 0; k < 3; k++) {
                bq_arch arch = arch_of(side[h], side[i]);
                size_t need = bq_machine_need(&arch, 2048, most[k]);
                assert_true(need <= most[k]);
                assert_int_equal(bq_machine_need(&arch, 2048, need), need);
                assert_true(side[h] < 4096 || side[i] < 4096 || need >= most[k] / 5);
            }
}

/* All of it where it fits, and something where nothing may be taken. */
static void ends(void **state) {
    (void)state;
    bq_arch arch = arch_of(64, 128);
    size_t all = bq_machine_need(&arch, 24, 64 << 20);
    assert_int_equal(bq_machine_need(&arch, 24, (size_t)1 << 40), all);
    assert_true(bq_machine_need(&arch, 24, 0) > 0 && bq_machine_need(&arch, 24, 0) < all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bounded), cmocka_unit_test(ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
