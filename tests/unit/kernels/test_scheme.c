/* The bits that a scheme takes. */
#include "kernels/grid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static int64_t bits(int element, int64_t group, bool symmetric, bq_type scale, int64_t cols) {
    const bq_scheme s = {element, group, symmetric, scale, BQ_GRID_AIMET};
    return bq_scheme_row_bits(s, cols);
}

static void rows(void **state) {
    (void)state;
    assert_int_equal(bits(BQ_INT4, 64, true, BQ_F16, 128), 4 * 128 + 2 * 16);
    assert_int_equal(bits(BQ_INT4, 64, true, BQ_BF16, 128), 4 * 128 + 2 * 16);
    assert_int_equal(bits(BQ_INT4, 64, true, BQ_F32, 128), 4 * 128 + 2 * 32);
    assert_int_equal(bits(BQ_INT4, 64, false, BQ_F16, 128), 4 * 128 + 2 * (16 + 4));
    assert_int_equal(bits(BQ_INT3, 32, false, BQ_F32, 96), 3 * 96 + 3 * (32 + 3));
    assert_int_equal(bits(BQ_INT8, -1, true, BQ_F32, 576), 8 * 576 + 32);     /* one scale a row */
    assert_int_equal(bits(BQ_INT2, 64, true, BQ_F16, 100), 2 * 100 + 2 * 16); /* the last group is shorter */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
