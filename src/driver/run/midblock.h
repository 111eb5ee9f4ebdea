/* SPDX-License-Identifier: Apache-2.0 */
/* midblock.h - saves the state of a training inside a block, so that a run that stops there loses little.
 *
 * Replica 0 of the stage writes the files (io/state/midblock.h), at intervals and on a stop; every replica
 * reads its own rows.  Replica 0 decides which state is used.  All calls are collective over stage. */
#ifndef BQ_MIDBLOCK_H
#define BQ_MIDBLOCK_H

#include "driver/streams/run.h"
#include "block/passes/midblock.h"
#include "io/state/midblock.h"

typedef struct {
    const bq_run *s;
    const bq_quantized *q;
    bq_keeper keeper; /* for the pass */
    bq_inside head;   /* sweep, phase, block and pass; the parts of that pass */
    bq_inside_file *file;
    int found, slot; /* the pass to continue (none: -1), and its file; the next save writes the other one */
    double since;    /* time of the last save */
} bq_midblock_keep;

/* Find the state that an earlier run saved of this block, which has no checkpoint of the sweep yet.  A state
 * after more than `most` steps is not used. */
void bq_midblock_begin(bq_midblock_keep *k, const bq_run *s, const bq_quantized *q, int sweep, int phase,
                       int block, int64_t most);

/* The keeper of the pass with that number.  If the saved state is of a later pass, this pass runs again, with
 * the same bytes as before, and saves nothing. */
const bq_keeper *bq_midblock_pass(bq_midblock_keep *k, int pass);

#endif
