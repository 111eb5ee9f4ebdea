/* SPDX-License-Identifier: Apache-2.0 */
/* choose.h - one alternative of each item, so that the costs fit a budget and the sum of the errors is small.
 *
 * Of each item only the alternatives on the lower convex hull of (cost, error) come into question at first.
 * All items start at their cheapest one.  The steps along the hulls are taken in the order of the error that
 * they save for their cost, as long as the budget allows: that is the best choice for every budget that the
 * steps meet exactly (Lagrange).  What is left of the budget is spent in the same order on any alternatives.
 * Equal ones are taken in the order of the items.  Local. */
#ifndef BQ_CHOOSE_H
#define BQ_CHOOSE_H

#include <stdbool.h>

#define BQ_ALTERNATIVES 8

typedef struct {
    int count;                                            /* of alternatives, at least 1 */
    double cost[BQ_ALTERNATIVES], error[BQ_ALTERNATIVES]; /* cost INFINITY: it cannot be chosen */
    int chosen;                                           /* the result */
} bq_choose_item;

/* Fills `chosen` of all items.  *cost: the sum of costs.  False, with *cost the least sum there is: the
 * budget is below that. */
bool bq_choose(bq_choose_item *item, int count, double budget, double *cost);

#endif
