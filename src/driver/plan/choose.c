/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/choose.h"

#include "base/die.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    int item, from, to;
    double gain; /* error saved for a unit of cost; INFINITY: it costs nothing */
} step;

static double gain_of(const bq_choose_item *x, int from, int to) {
    double saved = x->error[from] - x->error[to], more = x->cost[to] - x->cost[from];
    if (!(saved > 0) || !isfinite(x->cost[to])) return 0;
    return more > 0 ? saved / more : INFINITY;
}

/* The cheapest alternative; of equal ones that with the least error. */
static int cheapest(const bq_choose_item *x) {
    int best = 0;
    for (int k = 1; k < x->count; k++)
        if (x->cost[k] < x->cost[best] || (x->cost[k] == x->cost[best] && x->error[k] < x->error[best]))
            best = k;
    return best;
}

/* The alternative that saves most from `from` on for its cost; of equal ones the farthest.  -1: none does. */
static int next(const bq_choose_item *x, int from, double room) {
    int best = -1;
    for (int k = 0; k < x->count; k++) {
        double gain = gain_of(x, from, k), most = best < 0 ? 0 : gain_of(x, from, best);
        bool farther = gain == most && best >= 0 && x->error[k] < x->error[best];
        if ((gain > most || farther) && x->cost[k] - x->cost[from] <= room) best = k;
    }
    return best;
}

static int by_gain(const void *a, const void *b) {
    const step *x = a, *y = b;
    if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1;
    return x->item != y->item ? x->item - y->item : x->from - y->from;
}

/* The steps along the hulls of all items. */
static int hulls(const bq_choose_item *item, int count, step *all) {
    int n = 0;
    for (int i = 0; i < count; i++)
        for (int from = cheapest(&item[i]), to; (to = next(&item[i], from, INFINITY)) >= 0; from = to)
            all[n++] = (step){i, from, to, gain_of(&item[i], from, to)};
    qsort(all, (size_t)n, sizeof *all, by_gain);
    return n;
}

/* Spend what is left; false: nothing fits any more. */
static bool spend(bq_choose_item *item, int count, double room, double *cost) {
    int best = -1, to = -1;
    double most = 0;
    for (int i = 0; i < count; i++) {
        int k = next(&item[i], item[i].chosen, room);
        double gain = k < 0 ? 0 : gain_of(&item[i], item[i].chosen, k);
        if (gain > most) best = i, to = k, most = gain;
    }
    if (best < 0) return false;
    *cost += item[best].cost[to] - item[best].cost[item[best].chosen];
    item[best].chosen = to;
    return true;
}

bool bq_choose(bq_choose_item *item, int count, double budget, double *cost) {
    step *all = malloc((size_t)count * BQ_ALTERNATIVES * sizeof *all);
    BQ_CHECK(all, "no memory to choose for %d items", count);
    *cost = 0;
    for (int i = 0; i < count; i++) *cost += item[i].cost[item[i].chosen = cheapest(&item[i])];
    bool fits = *cost <= budget;
    int n = fits ? hulls(item, count, all) : 0;
    for (int s = 0; s < n; s++) {
        bq_choose_item *x = &item[all[s].item];
        double more = x->cost[all[s].to] - x->cost[all[s].from];
        if (x->chosen != all[s].from || *cost + more > budget) continue;
        *cost += more;
        x->chosen = all[s].to;
    }
    while (fits && spend(item, count, budget - *cost, cost)) continue;
    free(all);
    return fits;
}
