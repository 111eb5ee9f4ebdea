/* SPDX-License-Identifier: Apache-2.0 */
/* The bits that a scheme takes. */
#include "kernels/grid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

typedef struct {
    int element;
    int64_t group, tile; /* tile: rows that share a scale */
    bool symmetric;
    bq_type scale;
    int64_t rows, cols, bits;
} problem;

static void matrices(void **state) {
    (void)state;
    static const problem of[] = {{BQ_INT4, 64, 1, true, BQ_F16, 3, 128, 3 * (4 * 128 + 2 * 16)},
                                 {BQ_INT4, 64, 0, true, BQ_BF16, 1, 128, 4 * 128 + 2 * 16},
                                 {BQ_INT4, 64, 1, true, BQ_F32, 1, 128, 4 * 128 + 2 * 32},
                                 {BQ_INT4, 64, 1, false, BQ_F16, 1, 128, 4 * 128 + 2 * (16 + 4)},
                                 {BQ_INT3, 32, 1, false, BQ_F32, 5, 96, 5 * (3 * 96 + 3 * (32 + 3))},
                                 {BQ_INT8, -1, 1, true, BQ_F32, 2, 576, 2 * (8 * 576 + 32)},
                                 {BQ_INT2, 64, 1, true, BQ_F16, 1, 100, 2 * 100 + 2 * 16}, /* a short group */
                                 {BQ_E4M3, 128, 128, true, BQ_F32, 200, 256, 8 * 200 * 256 + 2 * 2 * 32},
                                 {BQ_E4M3, -1, -1, true, BQ_F32, 200, 256, 8 * 200 * 256 + 32},
                                 {BQ_E2M1, 32, 1, true, BQ_F8_E8M0, 7, 64, 7 * (4 * 64 + 2 * 8)},
                                 {BQ_E2M1, 16, 1, true, BQ_F8_E4M3, 7, 64, 7 * (4 * 64 + 4 * 8) + 32}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        const problem *p = &of[i];
        const bq_scheme s = {p->element, p->group, p->symmetric, p->scale, BQ_GRID_AIMET, p->tile, 0};
        assert_int_equal(bq_scheme_bits(s, p->rows, p->cols), p->bits);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matrices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
