/* SPDX-License-Identifier: Apache-2.0 */
/* factor on sizes around the borders of tiles and panels, where its answer is known or hard to get. */
#include "ops_common.h"

#include <math.h>

/* What the emulated cuBLAS has multiplied in double so far: calls, and flop.  Only there. */
extern long simt_products __attribute__((weak));
extern double simt_product_flop __attribute__((weak));

static bq_dev dev;
static const int64_t sizes[] = {1, 63, 64, 65, 128, 129, 511, 513, 1030};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Columns in reverse, or as they stand. */
static int64_t column(int64_t k, bool reversed, int64_t i) { return reversed ? k - 1 - i : i; }

/* h(i, j) = f(|i - j|) in the order of processing, f64. */
static bq_mat toeplitz(int64_t k, bool reversed, double (*f)(double away)) {
    bq_mat h = make(k, k, 1, BQ_F64);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++)
            *(double *)bq_mat_at(h, column(k, reversed, i), column(k, reversed, j)) =
                f(fabs((double)(i - j)));
    return h;
}

#define RHO 0.999 /* so near 1 that all tiles depend on each other */

static double fading(double away) { return pow(RHO, away); }
static double smooth(double away) { return exp(-away * away / 3600); }
static double one(double away) { return away == 0; }

/* The inverse of powers of RHO has three diagonals, and its factor has two. */
static void a_known_factor(void **state) {
    (void)state;
    const double diagonal = 1 / sqrt(1 - RHO * RHO);
    for (int s = 0; s < SIZES; s++) {
        int64_t k = sizes[s];
        bool reversed = s % 2;
        bq_mat h = toeplitz(k, reversed, fading), u = make(k, k, 2, BQ_F32), order = make(k, 1, 0, BQ_I32);
        for (int64_t i = 0; i < k; i++) *(int32_t *)bq_mat_at(order, i, 0) = (int32_t)column(k, reversed, i);
        assert_true(dev.op->factor(&dev, h, order, 1, 0, u));
        double *want = zeros(k * k);
        for (int64_t i = 0; i < k; i++) {
            want[i * k + i] = i < k - 1 ? diagonal : 1;
            if (i < k - 1) want[(i + 1) * k + i] = -RHO * diagonal;
        }
        assert_true(nmse(u, want) < 1e-14 && intact(u) && intact(h));
        drop(h), drop(u), drop(order), free(want);
    }
}

/* Inputs that hardly change from column to column, damped by little: a tile on the diagonal has nearly the
 * condition of the whole.  A backend that multiplies by the inverses of tiles is far from the others. */
static void a_condition_of_ten_digits(void **state) {
    (void)state;
    int64_t k = 449;
    bq_mat h = toeplitz(k, false, smooth), u = make(k, k, 0, BQ_F32);
    assert_true(dev.op->factor(&dev, h, (bq_mat){0}, 1, 3e-9, u));
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) assert_true(isfinite(at(u, i, j)));
    drop(h), drop(u);
}

/* Wherever the bad element is, nothing is written. */
static void bad_elements(void **state) {
    (void)state;
    static const int64_t place[][2] = {{0, 0}, {599, 599}, {64, 64}, {300, 5}, {598, 2}};
    bq_mat h = toeplitz(600, false, one), u = make_filled(600, 600, 1, 3, 1), before = clone(u);
    for (int p = 0; p < 5; p++)
        for (int kind = 0; kind < 3; kind++) {
            double *a = bq_mat_at(h, place[p][0], place[p][1]), *b = bq_mat_at(h, place[p][1], place[p][0]);
            double was = *a;
            *a = *b = kind == 0 ? -2 : kind == 1 ? (double)NAN : (double)INFINITY;
            assert_false(dev.op->factor(&dev, h, (bq_mat){0}, 1, 0, u));
            assert_true(same(u, before) && intact(u));
            *a = *b = was;
        }
    assert_true(dev.op->factor(&dev, h, (bq_mat){0}, 1, 0, u));
    drop(h), drop(u), drop(before);
}

/* On a GPU: at most four products a tile, with 2/3 K^3 flop and what triangles are rounded up to.  Tiles, and
 * the rows that are substituted, take 50 K^2 more. */
static void most_of_it_is_products(void **state) {
    (void)state;
    if (!&simt_products) skip();
    for (int s = SIZES - 3; s < SIZES; s++) {
        int64_t k = sizes[s];
        double cube = (double)(k * k * k);
        bq_mat h = toeplitz(k, false, fading), u = make(k, k, 0, BQ_F32);
        long calls = simt_products, runs = few_cases() ? 2 : 3;
        double flop = simt_product_flop;
        assert_true(dev.op->factor(&dev, h, (bq_mat){0}, 1, 0, u));
        calls = (simt_products - calls) / runs, flop = (simt_product_flop - flop) / (double)runs;
        assert_true(calls <= 4 * ((k + 63) / 64) && flop > 0.65 * cube && flop < 1.2 * cube);
        drop(h), drop(u);
    }
}

int main(void) {
    dev = cpu_with(2, (size_t)16 << 20);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_factor),
        cmocka_unit_test(a_condition_of_ten_digits),
        cmocka_unit_test(bad_elements),
        cmocka_unit_test(most_of_it_is_products),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
