/* SPDX-License-Identifier: Apache-2.0 */
/* pass.h - what a pass is given, what it leaves, and what others must know of it.
 *
 * The passes of a phase work on a block one after the other.
 *   prepare    (smoothquant, awq) changes c->blk: weights, norms and biases, or factors of the inputs of
 *              linears.  The block still computes the same function, or nearly.  Comes before `quantize`
 *   quantize   (rtn, gptq) leaves codes and grids in c->q, and in c->q->fold the weights that the codes are
 *              made from.  The caller copies them to c->blk->w and sets c->grid: the next pass starts there
 *
 * A pass reads samples through `fetch` and computes with the ops of c->dev.  It opens no file.  What replicas
 * must tell each other goes through c->comm. */
#ifndef BQ_PASS_H
#define BQ_PASS_H

#include "base/key.h"
#include "block/model/cost.h"
#include "block/model/quantized.h"
#include "comm/comm.h"

#include <signal.h>

/* The recipe's `inputs` of a phase; the streams (base/README.md), and the outputs of the block in FP. */
typedef enum { BQ_INPUTS_FP, BQ_INPUTS_QT, BQ_INPUTS_MIX } bq_inputs;
typedef enum { BQ_STREAM_FP, BQ_STREAM_QT, BQ_STREAM_TARGET, BQ_STREAMS } bq_stream_id;

/* Saves the state of a pass that trains, for a later process (midblock.h).  A pass calls it between two
 * steps.  save and restore are collective over stage. */
typedef struct bq_train_state bq_train_state;
typedef struct {
    void *ctx;
    bool (*due)(void *ctx); /* is it time to save?  Only replica 0 calls it */
    void (*save)(void *ctx, bq_train_state *state, bool stop); /* stop: the run ends after it */
    /* Called before the first step.  False: there is no state. */
    bool (*restore)(void *ctx, bq_train_state *state);
} bq_keeper;

/* What a pass trains, and the values of a linear's rows (train.h). */
typedef struct bq_train_kind bq_train_kind;
typedef struct bq_trained bq_trained;

/* What a pass is given.  All of it is the caller's and lives longer than the call. */
typedef struct {
    bq_dev *dev;
    bq_block *blk;           /* the weights as the passes before have left them */
    bq_work *work;           /* for `tokens` tokens; with the backward's buffers for BQ_PASS_BACKWARD */
    bq_quantized *q;         /* the result */
    bool grid;               /* c->q has grids and codes of a pass before: start from them */
    const bq_comm *comm;     /* its replicas share the samples and the work on rows */
    int64_t samples, tokens; /* of all replicas; this one has bq_shard_of(samples, replica, nreplica) */
    int64_t keeps;           /* the number of samples whose state a pass may keep (midway.h) */
    double *batch;           /* host, samples + 2 values: room for losses of a pass that trains */
    bq_inputs input;
    double mix;     /* with BQ_INPUTS_MIX: the probability that an element is the QT stream's */
    bq_rng_key at;  /* of its random numbers: seed, sweep, phase, block are set */
    double *losses; /* host, a value for each step: a pass that trains writes them */
    /* The hidden states of a sample of this replica: a view on the host, (tokens, hidden), valid until the
     * next call for the same stream. */
    bq_mat (*fetch)(void *ctx, bq_stream_id stream, int64_t sample);
    /* Unless NULL: takes the output y (tokens, hidden), on the device, of the block with the weights of c->q
     * for a sample, and puts it in the place of the input in the QT stream.  For a pass whose walk ends with
     * the outputs (midway.h).  It then calls this for all samples of the replica in ascending order, each
     * after the last fetch of it. */
    void (*advance)(void *ctx, int64_t sample, bq_mat y);
    /* Unless NULL: takes the output y (tokens, hidden), on the device, of the block with the weights as the
     * pass found them for a sample of the FP stream; it becomes the target.  For a pass whose first walk
     * over the FP stream can compute it (channels.h).  It then calls this for all samples of the replica in
     * ascending order. */
    void (*target)(void *ctx, int64_t sample, bq_mat y);
    /* May be NULL.  Called after each step of a training, with the last loss that is
     * known (NaN: none yet); step: how many are done. */
    void (*step)(void *ctx, int64_t step, int64_t steps, double loss);
    /* Set when a signal has asked the run to stop; ranks see it at different times.  A pass whose replicas
     * agree that one has seen it ends after the step it is at. */
    const volatile sig_atomic_t *stop;
    const bq_keeper *keeper; /* may be NULL */
    /* May be NULL.  For tests: the trained values of this replica's rows of a linear, before they are
     * folded. */
    void (*trained)(void *ctx, int linear, const bq_trained *values);
    void *ctx;
} bq_pass_context;

/* Pass i of a phase has at.phase = phase + BQ_RNG_PASS_STRIDE * i, so each pass has its own random numbers.
 * Another stride changes the bytes of results. */
#define BQ_RNG_PASS_STRIDE 8

/* What `run` returns when a pass has not done its work: a loss was NaN or infinite, and c->q has the weights
 * as they were before the pass; or it was stopped by c->stop, and there is no result. */
