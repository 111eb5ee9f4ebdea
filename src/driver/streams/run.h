/* run.h - a run on one rank: what it was asked for, what it has open, where its files are.
 *
 * session.c opens and closes it; all others read it, but for the state of their own files. */
#ifndef BQ_RUN_H
#define BQ_RUN_H

#include "base/meter.h"
#include "driver/load/source.h"
#include "driver/plan/grid.h"
#include "driver/plan/plan.h"
#include "driver/recipe/args.h"
#include "io/folder.h"
#include "io/state/lock.h"
#include "io/state/state.h"

typedef struct {
    const bq_args *args;
    bq_comm *comm;
    bq_recipe recipe;
    char dir[BQ_PATH_MAX];       /* the run directory */
    char acts[BQ_PATH_MAX + 64]; /* of activation files: below it, or my own (cache.h) */
    bq_folder own;               /* that one */
    bq_source src;
    bq_tokens calibration; /* ids NULL where the recipe has none */
    bq_evals evals;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    bq_grid grid;
    int64_t micro; /* samples of a micro-batch */
    bq_plan plan;
    bq_dev dev;
    int parts;
    bq_part part[BQ_PARTS];
    uint64_t model_hash, acts_hash, fingerprint;
    bq_lock lock; /* of the run directory, rank 0 of a run */
    bq_state *state;
    int *latest;             /* of each block the sweep of its result (bq_sweep_results), or NULL */
    unsigned char *boundary; /* (sweeps, 1 + phases, blocks): what boundary.c knows of each */
    double started;          /* bq_seconds at open */
    int made;                /* blocks made since */
    struct {
        double at;      /* bq_seconds where the part of the run began that the next row is about */
        bq_meter spent; /* until then */
    } account;
} bq_run;

/* The samples of this replica.  Local. */
static inline bq_shard bq_run_share(const bq_run *s) {
    return bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
}

/* Room on the host for n calibration samples, (n T, H); the caller frees its data.  Local. */
bq_mat bq_run_room(const bq_run *s, int64_t n);

/* Where its streams live, as the plan decided. */
static inline bq_home bq_run_home(bq_run *s) {
    bq_home home = s->plan.home;
    home.dev = &s->dev;
    return home;
}

/* Rank 0 looks first, and speaks; the others look only when it found nothing wrong.  The verdict of all.
 * Collective. */
int bq_root_first(const bq_comm *comm, int (*look)(void *), void *ctx);

/* True where all replicas say so.  Collective over stage. */
bool bq_run_all(const bq_run *s, bool mine);

/* The last phase's checkpoint of a block: what export and evaluation use, behind bq_sweep_results. */
void bq_run_checkpoint(const bq_run *s, int block, char *path, size_t n);

/* Nonzero once SIGTERM, SIGUSR1 or SIGINT came to this rank (`run` catches them) or a stop to another one. */
extern volatile sig_atomic_t bq_stop_wanted;
/* A heartbeat, and whether the run is to stop; told to the other ranks.  Called in every loop that takes
 * long.  Local: those who must stop together agree on it. */
bool bq_run_stopped(const bq_run *s);

/* One sample of a stream, (tokens, hidden) on the host or the device, as a block has put it out: NaN or inf
 * ends the job with BQ_DATA, naming model, block, sample and place.  Fault point stream_nan.  Local. */
void bq_run_finite(bq_run *s, bq_mat y, int block, int64_t sample, const char *stream);

#endif
