/* Grids for other numbers of ranks, as `blockq plan` prints them. */
#include "driver/plan/grid.h"
#include "driver/plan/plan.h"
#include "driver/plan/pipeline.h"

static bool has_grid(const bq_grid *g, int ranks, bq_comm *comm) {
    int stages = bq_grid_stages(g, ranks);
    *comm = (bq_comm){.size = ranks, .locals = 1, .nstage = stages, .nreplica = ranks / stages};
    return comm->nreplica <= g->recipe->calibration.samples && comm->nreplica <= BQ_REPLICAS;
}

/* Seconds of a run; *limit: what takes most of them besides arithmetic, and its share. */
static double seconds_of(const bq_plan *p, const bq_machine *machine, bq_use *limit, double *part) {
    double sum[BQ_USES] = {0}, use[BQ_USES], all = 0;
    for (int k = 0; k < BQ_WORKS; k++) {
        all += bq_machine_seconds(machine, &p->effort[k], use);
        for (int u = 0; u < BQ_USES; u++) sum[u] += use[u];
    }
    *limit = BQ_USE_MEMORY;
    for (bq_use u = BQ_USE_MEMORY; u < BQ_USES; u++)
        if (sum[u] > sum[*limit]) *limit = u;
    *part = sum[*limit] / all;
    return all;
}

/* The next number of ranks to look at: one more, or the next power of two up to `most`, then `most`. */
static int next_of(int ranks, int most) {
    return !most ? ranks + 1 : ranks < most && 2 * ranks > most ? most : 2 * ranks;
}

void bq_plan_advise(const bq_recipe *r, const bq_layouts *layouts, const bq_machine *machine,
                    const bq_evals *evals, int most, FILE *out) {
    bq_grid g = {r, layouts->at[0].arch->model.blocks, 1, true};
    double one = 0, best = 0;
    int last = 1; /* the last that helped */
    bq_comm comm;
    fprintf(out, "ranks  stages x replicas   MB a rank     seconds  efficiency  besides arithmetic\n");
    for (int ranks = 1; ranks <= (most ? most : 4 * last); ranks = next_of(ranks, most)) {
        bq_plan p;
        bq_use limit;
        double part;
        if (!has_grid(&g, ranks, &comm)) break;
        bq_plan_make(&p, r, layouts, &comm, bq_pipeline_micro(r, comm.nstage, comm.nreplica), 0, NULL, false,
                     evals, 0, 0);
        double seconds = seconds_of(&p, machine, &limit, &part);
        if (ranks == 1) one = seconds;
        if (!most && ranks > 1 && seconds > 0.9 * best) continue;
        best = seconds, last = ranks;
        fprintf(out, "%5d  %6d x %-8d %11.1f %11.1f %10.0f%%  %s %.0f%%\n", ranks, comm.nstage, comm.nreplica,
                (double)p.total / 1e6, seconds, 100 * one / seconds / ranks, bq_use_names[limit], 100 * part);
    }
}
