/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of schemes: never above the budget, the best there is where all choices can be tried, the same
 * for any scale of costs. */
#include "driver/plan/choose.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define ITEMS 5

static double cost_of(const bq_choose_item *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i].cost[x[i].chosen];
    return sum;
}
static double error_of(const bq_choose_item *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i].error[x[i].chosen];
    return sum;
}

static double draw(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (double)(*seed >> 8) / (1 << 24);
}

static void random_items(bq_choose_item *x, int n, uint32_t seed) {
    memset(x, 0, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) {
        double size = 1 + floor(8 * draw(&seed)), scale = exp(6 * draw(&seed));
        x[i].count = 3 + (int)(2 * draw(&seed));
        for (int k = 0; k < x[i].count; k++) {
            x[i].cost[k] = size * (2 + k);
            x[i].error[k] = scale * pow(0.25, k) * (0.5 + draw(&seed));
        }
    }
}

/* The least error of all choices within the budget; INFINITY: none is. */
static double best_of(bq_choose_item *x, int i, double budget) {
    double best = INFINITY;
    if (i == ITEMS) return cost_of(x, ITEMS) <= budget ? error_of(x, ITEMS) : INFINITY;
    for (int k = 0; k < x[i].count; k++) {
        x[i].chosen = k;
        best = fmin(best, best_of(x, i + 1, budget));
    }
    return best;
}

static void test_all_choices(void **state) {
    (void)state;
    double worst = 1;
    for (uint32_t seed = 1; seed < 200; seed++) {
        bq_choose_item x[ITEMS], all[ITEMS];
        random_items(x, ITEMS, seed);
        memcpy(all, x, sizeof x);
        double least = 0, budget, cost;
        for (int i = 0; i < ITEMS; i++) least += x[i].cost[0];
        budget = least * (1 + 0.02 * (seed % 40));
        assert_true(bq_choose(x, ITEMS, budget, &cost));
        assert_true(cost == cost_of(x, ITEMS) && cost <= budget);
        double best = best_of(all, 0, budget);
        assert_true(error_of(x, ITEMS) >= best * (1 - 1e-12));
        worst = fmax(worst, error_of(x, ITEMS) / best);
        /* what it left of the budget is too little for any single change for the better */
        for (int i = 0; i < ITEMS; i++)
            for (int k = 0; k < x[i].count; k++)
                assert_false(x[i].error[k] < x[i].error[x[i].chosen] &&
                             cost - x[i].cost[x[i].chosen] + x[i].cost[k] <= budget);
    }
    assert_true(worst < 4); /* of 5 items; a step that does not fit is a large part of such a budget */
}

/* Where a price of the cost decides, and the budget is what that choice takes: no choice is better. */
static void test_prices(void **state) {
    (void)state;
    for (uint32_t seed = 1; seed < 400; seed++) {
        bq_choose_item x[ITEMS], priced[ITEMS];
        double cost, price = exp(0.02 * seed - 4);
        random_items(x, ITEMS, seed);
        memcpy(priced, x, sizeof x);
        for (int i = 0; i < ITEMS; i++)
            for (int k = 1; k < x[i].count; k++) {
                const int c = priced[i].chosen;
                if (x[i].error[k] + price * x[i].cost[k] < x[i].error[c] + price * x[i].cost[c])
                    priced[i].chosen = k;
            }
        assert_true(bq_choose(x, ITEMS, cost_of(priced, ITEMS), &cost));
        assert_true(fabs(error_of(x, ITEMS) - error_of(priced, ITEMS)) <= 1e-9 * error_of(priced, ITEMS));
    }
}

static void test_bounds(void **state) {
    (void)state;
    bq_choose_item x[2] = {{3, {2, 4, 8}, {10, 1, 0}, 0}, {3, {2, INFINITY, 8}, {7, 0, 1}, 0}};
    double cost;
    assert_false(bq_choose(x, 2, 3.9, &cost));
    assert_true(cost == 4);
    assert_true(bq_choose(x, 2, 4, &cost) && x[0].chosen == 0 && x[1].chosen == 0);
    assert_true(bq_choose(x, 2, 1e9, &cost) && x[0].chosen == 2 && x[1].chosen == 2 && cost == 16);
    assert_true(bq_choose(x, 2, 6, &cost) && x[0].chosen == 1 && x[1].chosen == 0);
    /* dearer and worse is never taken; of equal errors the cheaper */
    bq_choose_item y[1] = {{3, {1, 2, 3}, {5, 5, 9}, 0}};
    assert_true(bq_choose(y, 1, 100, &cost) && y[0].chosen == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_choices), cmocka_unit_test(test_prices),
                                       cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
