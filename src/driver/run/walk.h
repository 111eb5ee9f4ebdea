/* walk.h - one phase on its way over a stage's blocks: what phase.c (streams, order, checkpoints) and
 * passes.c (the passes on one block) share. */
#ifndef BQ_WALK_H
#define BQ_WALK_H

#include "base/shard.h"
#include "driver/load/ahead.h"
#include "driver/run/midblock.h"
#include "io/state/stream.h"

/* What a test may watch: the trained values of linear i of the block, before they are folded. */
typedef struct {
    void *ctx;
    void (*trained)(void *ctx, int block, int linear, const bq_adascale *values);
} bq_phase_hooks;

typedef struct {
    bq_run *s;
    int sweep, phase, block, end; /* end: of the piece at hand */
    const bq_phase *recipe;
    const bq_phase_hooks *hooks;
    bool calibrated, frozen; /* frozen: nothing of this segment is trained in this sweep */
    bool follows;            /* the FP stream is read behind the first block */
    bool advanced;           /* the block's last pass has moved the quantized stream past it */
    bool makes_target;       /* the first pass on the block makes the targets, too */
    bq_shard share, blocks;  /* my samples, my stage's blocks */
    bq_block blk;
    bq_quantized q;
    bq_work work;
    bq_stream fp, target, qt;
    bq_ahead *ahead;            /* of the next block's weights, or NULL */
    bq_mat room, buffer[3];     /* host (3 T, H); of it (T, H), one a stream */
    double *loss, *batch;       /* of the pass that trained last, a value a step; of one batch */
    int64_t steps, limit, most; /* entries of loss; its size; that of batch */
    bool said;                  /* the log says how products are made */
    double seconds[5];          /* load, target, passes, advance, save: of this block */
    int64_t units, all;         /* progress: optimizer steps done and in all, */
    int64_t before;             /* and before this pass */
    bq_midblock_keep inside;    /* this block in the midst of its training */
} bq_walk;

/* A sample of my share as the block at hand has put it out: y, a device view, becomes sample i of a stream.
 * Ends the job where it is no number.  Local. */
void bq_walk_put(bq_walk *w, bq_stream *to, int64_t i, bq_mat y);

/* Has a stop come to any replica of the stage?  Collective over stage. */
bool bq_walk_stops(const bq_walk *w);

/* The result of an earlier sweep, or of this one, into w->q; fold: the folded weights too. */
void bq_walk_restore(bq_walk *w, int phase, int sweep, bool fold);

#endif
