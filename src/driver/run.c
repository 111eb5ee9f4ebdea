#include "driver/session.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "driver/reference.h"
#include "driver/sweep.h"

#include <stdio.h>

static void save_state(bq_session *s) {
    const char *names[BQ_PARTS];
    uint64_t hashes[BQ_PARTS];
    if (s->comm->rank) return;
    for (int i = 0; i < s->parts; i++) names[i] = s->part[i].name, hashes[i] = s->part[i].hash;
    bq_state_save(s->state, names, hashes, s->parts, bq_seconds() - s->started, "1x1");
}

/* Heads of a sweep are boundaries of the one before: everyone has to be there. */
static int sweeps(bq_session *s) {
    int code = BQ_OK;
    bool settled = false;
    for (int sweep = 0; sweep < s->recipe.sweeps && code == BQ_OK && !settled; sweep++) {
        for (int p = 0; p < s->recipe.nphase && code == BQ_OK; p++)
            code = bq_session_phase(s, sweep, p, NULL);
        code = bq_comm_agree(s->comm, code);
        settled = code == BQ_OK && bq_sweep_settled(s, sweep);
    }
    return code;
}

static int run(bq_session *s) {
    int code = bq_session_enter(s);
    if (code) return code;
    bq_log(BQ_INFO, "%s: %d blocks, %s, plan %.0f MB", s->src.dir, s->src.arch.model.blocks, s->dev.name,
           (double)s->plan.total / 1e6);
    if (s->comm->size > 1)
        bq_log(BQ_INFO, "%d ranks: %d stages x %d replicas, micro-batches of %ld", s->comm->size,
               s->comm->nstage, s->comm->nreplica, (long)s->micro);
    if (s->calibration.ids) bq_reference_run(s, s->micro);
    code = sweeps(s);
    save_state(s);
    if (code) return code;
    double exporting = bq_seconds();
    code = bq_session_export(s);
    if (code) return code;
    exporting = bq_seconds() - exporting;
    bq_session_evaluate(s);
    bq_log(BQ_INFO, "done in %.1f s, export %.1f s of it; memory planned %.0f MB, peak %.0f MB",
           bq_seconds() - s->started, exporting, (double)s->plan.total / 1e6, (double)bq_peak_rss() / 1e6);
    return BQ_OK;
}

int bq_cmd_run(const bq_args *args, bq_comm *comm) {
    bq_session s;
    int code = bq_session_open(&s, args, comm);
    if (code == BQ_OK) code = run(&s);
    if (code == BQ_STOPPED)
        bq_log(BQ_INFO, "stopped with the state written: the same command goes on from there");
    bq_session_close(&s);
    return code;
}

int bq_cmd_plan(const bq_args *args, bq_comm *comm) {
    bq_session s;
    bq_args plan = *args;
    plan.memory = (size_t)1 << 50; /* the table is wanted even where the run would not fit */
    int code = bq_session_open(&s, &plan, comm);
    if (code == BQ_OK) {
        bq_plan_make(&s.plan, &s.recipe, &s.src.arch, s.scheme, comm, s.micro, args->memory, args->scratch,
                     s.eval.ids != NULL);
        if (comm->rank == 0)
            bq_plan_print(&s.plan, bq_plan_rate(&s.dev, &s.src.arch, s.recipe.calibration.length), stdout);
        code = bq_plan_check(&s.plan);
    }
    bq_session_close(&s);
    return code;
}

static int finished(void *session) {
    const bq_session *s = session;
    if (bq_state_count(s->state) == (int64_t)s->recipe.nphase * s->src.arch.model.blocks) return BQ_OK;
    return bq_refuse(BQ_DATA, "%s is not finished: `blockq run` it to the end first", s->dir);
}

int bq_cmd_export(const bq_args *args, bq_comm *comm) {
    char recipe[BQ_PATH_MAX + 16], *file[] = {recipe};
    bq_session s;
    bq_args of_run = *args;
    snprintf(recipe, sizeof recipe, "%s/recipe.json", args->run);
    of_run.nfile = 1, of_run.file = file, of_run.no_eval = true;
    snprintf(of_run.out, sizeof of_run.out, "%s", args->run);
    int code = bq_session_open(&s, &of_run, comm);
    if (code == BQ_OK) code = bq_session_enter(&s);
    if (code == BQ_OK) code = bq_root_first(comm, finished, &s);
    if (code == BQ_OK) code = bq_session_export_to(&s, args->format, args->shard, args->out);
    bq_session_close(&s);
    return code;
}
