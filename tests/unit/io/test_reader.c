/* SPDX-License-Identifier: Apache-2.0 */
/* Reading ahead: every sample once and in order, whatever the depth; damage and an early end. */
#include "io/state/reader.h"
#include "unit/io/temp.h"

#include <unistd.h>

enum { SAMPLES = 23, VALUES = 70 };

static bq_acts *file_of(const char *name, int64_t missing) {
    bq_acts *a;
    float data[VALUES];
    bq_acts_create(&a, temp_path(name), SAMPLES, 7, 10, 5);
    for (int64_t s = 0; s < SAMPLES; s++) {
        for (int i = 0; i < VALUES; i++) data[i] = (float)(s * 100 + i);
        if (s != missing) bq_acts_write(a, s, data);
    }
    return a;
}

static void in_order(void **state) {
    (void)state;
    bq_acts *a = file_of("a.h5", -1);
    for (int depth = 2; depth <= 30; depth += depth < 5 ? 1 : 25) {
        bq_reader *r = bq_reader_open(a, VALUES, 3, 19, depth);
        for (int64_t s = 3; s < 22; s++) {
            if (s % 5 == 0) usleep(2000); /* now the reader is ahead, now the caller */
            const float *x = bq_reader_next(r);
            assert_non_null(x);
            for (int i = 0; i < VALUES; i++) assert_true(x[i] == (float)(s * 100 + i));
        }
        assert_true(bq_reader_wait(r, 0)); /* at the end nothing is waited for */
        assert_null(bq_reader_next(r));
        assert_true(bq_reader_stalled(r) >= 0);
        bq_reader_close(r);
    }
    bq_acts_close(a);
}

static void damage_and_an_early_end(void **state) {
    (void)state;
    bq_acts *a = file_of("b.h5", 4);
    bq_reader *r = bq_reader_open(a, VALUES, 0, SAMPLES, 3);
    for (int s = 0; s < 4; s++) assert_non_null(bq_reader_next(r));
    assert_null(bq_reader_next(r));
    assert_null(bq_reader_next(r));
    bq_reader_close(r);
    for (int taken = 0; taken < 3; taken++) {
        r = bq_reader_open(a, VALUES, 5, 18, 4);
        for (int s = 0; s < taken; s++) assert_non_null(bq_reader_next(r));
        bq_reader_close(r); /* the thread is in the midst of it, or waits for room */
    }
    bq_reader_close(NULL);
    r = bq_reader_open(a, VALUES, 0, 0, 2);
    assert_null(bq_reader_next(r));
    bq_reader_close(r);
    bq_acts_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_order), cmocka_unit_test(damage_and_an_early_end)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
