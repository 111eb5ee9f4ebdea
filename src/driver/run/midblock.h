/* midblock.h - what is kept of a block while it is trained, so that a run that ends there loses minutes.
 *
 * Replica 0 of the stage writes the files (io/inside.h), now and then and on a stop; every replica reads its
 * own rows.  Which state counts is replica 0's word.  All calls are collective over stage. */
#ifndef BQ_MIDBLOCK_H
#define BQ_MIDBLOCK_H

#include "driver/streams/run.h"
#include "block/passes/midblock.h"
#include "io/state/midblock.h"

typedef struct {
    const bq_run *s;
    bq_keeper keeper; /* for the pass */
    bq_inside head;   /* who we are, and the parts */
    bq_inside_file *file;
    int found,
        slot;     /* the pass to go on inside (none: -1), and its file; the next save takes the other one */
    double since; /* the last save */
} bq_midblock_keep;

/* Look what a run before left of this block, which has no checkpoint of the sweep yet.  most: steps that
 * there is room for. */
void bq_midblock_begin(bq_midblock_keep *k, const bq_run *s, const bq_quantized *q, int sweep, int phase,
                       int block, int64_t most);

/* The keeper of the pass with that number.  Where a later one was under way this one is done again, to the
 * same bytes, and keeps nothing. */
const bq_keeper *bq_midblock_pass(bq_midblock_keep *k, int pass);

/* The block's checkpoint is on disk: the states are no longer needed. */
void bq_midblock_end(bq_midblock_keep *k);

#endif
