/* SPDX-License-Identifier: Apache-2.0 */
/* passes.h - the passes of a phase on one block. */
#ifndef BQ_PASSES_H
#define BQ_PASSES_H

#include "driver/run/walk.h"

/* Run the phase's passes on the current block, or on its core, whose FP weights are in w->blk; the result is
 * in w->q.  BQ_OK, or BQ_STOPPED after the state of a training was saved.  Collective over stage. */
int bq_walk_passes(bq_walk *w);

/* The same on the expert at hand, alone on this replica; no state is saved when it stops.  One without any
 * tokens is rounded to nearest.  Local. */
int bq_walk_passes_expert(bq_walk *w);

/* The result that the passes on the current block start from: this phase's of an earlier sweep, or that of
 * the phase before; phase -1: there is none.  Collective over stage. */
void bq_walk_start(bq_walk *w, int *phase, int *sweep);

#endif
