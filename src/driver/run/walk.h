/* SPDX-License-Identifier: Apache-2.0 */
/* walk.h - the state of a phase while it walks over a stage's blocks.  phase.c (streams, order, checkpoints)
 * and passes.c (the passes on one block) share it. */
#ifndef BQ_WALK_H
#define BQ_WALK_H

#include "base/shard.h"
#include "driver/load/ahead.h"
#include "driver/load/routed.h"
#include "driver/run/midblock.h"
#include "io/state/checkpoint.h"
#include "io/state/stream.h"

/* For tests: called with the trained values of a linear of a block, before they are folded. */
typedef struct {
    void *ctx;
    void (*trained)(void *ctx, int block, int linear, const bq_trained *values);
} bq_phase_hooks;

/* How many of a block's tokens its experts get; how many experts get too few. */
typedef struct {
    int64_t least, median, most;
    int starved;
} bq_coverage;

/* What a walk has where blocks have experts (experts.h). */
typedef struct {
    bq_routed fp, qt; /* the inputs of experts in both streams; experts 0: there is no such stream */
    bq_stream rows[BQ_STREAMS]; /* the tokens of the expert at hand, by stream; open where passes read them */
    bq_stream view[BQ_STREAMS]; /* the same as samples */
    int64_t *tokens;            /* (E): how many of a block's tokens each expert gets */
    int64_t *before;            /* (R + 1, E): likewise in the samples of the replicas before each */
    bq_coverage coverage;
    double *loss;               /* as that of the walk, for experts */
    double seconds;             /* of the passes on experts of this block */
    bq_arch arch, other;        /* of the expert at hand, mine and another replica's */
    bq_layout layout;           /* of mine */
    bq_block guest;             /* the weights of another replica's */
    bq_work work;               /* to apply an expert */
    bq_comm alone;              /* passes on an expert see one replica */
    int64_t samples, length;    /* of the expert at hand, as the passes see it */
    bool starved;               /* is it? */
    int from_phase, from_sweep; /* which result the passes start from; phase -1: none */
} bq_walk_experts;

/* A checkpoint that is being written, and what waits until it is on disk. */
typedef struct {
    bq_ckpt_out *out; /* NULL: none is being written */
    char *room;       /* plan.pending bytes: the copy of its data; NULL: checkpoints are written at once */
    bool any, whole;  /* is there a block to settle?  is it done then, or only its core? */
    int block;
    double seconds; /* of writing the files of a block, and bytes written */
    int64_t bytes;
    char row[512], line[160]; /* of the block, for run.csv and the log; "": none */
} bq_walk_pending;

enum { BQ_WALK_PUTS = 32 };

typedef struct {
    bq_run *s;
    int sweep, phase, block, end; /* end: of the current piece */
    const bq_phase *recipe;
    const bq_phase_hooks *hooks;
    bool calibrated, frozen; /* frozen: this segment is not trained in this sweep */
    bool follows;            /* the FP stream is needed behind the first block */
    bool advanced;           /* the block's last pass has put its outputs in the QT stream */
    bool makes_target;       /* the first pass on the block computes the targets, too */
    bq_shard share, blocks;  /* my samples, my stage's blocks */
    bq_block blk;
    bq_quantized q;
    bq_work work;
    bq_mat raw_heads; /* of work, where a backward has rounded inputs */
    bq_stream fp, target, qt;
    bq_ahead *ahead;            /* reads the next block's weights; or NULL */
    bq_mat room, buffer[3];     /* host: (3 T, H); a part (T, H) for each stream */
    double *loss, *batch;       /* host: of each step of the pass that trained last; of a batch */
    int64_t steps, limit, most; /* entries of loss; its size; samples of a unit at most */
    bool said;                  /* the log says how products are computed */
    double seconds[5];          /* load, target, passes, advance, save: of this block */
    int64_t units, all;         /* progress: optimizer steps that are done, and all of them; */
    int64_t before;             /* those done before this pass */
    struct {
        bq_stream *stream;
        int64_t sample;
        double apart; /* bq_run_ask_finite */
    } put[BQ_WALK_PUTS];
    int puts;                /* outputs on a GPU that have not been judged yet */
    bq_midblock_keep inside; /* saves the state of a training inside this block */
    bq_walk_pending pending;
    bq_walk_experts experts;
} bq_walk;

/* Store an output of the current block, y (T, H) on the device, as sample i of my share of a stream.  NaN or
 * inf ends the job; where a GPU writes to a stream in memory, up to BQ_WALK_PUTS samples later, and at the
 * latest with the last sample: so there is no wait for each.  Looks for a stop, and moves the reading ahead
 * on.  Local. */
void bq_walk_put(bq_walk *w, bq_stream *to, int64_t i, bq_mat y);

/* For loops over samples and steps.  Look for a stop, move the reading ahead on, and settle the block before
 * if its checkpoint is on disk.  Local. */
void bq_walk_poll(bq_walk *w);

/* Compute as the passes and the quantized stream do, or as the reference: the products, and whether inputs of
 * linears are rounded.  Local. */
void bq_walk_quantized(bq_walk *w, bool on);

/* Has a stop come to any replica of the stage?  Collective over stage. */
bool bq_walk_stops(const bq_walk *w);

/* Restore the result that a phase and sweep have of the unit at hand, whose layout w->q has (restore.h).
 * Local. */
void bq_walk_restore(bq_walk *w, int phase, int sweep, bool fold);
/* Write that of the unit at hand to a file, behind the work that follows where the plan has room for a copy;
 * then the file does not count before `written`.  Settles what was written before.  Local. */
void bq_walk_save(bq_walk *w, const char *path);
/* Wait until the file is on disk. */
void bq_walk_written(bq_walk *w);
/* The same; then do what waits for it: the block is done, its training state is removed, run.csv and the log
 * get their line.  Local. */
void bq_walk_settle(bq_walk *w);

#endif