enum { BQ_PASS_NOT_FINITE = -1, BQ_PASS_STOPPED = -2 };

/* Round c->blk to nearest on min-max grids, into c->q.  Other passes start from it, or fall back to it.
 * Local. */
void bq_pass_rtn(bq_pass_context *c);

/* ---- a kind of pass ---- */

/* Traits: what others must know of a pass before it runs. */
enum {
    BQ_PASS_CALIBRATED = 1 << 0, /* reads calibration samples */
    BQ_PASS_FP = 1 << 1,         /* reads the FP stream even when `inputs` is qt */
    BQ_PASS_TARGETS = 1 << 2,    /* reads the targets */
    BQ_PASS_QUANTIZES = 1 << 3,  /* leaves codes; passes without it must come before those with it */
    BQ_PASS_TRAINS = 1 << 4, /* takes steps; runs in later sweeps, too, and can be saved between two steps */
    BQ_PASS_BACKWARD = 1 << 5,   /* needs the workspace of a backward */
    BQ_PASS_HANDS_ON = 1 << 6,   /* its first walk over the samples can compute the targets: c->target */
    BQ_PASS_ZEROS = 1 << 7,      /* works with schemes that have zero points */
    BQ_PASS_AIMET_GRID = 1 << 8, /* works only on grids of the rule `aimet` */
    BQ_PASS_KEEPS = 1 << 9,      /* may keep the state of samples between matrices: c->keeps, c->advance */
    BQ_PASS_MOMENTS = 1 << 10,   /* multiplies matrices by Gram matrices of the inputs */
    BQ_PASS_PRESCALES = 1 << 11, /* leaves factors of the linears' inputs (blk->pre) */
    BQ_PASS_INTEGERS = 1 << 12,  /* works only with integers, whose numbers are one step apart */
    BQ_PASS_TILES = 1 << 13,     /* makes codes where rows share scales */
    BQ_PASS_SPARSE = 1 << 14,    /* leaves two of four neighbours 0, which passes behind it must keep; */
    BQ_PASS_FILLS = 1 << 15,     /* it would not keep them */
};

/* Room for the options of a pass in a recipe; the size of a struct of options, which must fit. */
#define BQ_PASS_OPTIONS          1280
#define BQ_PASS_OPTIONS_OF(type) BQ_OPTIONS_OF(type, BQ_PASS_OPTIONS)

/* What decides how much device memory a pass takes on this replica. */
typedef struct {
    const bq_arch *arch;
    const bq_scheme *scheme;
    int64_t tokens, samples;
    int replica, nreplica;
    int64_t keeps; /* c->keeps */
} bq_pass_size;

/* The steps of a training in one block, and the samples in a step, which must divide calibration.samples. */
typedef struct {
    int64_t steps, batch;
} bq_training;

/* Why a recipe is refused: the key at fault, or "" for the pass itself, and the reason, for a message. */
typedef struct {
    char key[24], why[160];
} bq_pass_reason;

/* A kind of pass.  One file defines it, one row of table.c lists it.  o: the options of its struct, read from
 * the recipe.  Functions may be NULL, but for `run`; then there is nothing to add, refuse or count.  All but
 * `run` are local. */
typedef struct {
    bq_scope scope;   /* its section of docs/recipes.md, its keys, and the size of its options */
    const char *name; /* in recipes and results */
    unsigned traits;  /* BQ_PASS_CALIBRATED ... */
    unsigned (*more)(const void *o);      /* traits that the options add */
    const char *(*suffix)(const void *o); /* added to its name in results; NULL: none */
    /* Can it run with such inputs?  False: `why` is filled. */
    bool (*fits)(const void *o, bq_inputs inputs, bq_pass_reason *why);
    bq_training (*training)(const void *o, int sweep);
    const bq_train_kind *(*trains)(const void *o); /* what it trains; NULL: nothing */
    /* What to do when it needs too much memory, for a message; NULL: what helps any pass. */
    const char *(*remedy)(const void *o);
    /* Device bytes that it takes beside block, result, workspace and the state of samples (midway.h). */
    size_t (*need)(const void *o, const bq_pass_size *of);
    /* Its work on one block, without a training; the work of one step of a training. */
    bq_effort (*cost)(const void *o, const bq_cost *c);
    bq_effort (*step_cost)(const void *o, const bq_cost *c);
    /* Do it, on the block of c.  Returns the steps done (0 where it does not train), or BQ_PASS_NOT_FINITE or
     * BQ_PASS_STOPPED.  Collective over stage. */
    int64_t (*run)(bq_pass_context *c, const void *o);
    /* In the place of run for an expert without samples, whose codes and grids c->q has already, of its
     * weights as the model has them.  NULL: passes that read samples do nothing there. */
    void (*blind)(bq_pass_context *c, const void *o);
} bq_pass_kind;

/* The table of kinds: row i, NULL after the last; the row of a name, or -1; row i as a choice of a recipe's
 * key, and as its section of docs/recipes.md. */
const bq_pass_kind *bq_pass_kind_at(int i);
int bq_pass_kind_find(const char *name);
bq_choice bq_pass_kind_choice(int i);
const bq_scope *bq_pass_kind_scope(int i);

#endif
