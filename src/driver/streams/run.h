/* SPDX-License-Identifier: Apache-2.0 */
/* run.h - a run on one rank: its options and recipe, what it has open, where its files are.
 *
 * run/session.c opens and closes it.  Other files read it, and change only the fields that belong to them. */
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
    char dir[BQ_PATH_MAX];        /* the run directory */
    char acts[BQ_PATH_MAX + 64];  /* the directory of activation files (cache.h) */
    char heads[BQ_PATH_MAX + 64]; /* that of the FP stream: the same, or one that several runs share */
    bq_folder own;                /* that directory, if it is this rank's own */
    bq_source src;
    bq_tokens calibration; /* ids NULL if nothing reads samples */
    bool reference;        /* the passes do, so there is an FP stream */
    bq_evals evals;
    bq_layouts layouts; /* of the units of blocks, with their schemes */
    bq_grid grid;
    bq_plan plan;
    bq_dev dev;
    int parts;
    bq_part part[BQ_PARTS];
    uint64_t schemes_hash; /* of bits.schemes */
    uint64_t model_hash, acts_hash, fingerprint, distill_tag;
    char numerics[256]; /* the numerics class in words; `run` only */
    bq_lock lock;       /* of the run directory, on rank 0 of `blockq run`; */
    bq_lock shared;     /* and of the shared one of the FP stream */
    bq_state *state;
    float *final_norm;       /* (H) of the result, on the host; NULL: the model's */
    bool distilled;          /* the results of blocks are those of distillation (run/distill.h) */
    int *latest;             /* the sweep of each block's result (bq_sweep_results), or NULL */
    unsigned char *boundary; /* (sweeps, 1 + phases, blocks), of boundary.c */
    float *grids, *kv;       /* what inputs, keys and values are rounded with (run/observe.h), or NULL */
    double first[3];         /* of the first evaluation: the model, round to nearest, the result; or NaN */
    double started;          /* bq_seconds at open */
    int made;                /* number of blocks made since */
    struct {
        double at;      /* bq_seconds at the last row of run.csv about a part of the run */
        bq_meter spent; /* until then */
    } account;
} bq_run;

/* The samples of this replica.  Local. */
static inline bq_shard bq_run_share(const bq_run *s) {
    return bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
}

/* From here on the device computes products in this way, or in the nearest more exact one.  Local. */
static inline void bq_run_computes(bq_run *s, bq_compute wanted) {
    s->dev.compute = bq_dev_compute(&s->dev, wanted);
}

/* What the seals of the results have. */
static inline uint64_t bq_run_tag(const bq_run *s) { return s->distilled ? s->distill_tag : s->fingerprint; }

/* Room on the host for n calibration samples, (n T, H); the caller frees its data.  Local. */
bq_mat bq_run_room(const bq_run *s, int64_t n);

/* Embed a calibration sample as sample k of a stream.  rounded: by the recipe's scheme; buffer: host
 * (T, H). */
void bq_run_embed(const bq_run *s, int64_t sample, bool rounded, bq_mat buffer, bq_stream *to, int64_t k);
/* The norms of the tokens of y, host (T, H); 1 of a token that is 0.  Both local. */
void bq_run_norms(bq_mat y, float *norm);

/* Where its streams are, as planned. */
static inline bq_home bq_run_home(bq_run *s) {
    bq_home home = s->plan.home;
    home.dev = &s->dev;
    return home;
}

/* Call look on rank 0, and on the others only if it returned BQ_OK there, so that an error is reported once.
 * Returns the same code on all ranks.  Collective over world. */
int bq_root_first(const bq_comm *comm, int (*look)(void *), void *ctx);

/* Is `mine` true on all replicas?  Collective over stage. */
bool bq_run_all(const bq_run *s, bool mine);

/* The path of the result of a unit of a block (bq_arch_unit), the checkpoint of the last phase; after
 * bq_sweep_results.  Local. */
void bq_run_checkpoint(const bq_run *s, int block, int unit, char *path, size_t n);
/* How many weights are quantized, embedding and head included, and the bits that store them, with scales.
 * Local. */
int64_t bq_run_quantized(const bq_run *s, int64_t *bits);

/* The layout of a unit of a block with the schemes of its linears; of an expert that of the first one. */
const bq_layout *bq_run_layout(const bq_run *s, int block, int unit);

/* Nonzero after SIGTERM, SIGUSR1 or SIGINT on this rank (`run` catches them) or on another one. */
extern volatile sig_atomic_t bq_stop_wanted;
/* Send a heartbeat, and a stop to the other ranks if one came; returns whether the run is to stop.  Called in
 * every long loop.  Local: ranks see a stop at different times, so those that stop together must agree. */
bool bq_run_stopped(void);

/* Check an output of a block, (T, H) on the host or the device: NaN or inf ends the job with BQ_DATA, and a
 * message that names block, sample, token and channel.  Fault point stream_nan.  Local.  In two halves, for
 * outputs on the device: ask leaves in *apart, after the next wait, a number that is 0 if all are finite;
 * judge does the rest. */
void bq_run_ask_finite(bq_run *s, bq_mat y, double *apart);
void bq_run_judge(bq_run *s, bq_mat y, double apart, int block, int64_t sample, const char *stream);
void bq_run_finite(bq_run *s, bq_mat y, int block, int64_t sample, const char *stream);

#endif
