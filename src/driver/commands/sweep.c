/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.c - `blockq sweep`: many recipes, each in a run directory of its own, over one reference.
 *
 * The ranks form groups (comm.h).  A group takes the first run that no other one has: its rank 0 holds the
 * lock locks/<run> until the end.  Its runs share the FP stream and the numbers of evaluations in
 * reference.<group>. All state is in the run directories, so a sweep goes on when it is started again. */
#include "driver/commands/sweep_list.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "driver/streams/run.h"
#include "io/files.h"
#include "io/rundir.h"
#include "io/state/lock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FACTS = 1 + sizeof(bq_run_facts) / sizeof(double) };

typedef struct {
    const bq_args *args;
    const bq_comm *job;
    bq_comm group;
    int groups, mine; /* my group */
    bq_sweep_list list;
    bq_lock lock, *taken; /* of the directory; of the runs that this group has */
    double *fact;         /* (runs, FACTS): exit code, facts; 0 where it was not run here */
} sweep;

/* As many groups as there is work for, of equally many ranks. */
static int choose_groups(const sweep *w) {
    int groups = w->args->groups                ? w->args->groups
                 : w->list.count < w->job->size ? w->list.count
                                                : w->job->size;
    while (!w->args->groups && w->job->size % groups) groups--;
    if (groups <= w->job->size && w->job->size % groups == 0) return groups;
    bq_refuse(BQ_LAUNCH, "--groups %d: %d ranks cannot be cut into so many equal groups", groups,
              w->job->size);
    return 0;
}

/* What is to be run, by whom, and where. */
static int look(void *ctx) {
    sweep *w = ctx;
    int error, code = bq_sweep_list_open(&w->list, w->args);
    if (!code) code = (w->groups = choose_groups(w)) ? BQ_OK : BQ_LAUNCH;
    if (!code && strlen(w->args->out) + 1 + BQ_SWEEP_NAME > BQ_PATH_MAX)
        code = bq_refuse(BQ_USAGE, "--out %.100s...: the paths of its runs would be too long", w->args->out);
    if (code || w->job->rank) return code;
    char locks[BQ_PATH_MAX + 8];
    snprintf(locks, sizeof locks, "%s/locks", w->args->out);
    code = bq_rundir_folder(w->args->out);
    if (!code) code = bq_rundir_folder(locks);
    if (!code && (error = bq_dir_make(locks)))
        code = bq_refuse(BQ_USAGE, "%s cannot be made: %s", locks, strerror(error));
    return code ? code : bq_lock_take_at(&w->lock, w->args->out, "lock", "--out");
}

/* The next run for this group, at or behind i; count: there is none. */
static int next(sweep *w, int i) {
    char file[BQ_SWEEP_NAME + 8];
    for (; w->group.rank == 0 && i < w->list.count; i++) {
        snprintf(file, sizeof file, "locks/%s", w->list.at[i].name);
        if (w->groups == 1 || bq_lock_try(&w->taken[i], w->args->out, file)) break;
    }
    bq_comm_bcast(&w->group, &i, sizeof i);
    return i;
}

static int run_one(sweep *w, int i) {
    const bq_sweep_run *r = &w->list.at[i];
    static bq_args a; /* large */
    char reference[BQ_PATH_MAX + 32];
    bq_run_facts facts = {0};
    double *fact = w->fact + (size_t)i * FACTS;
    a = *w->args;
    a.command = BQ_COMMAND_RUN, a.nfile = 1, a.file = (char **)&r->recipe;
    for (int v = 0; v < a.nvary; v++) a.set[a.nset++] = r->set[v];
    snprintf(reference, sizeof reference, "%s/reference.%d", w->args->out, w->mine);
    a.reference = reference;
    bq_path_join(a.out, sizeof a.out, w->args->out, r->name);
    bq_log_label(r->name);
    bq_peak_forget();
    int code = bq_run_whole(&a, &w->group, &facts);
    bq_log_label("");
    if (w->group.rank == 0 && code != BQ_STOPPED) {
        fact[0] = code;
        memcpy(fact + 1, &facts, sizeof facts);
    }
    return code;
}

/* All that this group gets.  A run that is refused does not keep the others from theirs. */
static int run_all(sweep *w) {
    int first = BQ_OK;
    for (int i = next(w, 0); i < w->list.count; i = next(w, i + 1)) {
        int code = run_one(w, i);
        if (code == BQ_STOPPED) return code;
        if (!first) first = code;
    }
    return first;
}

/* Bring all facts to all ranks: a run has them on one rank, and zeros elsewhere. */
static void collect(sweep *w) {
    bq_comm_reduce(w->job, w->fact, (int64_t)w->list.count * FACTS, MPI_DOUBLE, MPI_SUM);
    for (int i = 0; i < w->list.count; i++) {
        const double *fact = w->fact + (size_t)i * FACTS;
        w->list.at[i].code = fact[0];
        memcpy(&w->list.at[i].facts, fact + 1, sizeof(bq_run_facts));
    }
}

int bq_cmd_sweep(const bq_args *args, bq_comm *job) {
    sweep w = {.args = args, .job = job};
    int code = bq_root_first(job, look, &w);
    if (!code) {
        w.fact = calloc((size_t)w.list.count * FACTS, sizeof *w.fact);
        w.taken = calloc((size_t)w.list.count, sizeof *w.taken);
        BQ_CHECK(w.fact && w.taken, "no memory for %d runs", w.list.count);
        bq_log(BQ_INFO, "%d run%s, %d group%s of %d rank%s", w.list.count, w.list.count > 1 ? "s" : "",
               w.groups, w.groups > 1 ? "s" : "", job->size / w.groups, job->size > w.groups ? "s" : "");
        w.mine = job->rank / (job->size / w.groups);
        bq_comm_group(job, w.groups, &w.group);
        code = run_all(&w);
        bq_comm_group_close(job, &w.group);
        code = bq_comm_agree(job, code);
        if (code != BQ_STOPPED) collect(&w);
        if (code != BQ_STOPPED && job->rank == 0) bq_sweep_list_report(&w.list, args->out);
    }
    for (int i = 0; w.taken && i < w.list.count; i++) bq_lock_release(&w.taken[i]);
    bq_lock_release(&w.lock);
    bq_sweep_list_close(&w.list);
    free(w.taken);
    free(w.fact);
    return code;
}
