/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/grid.h"

#include "base/die.h"

static bool independent(const bq_recipe *r) {
    for (int p = 0; p < r->nphase; p++)
        if (r->phase[p].inputs != BQ_INPUTS_FP) return false;
    return true;
}

int bq_grid_units(const bq_grid *g) { return independent(g->recipe) ? g->blocks : g->recipe->segments; }

int bq_grid_start(const bq_grid *g, int unit) {
    int64_t units = bq_grid_units(g);
    return (int)((2 * (int64_t)unit * g->blocks + units) / (2 * units)); /* unit * blocks / units, rounded */
}

bool bq_grid_is_start(const bq_grid *g, int block) {
    for (int u = 0; u < bq_grid_units(g); u++)
        if (bq_grid_start(g, u) == block) return true;
    return false;
}

int bq_grid_unit_start(const bq_grid *g, int block) {
    int u = bq_grid_units(g) - 1;
    while (bq_grid_start(g, u) > block) u--;
    return bq_grid_start(g, u);
}

static bq_shard by_units(const bq_grid *g, int stage) {
    bq_shard units = bq_shard_of(bq_grid_units(g), stage, g->nstage);
    int first = bq_grid_start(g, (int)units.first), end = bq_grid_start(g, (int)(units.first + units.count));
    return (bq_shard){first, end - first, g->blocks};
}

/* Can all stages have equal shares?  Each must have the start of a unit: a segment lies in two stages at
 * most. */
static bool even(const bq_grid *g) {
    if (!g->cut || bq_grid_units(g) % g->nstage == 0) return false;
    for (int s = 0; s < g->nstage; s++) {
        bq_shard b = bq_shard_of(g->blocks, s, g->nstage);
        if (bq_grid_unit_start(g, (int)(b.first + b.count) - 1) < b.first) return false;
    }
    return true;
}

bq_shard bq_grid_blocks(const bq_grid *g, int stage) {
    return even(g) ? bq_shard_of(g->blocks, stage, g->nstage) : by_units(g, stage);
}

int bq_grid_pieces(const bq_grid *g, int stage, bq_piece piece[BQ_PIECES]) {
    bq_shard own = bq_grid_blocks(g, stage);
    int first = (int)own.first, end = first + (int)own.count, from = first, until = end, n = 0;
    if (end < g->blocks) until = bq_grid_unit_start(g, end); /* end itself where a unit starts there */
    while (!bq_grid_is_start(g, from)) from++;
    if (until < end) piece[n++] = (bq_piece){until, end, true, false};
    if (from < until) piece[n++] = (bq_piece){from, until, false, false};
    if (first < from) piece[n++] = (bq_piece){first, from, false, true};
    return n;
}

int bq_grid_stages(const bq_grid *g, int ranks) {
    int units = bq_grid_units(g), stages = units < ranks ? units : ranks;
    while (ranks % stages) stages--;
    return stages;
}

int bq_grid_choose(bq_grid *g, int ranks, int wish) {
    const bq_recipe *r = g->recipe;
    int units = bq_grid_units(g);
    const char *what = independent(r) ? "blocks" : "segments";
    if (wish && (ranks % wish || wish > units))
        return bq_refuse(BQ_LAUNCH,
                         "%d ranks cannot be %d stages over %d %s: the stages must divide the ranks and not "
                         "outnumber the %s",
                         ranks, wish, units, what, what);
    int stages = wish ? wish : bq_grid_stages(g, ranks);
    if (ranks / stages > r->calibration.samples || ranks / stages > 1024)
        return bq_refuse(BQ_LAUNCH,
                         "%d ranks over %d %s leave %d replicas for %ld samples: start fewer ranks", ranks,
                         units, what, ranks / stages, (long)r->calibration.samples);
    if (bq_recipe_learns(r) && ranks > 1024)
        return bq_refuse(BQ_LAUNCH, "%d ranks, and at most 1024 learn rotations: start fewer ranks", ranks);
    g->nstage = stages;
    return BQ_OK;
}
