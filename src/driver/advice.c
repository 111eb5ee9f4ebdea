/* Grids for other numbers of ranks, as `blockq plan` prints them. */
#include "driver/grid.h"
#include "driver/plan.h"
#include "driver/reference.h"

/* Seconds of a run on that grid at so many flop/s a rank.  A stage waits until the micro-batches have come
 * through those before it. */
static double seconds_of(const bq_plan *p, const bq_comm *grid, double rate) {
    double waiting = p->flop_reference / 4 * (grid->nstage > 1); /* a quarter a stage: bq_reference_micro */
    return (p->flop_reference + waiting + p->flop_targets + p->flop_train + p->flop_passes + p->flop_advance +
            p->flop_eval) /
           rate;
}

static bool has_grid(const bq_grid *g, int ranks, bq_comm *comm) {
    int stages = bq_grid_stages(g, ranks);
    *comm = (bq_comm){.size = ranks, .locals = 1, .nstage = stages, .nreplica = ranks / stages};
    return comm->nreplica <= g->recipe->calibration.samples && comm->nreplica <= BQ_REPLICAS;
}

void bq_plan_advise(const bq_recipe *r, const bq_arch *arch, const bq_scheme *scheme, double rate, bool eval,
                    FILE *out) {
    bq_grid g = {r, arch->model.blocks, 1, true};
    double one = 0, best = 0;
    int last = 1; /* the last that helped */
    bq_comm comm;
    if (rate <= 0) return;
    fprintf(out, "ranks  stages x replicas   MB a rank     seconds  efficiency   (messages not counted)\n");
    for (int ranks = 1; ranks <= 4 * last && has_grid(&g, ranks, &comm); ranks++) {
        bq_plan p;
        bq_plan_make(&p, r, arch, scheme, &comm, bq_reference_micro(r, comm.nstage, comm.nreplica), 0, NULL,
                     eval);
        double seconds = seconds_of(&p, &comm, rate);
        if (ranks == 1) one = seconds;
        if (ranks > 1 && seconds > 0.9 * best) continue;
        best = seconds, last = ranks;
        fprintf(out, "%5d  %6d x %-8d %11.1f %11.1f %10.0f%%\n", ranks, comm.nstage, comm.nreplica,
                (double)p.total / 1e6, seconds, 100 * one / seconds / ranks);
    }
}
