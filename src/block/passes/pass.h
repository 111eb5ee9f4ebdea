/* pass.h - what a pass sees of the world, and what it leaves.
 *
 * The passes of a phase work on one block after each other.  Those that prepare (smoothing, clipping) change
 * c->blk: weights, norms and biases, or factors of what linears are fed, so that the FP block stays the same
 * function, or nearly.  Those that quantize leave codes and grids in c->q, and the weights behind the codes
 * both in c->q->fold and c->blk->w, where the next pass starts.  A pass reads calibration samples through
 * `fetch` and computes on the device. It opens no file; what the replicas must share goes through comm. */
#ifndef BQ_PASS_H
#define BQ_PASS_H

#include "base/key.h"
#include "block/model/cost.h"
#include "block/model/quantized.h"
#include "comm/comm.h"

#include <signal.h>

typedef enum { BQ_INPUTS_FP, BQ_INPUTS_QT, BQ_INPUTS_MIX } bq_inputs;
typedef enum { BQ_STREAM_FP, BQ_STREAM_QT, BQ_STREAM_TARGET } bq_stream_id;

/* Keeps what a pass has trained for a later process; block/inside.h says what that is.  Calls come between
 * two steps; save and restore are collective over stage. */
typedef struct bq_adascale_state bq_adascale_state;
typedef struct {
    void *ctx;
    bool (*due)(void *ctx); /* is it time to save?  Only replica 0 is asked */
    void (*save)(void *ctx, bq_adascale_state *state, bool stop); /* stop: some replica was told to */
    bool (*restore)(void *ctx, bq_adascale_state *state); /* before the first step; false: nothing was kept */
} bq_keeper;

typedef struct {
    bq_dev *dev;
    bq_block *blk;           /* FP weights as the passes before have left them */
    bq_work *work;           /* for `tokens` tokens, with the backward's buffers where the pass trains */
    bq_quantized *q;         /* the result */
    bool grid;               /* q's grids and codes are those of a pass before: start from them */
    const bq_comm *comm;     /* replicas share the samples, and the rows of what is trained */
    int64_t samples, tokens; /* all samples; this replica has bq_shard_of(samples, replica, nreplica) */
    int64_t keeps;           /* of so many of its samples a pass may keep what it goes on from (midway.h) */
    double *batch;           /* host room for a batch's losses and two more, where the pass trains */
    bq_inputs input;
    double mix;     /* probability of the QT stream per element with BQ_INPUTS_MIX */
    bq_rng_key at;  /* seed, sweep, phase, block */
    double *losses; /* of the steps of a pass that trains: room for all of them */
    /* A sample's hidden states as a host view (tokens, hidden), valid until the next call for the same
     * stream; only samples of this replica's share are asked for. */
    bq_mat (*fetch)(void *ctx, bq_stream_id stream, int64_t sample);
    /* Takes a sample's output of the block with what is in q, a device view (tokens, hidden), in the place of
     * its input: for a pass that quantizes and comes to the outputs anyway, of all samples of the share in
     * order, each after the last fetch of it.  NULL: nobody does. */
    void (*advance)(void *ctx, int64_t sample, bq_mat y);
    /* Takes a sample's output of the block with the weights as the pass finds them, a device view (tokens,
     * hidden): for a pass whose first walk over the FP stream comes near it (channels.h), of all samples of
     * the share in order.  NULL: nobody does. */
    void (*target)(void *ctx, int64_t sample, bq_mat y);
    /* Called after each step with its loss; may be NULL. */
    void (*step)(void *ctx, int64_t step, int64_t steps, double loss);
    /* Set by a signal on any replica: the pass ends after the step it is at, its work lost unless kept. */
    const volatile sig_atomic_t *stop;
    const bq_keeper *keeper; /* may be NULL */
    /* For tests: the trained values of a linear, before they are folded; may be NULL. */
    void (*trained)(void *ctx, int linear, const bq_adascale *values);
    void *ctx;
} bq_pass_context;

/* A pass's random numbers depend on its phase and on its place i in the phase: at.phase = phase + this * i.
 * Another value changes result bytes. */
#define BQ_RNG_PASS_STRIDE 8

/* Why a pass has left no result, below 0: a number was no number, or c->stop. */
enum { BQ_PASS_NOT_FINITE = -1, BQ_PASS_STOPPED = -2 };

