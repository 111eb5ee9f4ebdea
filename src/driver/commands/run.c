/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/commands.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "driver/run/account.h"
#include "driver/run/distill.h"
#include "driver/run/observe.h"
#include "driver/run/outputs.h"
#include "driver/run/phase.h"
#include "driver/run/result.h"
#include "driver/run/learning.h"
#include "driver/run/sensitivity.h"
#include "driver/run/session.h"
#include "driver/streams/cache.h"
#include "driver/streams/reference.h"
#include "driver/streams/sweep.h"
#include "io/state/midblock.h"
#include "kernels/mark.h"

#include <stdio.h>

/* A sweep starts from the boundaries of the one before, so all ranks finish that first.  Later sweeps repeat
 * only the last phase, which starts from its own result. */
static int sweeps(bq_run *s) {
    int code = BQ_OK;
    bool settled = false;
    for (int sweep = 0; sweep < s->recipe.sweeps && code == BQ_OK && !settled; sweep++) {
        for (int p = sweep ? s->recipe.nphase - 1 : 0; p < s->recipe.nphase && code == BQ_OK; p++)
            code = bq_phase_run(s, sweep, p, NULL), bq_account_part(s, "phase", sweep, p);
        code = bq_comm_agree(s->comm, code);
        bq_cache_give_boundaries(s, sweep);
        settled = code == BQ_OK && bq_sweep_settled(s, sweep);
        bq_account_part(s, "join", sweep, -1);
    }
    return code;
}

static int run(bq_run *s) {
    int code = bq_session_enter(s);
    if (code) return code;
    char home[BQ_PATH_MAX + 32];
    bq_log(BQ_INFO, "%s: %d blocks, %s, plan %.0f MB, streams in %s", s->src.dir, s->src.arch.model.blocks,
           s->dev.name, (double)s->plan.total / 1e6, bq_plan_home(&s->plan, home, sizeof home));
    if (s->plan.midway[0]) bq_log(BQ_INFO, "kept: %s", s->plan.midway);
    if (!s->plan.pending) bq_log(BQ_INFO, "checkpoints are written at once: there is no room for a copy");
    if (s->comm->size > 1)
        bq_log(BQ_INFO, "%d ranks: %d stages x %d replicas, micro-batches of %ld%s", s->comm->size,
               s->comm->nstage, s->comm->nreplica, (long)s->plan.micro,
               s->comm->depth ? " from GPU to GPU" : "");
    code = bq_learning_run(s);
    if (!code) code = bq_sensitivity_run(s);
    if (code) return code;
    bq_cache_fetch(s);
    bq_account_part(s, "start", -1, -1);
    bq_mark_open("reference");
    if (s->reference) bq_reference_run(s, s->plan.micro);
    bq_mark_close();
    bq_cache_give_heads(s);
    code = bq_comm_agree(s->comm, bq_run_stopped() ? BQ_STOPPED : BQ_OK);
    bq_account_part(s, "reference", -1, -1);
    if (code) return code;
    code = sweeps(s);
    bq_session_save(s, bq_seconds() - s->started);
    if (code) return code;
    bq_sweep_results(s);
    for (int b = 0; b < s->src.arch.model.blocks && s->comm->rank == 0 && !s->recipe.distill.steps; b++)
        bq_inside_remove(s->dir, b); /* of blocks that were done before a kill */
    code = bq_distill_run(s);
    bq_account_part(s, "distill", -1, -1);
    if (code) return code;
    code = bq_observe_run(s);
    if (code) return code;
    bq_observe_scales(s);
    double exporting = bq_seconds();
    code = bq_outputs_write(s);
    if (code) return code;
    exporting = bq_seconds() - exporting;
    bq_account_part(s, "export", -1, -1);
    code = bq_result_evaluate(s);
    if (!code) code = bq_outputs_publish(s);
    bq_account_part(s, "eval", -1, -1);
    if (code) return code;
    bq_log(BQ_INFO, "done in %.1f s, export %.1f s of it; memory planned %.0f MB, peak %.0f MB",
           bq_seconds() - s->started, exporting, (double)s->plan.total / 1e6, (double)bq_peak_rss() / 1e6);
    return BQ_OK;
}

static void tell(const bq_run *s, bq_run_facts *facts) {
    bq_state_summary state;
    int64_t bits;
    const int64_t weights = bq_run_quantized(s, &bits);
    *facts = (bq_run_facts){.bits = weights ? (double)bits / (double)weights : 0,
                            .planned = (double)s->plan.total,
                            .peak = (double)bq_peak_rss(),
                            .value = {s->first[0], s->first[1], s->first[2]}};
    if (bq_state_read(s->dir, &state)) facts->seconds = state.seconds;
}

int bq_run_whole(const bq_args *args, bq_comm *comm, bq_run_facts *facts) {
    bq_run s;
    int code = bq_session_open(&s, args, comm);
    if (code == BQ_OK) code = run(&s);
    if (code == BQ_OK) tell(&s, facts);
    if (code == BQ_STOPPED)
        bq_log(BQ_INFO, "stopped with the state written: the same command goes on from there");
    bq_session_close(&s);
    return code;
}

int bq_cmd_run(const bq_args *args, bq_comm *comm) {
    bq_run_facts facts;
    return bq_run_whole(args, comm, &facts);
}

/* Of the ranks that were started, or of those that the options name. */
static int print_plan(bq_run *s, const bq_machine *machine) {
    const bq_args *a = s->args;
    bq_forecast f = {&s->recipe, &s->layouts, a, &s->evals, machine};
    int code = BQ_OK;
    if (a->gpu || a->ranks) code = bq_plan_forecast(&s->plan, &f, a->ranks ? a->ranks : s->comm->size);
    if (code == BQ_OK) bq_plan_print(&s->plan, machine, stdout);
    bq_plan_advise(&f, stdout);
    return code ? code : bq_plan_check(&s->plan);
}

int bq_cmd_plan(const bq_args *args, bq_comm *comm) {
    bq_run s;
    int code = bq_session_open(&s, args, comm);
    bq_machine machine = {0};
    if (code == BQ_OK) {
        if (!args->gpu) bq_machine_measure(&machine, &s.dev, &s.src.arch, s.recipe.calibration.length, comm);
        machine.gpu = s.plan.gpu;
        code = bq_comm_agree(comm, comm->rank ? BQ_OK : bq_machine_named(&machine, args));
    }
    if (code == BQ_OK && comm->rank == 0) code = print_plan(&s, &machine);
    code = bq_comm_agree(comm, code);
    bq_session_close(&s);
    return code;
}

int bq_cmd_export(const bq_args *args, bq_comm *comm) {
    bq_run s;
    int code = bq_session_open_finished(&s, args, comm);
    if (code == BQ_OK) code = bq_outputs_write_one(&s, args->out);
    bq_session_close(&s);
    return code;
}
