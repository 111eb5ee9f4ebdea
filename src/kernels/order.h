/* SPDX-License-Identifier: Apache-2.0 */
/* order.h - where a column comes in GPTQ's order.  The same source for all backends. */
#ifndef BQ_KERNELS_ORDER_H
#define BQ_KERNELS_ORDER_H

#include <math.h>
#include <stdint.h>

/* Entry c of a diagonal whose entries are ld apart; NaN counts as 0. */
static inline float bq_diagonal(const float *diag, int64_t ld, int64_t c) {
    const float d = diag[c * ld];
    return d == d ? d : 0;
}

static inline float bq_diagonal_max(const float *diag, int64_t ld, int64_t first, int64_t count) {
    float most = bq_diagonal(diag, ld, first);
    for (int64_t c = first + 1; c < first + count; c++) most = fmaxf(most, bq_diagonal(diag, ld, c));
    return most;
}

/* How many of k columns come before column c: groups by their largest entry, columns of a group by their own;
 * of equal ones the first. */
static inline int64_t bq_order_rank(const float *diag, int64_t ld, int64_t k, int64_t group, int64_t c) {
    const int64_t mine = c / group * group;
    const float d = bq_diagonal(diag, ld, c), top = group < k ? bq_diagonal_max(diag, ld, mine, group) : 0;
    int64_t rank = 0;
    for (int64_t o = mine; o < mine + group; o++) {
        const float other = bq_diagonal(diag, ld, o);
        rank += other > d || (other == d && o < c);
    }
    for (int64_t g = 0; g < k && group < k; g += group) {
        const float other = g == mine ? 0 : bq_diagonal_max(diag, ld, g, group);
        rank += g != mine && (other > top || (other == top && g < mine)) ? group : 0;
    }
    return rank;
}

#endif
