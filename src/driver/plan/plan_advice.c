/* SPDX-License-Identifier: Apache-2.0 */
/* Grids for other numbers of ranks, as `blockq plan` prints them. */
#include "base/die.h"
#include "driver/plan/grid.h"
#include "driver/plan/plan.h"

static bq_grid grid_of(const bq_forecast *f) {
    return (bq_grid){f->recipe, f->layouts->at[0].arch->model.blocks, 1, f->args->acts != BQ_ACTS_BY_ROOT};
}

static void make(bq_plan *plan, const bq_forecast *f, int ranks, int stages) {
    bq_comm comm = {.size = ranks, .locals = 1, .nstage = stages, .nreplica = ranks / stages};
    bq_plan_make(plan, f->recipe, f->layouts, &comm, f->args, f->evals, f->machine->gpu);
}

int bq_plan_forecast(bq_plan *plan, const bq_forecast *f, int ranks) {
    bq_grid g = grid_of(f);
    int code = bq_grid_choose(&g, ranks, f->args->stages);
    if (code == BQ_OK) make(plan, f, ranks, g.nstage);
    return code;
}

/* Seconds of a run; *limit: what takes most of them besides arithmetic, and its share. */
static double seconds_of(const bq_plan *p, const bq_machine *machine, bq_use *limit, double *part) {
    double sum[BQ_USES], seconds[BQ_WORKS + 1];
    bq_plan_seconds(p, machine, seconds, sum);
    *limit = BQ_USE_MEMORY;
    for (bq_use u = BQ_USE_MEMORY; u < BQ_USES; u++)
        if (sum[u] > sum[*limit]) *limit = u;
    *part = sum[*limit] / seconds[BQ_WORKS];
    return seconds[BQ_WORKS];
}

/* The next number of ranks to look at: one more, or the next power of two up to `most`, then `most`. */
static int next_of(int ranks, int most) {
    return !most ? ranks + 1 : ranks < most && 2 * ranks > most ? most : 2 * ranks;
}

void bq_plan_advise(const bq_forecast *f, FILE *out) {
    bq_grid g = grid_of(f);
    double one = 0, best = 0;
    int last = 1 /* the last that helped */, most = f->args->ranks;
    fprintf(out,
            "ranks  stages x replicas     host MB      GPU MB     seconds  efficiency  besides arithmetic\n");
    for (int ranks = 1; ranks <= (most ? most : 4 * last); ranks = next_of(ranks, most)) {
        bq_plan p;
        bq_use limit;
        double part;
        int wish = f->args->stages, stages = bq_grid_stages(&g, ranks);
        if (wish && ranks % wish == 0 && wish <= bq_grid_units(&g)) stages = wish;
        int replicas = ranks / stages;
        if (replicas > f->recipe->calibration.samples || replicas > BQ_REPLICAS) break;
        make(&p, f, ranks, stages);
        double seconds = seconds_of(&p, f->machine, &limit, &part);
        if (ranks == 1) one = seconds;
        if (!most && ranks > 1 && seconds > 0.9 * best) continue;
        best = seconds, last = ranks;
        fprintf(out, "%5d  %6d x %-8d %11.1f %11.1f %11.1f %10.0f%%  %s %.0f%%%s\n", ranks, stages, replicas,
                (double)p.total / 1e6, (double)bq_plan_on_gpu(&p) / 1e6, seconds, 100 * one / seconds / ranks,
                bq_use_names[limit], 100 * part, bq_plan_fits(&p) ? "" : ", does not fit");
    }
}
