/* walk.h - the state of a phase while it walks over a stage's blocks.  phase.c (streams, order, checkpoints)
 * and passes.c (the passes on one block) share it. */
#ifndef BQ_WALK_H
#define BQ_WALK_H

#include "base/shard.h"
#include "driver/load/ahead.h"
#include "driver/run/midblock.h"
#include "io/state/stream.h"

/* For tests: called with the trained values of a linear of a block, before they are folded. */
typedef struct {
    void *ctx;
    void (*trained)(void *ctx, int block, int linear, const bq_adascale *values);
} bq_phase_hooks;

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
    bq_stream fp, target, qt;
    bq_ahead *ahead;            /* reads the next block's weights; or NULL */
    bq_mat room, buffer[3];     /* host: (3 T, H); a part (T, H) for each stream */
    double *loss, *batch;       /* host: of each step of the pass that trained last; of a batch */
    int64_t steps, limit, most; /* entries of loss; its size; that of batch */
    bool said;                  /* the log says how products are computed */
    double seconds[5];          /* load, target, passes, advance, save: of this block */
    int64_t units, all;         /* progress: optimizer steps that are done, and all of them; */
    int64_t before;             /* those done before this pass */
    bq_midblock_keep inside;    /* saves the state of a training inside this block */
} bq_walk;

/* Store an output of the current block, y (T, H) on the device, as sample i of my share of a stream.  NaN or
 * inf ends the job.  Looks for a stop, and moves the reading ahead on.  Local. */
void bq_walk_put(bq_walk *w, bq_stream *to, int64_t i, bq_mat y);

/* Has a stop come to any replica of the stage?  Collective over stage. */
bool bq_walk_stops(const bq_walk *w);

/* Restore the current block's result of a phase and sweep (restore.h).  Local. */
void bq_walk_restore(bq_walk *w, int phase, int sweep, bool fold);

#endif