/* Round to nearest on the min-max grid: what other passes start from, or fall back to. */
void bq_pass_rtn(bq_pass_context *c);

/* ---- a kind of pass ---- */

/* What others must know of a pass before it runs. */
enum {
    BQ_PASS_CALIBRATED = 1 << 0, /* reads calibration samples */
    BQ_PASS_FP = 1 << 1,         /* reads the FP stream even where `inputs` is qt */
    BQ_PASS_TARGETS = 1 << 2,    /* reads the block's outputs of the FP stream */
    BQ_PASS_QUANTIZES = 1 << 3,  /* leaves codes; a pass that does not comes before all that do */
    BQ_PASS_TRAINS = 1 << 4,     /* is repeated in later sweeps, and can be kept between two steps */
    BQ_PASS_BACKWARD = 1 << 5,   /* needs the workspace of a backward */
    BQ_PASS_HANDS_ON = 1 << 6,   /* its first walk over the samples computes the targets, too: c->target */
    BQ_PASS_ZEROS = 1 << 7,      /* can make codes with zero points */
    BQ_PASS_AIMET_GRID = 1 << 8, /* works on grids by the rule `aimet` alone */
    BQ_PASS_KEEPS = 1 << 9,      /* keeps samples halfway through the block (midway.h) */
    BQ_PASS_MOMENTS = 1 << 10,   /* multiplies by second moments of the inputs */
    BQ_PASS_PRESCALES = 1 << 11, /* leaves factors of the linears' inputs beside the weights */
};

/* Room for a pass's options in a recipe. */
#define BQ_PASS_OPTIONS 1280
#define BQ_PASS_OPTIONS_OF(type)                                                                             \
    (sizeof(type) + 0 * sizeof(struct {                                                                      \
                        _Static_assert(sizeof(type) <= BQ_PASS_OPTIONS, "too large");                        \
                        int x;                                                                               \
                    }))

/* What decides how much device memory a pass takes on this replica. */
typedef struct {
    const bq_arch *arch;
    const bq_scheme *scheme;
    int64_t tokens, samples;
    int replica, nreplica;
    int64_t keeps; /* samples that a pass with BQ_PASS_KEEPS keeps */
} bq_pass_size;

/* Steps of a pass that trains, in one block, and samples of a step, which divide calibration.samples. */
typedef struct {
    int64_t steps, batch;
} bq_training;

/* A key of the pass, "" for the pass itself, and why its value cannot be. */
typedef struct {
    char key[24], why[160];
} bq_pass_reason;

/* One file defines a kind, one row of passes.c lists it.  o: the kind's options, as the recipe has them.
 * Functions that are NULL have a default. */
typedef struct {
    bq_scope scope;                       /* its section of docs/recipes.md; keys and size of the options */
    const char *name;                     /* in recipes and results */
    unsigned traits;                      /* BQ_PASS_CALIBRATED ... */
    unsigned (*more)(const void *o);      /* traits that its options add */
    const char *(*suffix)(const void *o); /* of its name in results; NULL: none */
    /* False, and why, where it cannot run on such inputs. */
    bool (*fits)(const void *o, bq_inputs inputs, bq_pass_reason *why);
    bq_training (*training)(const void *o, int sweep);
    /* What to do when its memory is too much; NULL: what helps any pass. */
    const char *(*remedy)(const void *o);
    /* Device bytes that it takes beside block, result, workspace and what it keeps midway. */
    size_t (*need)(const void *o, const bq_pass_size *of);
    /* Its work on one block: without training; of one step of a training. */
    bq_effort (*cost)(const void *o, const bq_cost *c);
    bq_effort (*step_cost)(const void *o, const bq_cost *c);
    /* Steps done, or a value below 0.  Collective over stage. */
    int64_t (*run)(bq_pass_context *c, const void *o);
} bq_pass_kind;

/* The table: row i, NULL behind the last; the row of a name, or -1; and the names as choices of a key. */
const bq_pass_kind *bq_pass_kind_at(int i);
int bq_pass_kind_find(const char *name);
bq_choice bq_pass_kind_choice(int i);
const bq_scope *bq_pass_kind_scope(int i);

#endif
