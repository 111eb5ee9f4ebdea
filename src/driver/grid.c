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

bq_shard bq_grid_blocks(const bq_recipe *r, int blocks, int stage, int nstage) {
    bq_shard units = bq_shard_of(bq_grid_units(r, blocks), stage, nstage);
    int first = bq_grid_start(r, blocks, (int)units.first),
        end = bq_grid_start(r, blocks, (int)(units.first + units.count));
    return (bq_shard){first, end - first, blocks};
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
