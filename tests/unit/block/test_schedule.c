/* SPDX-License-Identifier: Apache-2.0 */
/* How long AdaScale trains, and with which rates: plateaus, and what follows them. */
#include "block/passes/train.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void plateau_rule(void **state) {
    (void)state;
    bq_train_options o = {.early_stop = true, .check_interval = 200, .window = 500, .threshold = 1e-2};
    static double flat[2000], falling[2000];
    for (int i = 0; i < 2000; i++) flat[i] = 5, falling[i] = 5.0 * exp(-i / 300.0);
    double previous = NAN;
    int stop = 0;
    for (int t = 1; t <= 2000 && !stop; t++)
        if (bq_train_plateau(&o, flat, t, &previous)) stop = t;
    assert_int_equal(stop, 600); /* the earliest: 400 still has no more losses than the window */
    previous = NAN;
    for (int t = 1; t <= 2000; t++) assert_false(bq_train_plateau(&o, falling, t, &previous));
    o.early_stop = false, previous = NAN;
    for (int t = 1; t <= 2000; t++) assert_false(bq_train_plateau(&o, flat, t, &previous));
}

static void rates_fall_after_a_plateau(void **state) {
    (void)state;
    bq_train_options o = {.iterations = 1000, .early_stop = true};
    assert_int_equal(bq_train_end(&o, 0), 1000);
    assert_true(bq_train_phase(&o, 0, 250) == 0.25);
    assert_int_equal(bq_train_end(&o, 600), 600); /* AIMET: at once */
    o.anneal = 0.25;
    assert_int_equal(bq_train_end(&o, 401), 502);  /* whole steps, rounded up */
    assert_int_equal(bq_train_end(&o, 900), 1000); /* never longer than planned */
    assert_int_equal(bq_train_end(&o, 0), 1000);
    assert_true(bq_train_phase(&o, 400, 400) == 0.4); /* from where they were */
    assert_true(fabs(bq_train_phase(&o, 400, 450) - 0.7) < 1e-15);
    assert_true(bq_train_phase(&o, 400, 499) < 1 && bq_train_phase(&o, 400, 500) == 1);
    o.anneal = 1; /* what the plan would have been anyway */
    for (int64_t t = 500; t < 1000; t++)
        assert_true(fabs(bq_train_phase(&o, 500, t) - (double)t / 1000) < 1e-15);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plateau_rule),
                                       cmocka_unit_test(rates_fall_after_a_plateau)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
