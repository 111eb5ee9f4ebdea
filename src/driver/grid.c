#include "driver/grid.h"

#include "base/die.h"

static bool independent(const bq_recipe *r) {
    for (int p = 0; p < r->nphase; p++)
        if (r->phase[p].inputs != BQ_INPUTS_FP) return false;
    return true;
}

int bq_grid_units(const bq_recipe *r, int blocks) { return independent(r) ? blocks : r->segments; }

int bq_grid_start(const bq_recipe *r, int blocks, int unit) {
    int units = bq_grid_units(r, blocks);
    return (int)((2 * (int64_t)unit * blocks + units) /
                 (2 * (int64_t)units)); /* unit * blocks / units, rounded */
}

bool bq_grid_is_start(const bq_recipe *r, int blocks, int block) {
    for (int u = 0; u < bq_grid_units(r, blocks); u++)
        if (bq_grid_start(r, blocks, u) == block) return true;
    return false;
}

int bq_grid_unit_start(const bq_recipe *r, int blocks, int block) {
    int u = bq_grid_units(r, blocks) - 1;
    while (bq_grid_start(r, blocks, u) > block) u--;
    return bq_grid_start(r, blocks, u);
}

static bq_shard by_units(const bq_recipe *r, int blocks, int stage, int nstage) {
    bq_shard units = bq_shard_of(bq_grid_units(r, blocks), stage, nstage);
    int first = bq_grid_start(r, blocks, (int)units.first),
        end = bq_grid_start(r, blocks, (int)(units.first + units.count));
    return (bq_shard){first, end - first, blocks};
}

/* Even shares can be walked when each holds the start of a unit: a segment then lies in two stages at most.
 */
static bool even(const bq_recipe *r, int blocks, int nstage) {
    if (bq_grid_units(r, blocks) % nstage == 0) return false;
    for (int s = 0; s < nstage; s++) {
        bq_shard b = bq_shard_of(blocks, s, nstage);
        if (bq_grid_unit_start(r, blocks, (int)(b.first + b.count) - 1) < b.first) return false;
    }
    return true;
}

bq_shard bq_grid_blocks(const bq_recipe *r, int blocks, int stage, int nstage) {
    return even(r, blocks, nstage) ? bq_shard_of(blocks, stage, nstage) : by_units(r, blocks, stage, nstage);
}

int bq_grid_pieces(const bq_recipe *r, int blocks, int stage, int nstage, bq_piece piece[BQ_PIECES]) {
    bq_shard own = bq_grid_blocks(r, blocks, stage, nstage);
    int first = (int)own.first, end = first + (int)own.count, from = first, until = end, n = 0;
    if (end < blocks) until = bq_grid_unit_start(r, blocks, end); /* end itself where a unit starts there */
    while (!bq_grid_is_start(r, blocks, from)) from++;
    if (until < end) piece[n++] = (bq_piece){until, end, true, false};
    if (from < until) piece[n++] = (bq_piece){from, until, false, false};
    if (first < from) piece[n++] = (bq_piece){first, from, false, true};
    return n;
}

int bq_grid_choose(const bq_recipe *r, int blocks, int ranks, int wish, int *nstage) {
    int units = bq_grid_units(r, blocks);
    const char *what = independent(r) ? "blocks" : "segments";
    if (wish && (ranks % wish || wish > units))
        return bq_refuse(BQ_LAUNCH,
                         "%d ranks cannot be %d stages over %d %s: the stages must divide the ranks and not "
                         "outnumber the %s",
                         ranks, wish, units, what, what);
    int stages = wish ? wish : units < ranks ? units : ranks;
    while (ranks % stages) stages--;
    if (ranks / stages > r->calibration.samples || ranks / stages > 1024)
        return bq_refuse(BQ_LAUNCH,
                         "%d ranks over %d %s leave %d replicas for %ld samples: start fewer ranks", ranks,
                         units, what, ranks / stages, (long)r->calibration.samples);
    *nstage = stages;
    return BQ_OK;
}
