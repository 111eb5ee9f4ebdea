/* session.h - one run on one rank: everything it has open, set up in the order in which things can be
 * refused. */
#ifndef BQ_SESSION_H
#define BQ_SESSION_H

#include "driver/commands.h"
#include "driver/perplexity.h"
#include "base/meter.h"
#include "block/adascale.h"
#include "driver/grid.h"
#include "driver/plan.h"
#include "io/folder.h"
#include "io/lock.h"
#include "io/state.h"

/* Bumped whenever a change of code changes result bytes: part of every fingerprint. */
#define BQ_NUMERICS 2

typedef struct {
    const bq_args *args;
    bq_comm *comm;
    bq_recipe recipe;
    char dir[BQ_PATH_MAX];       /* the run directory */
    char acts[BQ_PATH_MAX + 64]; /* of activation files: below it, or my own (cache.h) */
    bq_folder own;               /* that one */
    bq_source src;
    bq_tokens calibration, eval; /* ids NULL where the recipe has none */
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
} bq_session;

/* Rank 0 looks first, and speaks; the others look only when it found nothing wrong.  The verdict of all.
 * Collective. */
int bq_root_first(const bq_comm *comm, int (*look)(void *), void *ctx);

/* The samples of this replica.  Local. */
static inline bq_shard bq_session_share(const bq_session *s) {
    return bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
}

/* Where its streams live, as the plan decided. */
static inline bq_home bq_session_home(bq_session *s) {
    bq_home home = s->plan.home;
    home.dev = &s->dev;
    return home;
}

/* Read and check everything that a user gave: recipe, model, tokens, and whether it fits.  BQ_OK, or the exit
 * code after one message.  Opens the device too.  Nothing is written.  Collective over world; close takes any
 * state. */
int bq_session_open(bq_session *s, const bq_args *args, bq_comm *comm);

/* A finished run, for `eval --run` and `export`: recipe, model and checkpoints of args->run, on any number of
 * ranks and any kind of machine; calibration is not needed.  BQ_DATA when the run is not finished or its
 * model has changed.  Collective. */
int bq_session_open_finished(bq_session *s, const bq_args *args, bq_comm *comm);

/* Round to nearest, as a bq_weights_of. */
void bq_rtn_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q);

/* Make the run directory and its log, write the resolved recipe, compare fingerprints with what a run before
 * left there. BQ_OK, BQ_USAGE (unwritable; neither empty nor a run; with links or other things where blockq
 * has files; made by another recipe: the message lists what changed), BQ_DATA (NaN weights; a model of
 * somebody else where an output is to go). */
int bq_session_enter(bq_session *s);

/* resume.c: open the state of what the run directory holds.  BQ_OK, or BQ_USAGE where that was made by
 * another recipe, or of other inputs: the message has the keys with both values.  Local. */
int bq_session_resume(bq_session *s);

/* Write ckpt/state.json: what is done, after `seconds` of this run.  Local, rank 0 writes. */
void bq_session_save(bq_session *s, double seconds);

void bq_session_close(bq_session *s);

/* The last phase's checkpoint of a block: what export and evaluation use, behind bq_sweep_results. */
void bq_session_checkpoint(const bq_session *s, int block, char *path, size_t n);

/* account.c: run.csv (docs/formats.md).  Make it, on rank 0; a row of this rank about the part of the run
 * that ends here and began where the last one ended.  Local. */
void bq_account_open(const bq_session *s);
void bq_account_part(bq_session *s, const char *part, int sweep, int phase);

/* outputs.c: can their formats hold what the recipe's outputs would hold?  Known before any work.  BQ_OK, or
 * BQ_DATA after one message.  Local. */
int bq_session_outputs_fit(const bq_session *s);
/* Host bytes of an export. */
size_t bq_session_export_need(const bq_arch *arch, const bq_scheme *scheme);
/* Write the outputs of the recipe that are not there yet, each rank its share of the shards.
 * BQ_OK, or BQ_DATA after one message.  Collective over world. */
int bq_session_export(const bq_session *s);
/* One more form of a finished run, in a directory of the caller's choice.  Collective over world. */
int bq_session_export_to(const bq_session *s, int format, size_t shard_bytes, const char *dir);

/* result.c: evaluate FP, round to nearest and the result; print the result line.  Returns as
 * bq_perplexity_run.  Collective. */
int bq_session_evaluate(bq_session *s);

/* outputs.c: a checkpointed block's codes and scales, and its folded weights where wanted, into q (pushed);
 * norms and biases that a pass has changed into blk.  The caller has seen it whole: else the job ends. */
void bq_session_restore(const bq_session *s, bq_dev *dev, const char *path, bq_block *blk, bq_quantized *q,
                        bool fold);

/* What a test may watch: the trained values of linear i of the block, before they are folded. */
typedef struct {
    void *ctx;
    void (*trained)(void *ctx, int block, int linear, const bq_adascale *values);
} bq_phase_hooks;

/* Nonzero once SIGTERM, SIGUSR1 or SIGINT came to this rank (`run` catches them) or a stop to another one. */
extern volatile sig_atomic_t bq_stop_wanted;
/* A heartbeat, and whether the run is to stop; told to the other ranks.  Called in every loop that takes
 * long.  Local: those who must stop together agree on it. */
bool bq_session_stopped(const bq_session *s);

/* One sample of a stream, (tokens, hidden) on the host or the device, as a block has put it out: NaN or inf
 * ends the job with BQ_DATA, naming model, block, sample and place.  Fault point stream_nan.  Local. */
void bq_session_finite(bq_session *s, bq_mat y, int block, int64_t sample, const char *stream);

/* phase.c: one phase over the stage's blocks in one sweep; BQ_OK or BQ_STOPPED. */
int bq_session_phase(bq_session *s, int sweep, int phase, const bq_phase_hooks *hooks);

#endif
