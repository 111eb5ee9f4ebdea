/* passes.h - the passes of a phase on one block. */
#ifndef BQ_PASSES_H
#define BQ_PASSES_H

#include "driver/run/walk.h"

/* Run the phase's passes on the current block, whose FP weights are in w->blk; the result is in w->q.  BQ_OK,
 * or BQ_STOPPED after the state of a training was saved.  Collective over stage. */
int bq_walk_passes(bq_walk *w);

#endif
