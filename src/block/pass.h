/* pass.h - what a pass sees of the world, and what it leaves.
 *
 * The passes of a phase work on one block after each other.  Those that prepare (smoothing, clipping) change
 * c->blk: weights, norms and biases, or factors of what linears are fed, so that the FP block stays the same
 * function, or nearly.  Those that quantize leave codes and grids in c->q, and the weights behind the codes
 * both in c->q->fold and c->blk->w, where the next pass starts.  A pass reads calibration samples through
 * `fetch` and computes on the device. It opens no file; what the replicas must share goes through comm. */
#ifndef BQ_PASS_H
#define BQ_PASS_H

#include "block/block.h"
#include "comm/comm.h"

#include <signal.h>

/* A quantized block on the device.  code = quantize(fold), what = dequantize(code), exactly. */
typedef struct {
    const bq_arch *arch;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    bq_mat what[BQ_MATS];          /* (rows, cols) f32: the weights that the next blocks see */
    bq_mat fold[BQ_MATS];          /* (rows, cols) f32: folded weights; gradients while a pass trains */
    bq_mat code[BQ_MATS];          /* (rows, cols) i8 */
    bq_mat scale[BQ_ARCH_LINEARS]; /* (rows * groups, 1) f32, groups of a row side by side */
    bq_mat zero[BQ_ARCH_LINEARS];  /* the same for zero points; data NULL where the scheme is symmetric */
    bq_mat pre[BQ_ARCH_LINEARS];   /* (1, cols) f32: room for a block's factors; data NULL unless pushed */
} bq_quantized;

void bq_quantized_push(bq_quantized *q, const bq_arch *arch, const bq_scheme *scheme, bq_arena *mem);
size_t bq_quantized_need(const bq_arch *arch, const bq_scheme *scheme);

/* Room for factors of what the linears are fed (block.h), of which most runs have none. */
void bq_quantized_push_pre(bq_quantized *q, bq_arena *mem);
size_t bq_quantized_need_pre(const bq_arch *arch);

/* Groups in a row of linear i; a scheme's group must divide the columns (checked with the recipe). */
int64_t bq_linear_groups(const bq_arch *arch, const bq_scheme *scheme, int i);
/* Linear i's rows of the four matrices, and the same memory as rows of one group each. */
bq_mat bq_linear_view(const bq_arch *arch, int i, const bq_mat mats[BQ_MATS]);
bq_mat bq_linear_grouped(const bq_arch *arch, const bq_scheme *scheme, int i, const bq_mat mats[BQ_MATS]);

/* Codes from fold and scale, what from both: of one linear, of all. */
void bq_linear_encode(bq_dev *dev, bq_quantized *q, int i);
void bq_quantized_encode(bq_dev *dev, bq_quantized *q);
/* what from code and scale (a restored block). */
void bq_quantized_decode(bq_dev *dev, bq_quantized *q);

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

/* Why a pass has left no result, below 0: a number was no number, or c->stop. */
enum { BQ_PASS_NOT_FINITE = -1, BQ_PASS_STOPPED = -2 };

/* Round to nearest on the min-max grid. */
void bq_pass_rtn(bq_pass_context *c);

#endif
