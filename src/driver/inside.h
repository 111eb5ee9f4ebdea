/* inside.h - what is kept of a block while it is trained, so that a run that ends there loses minutes.
 *
 * Replica 0 of the stage writes the files (io/inside.h), now and then and on a stop; every replica reads its
 * own rows.  Which state counts is replica 0's word.  All calls are collective over stage. */
#ifndef BQ_DRIVER_INSIDE_H
#define BQ_DRIVER_INSIDE_H

#include "driver/session.h"
#include "block/inside.h"
#include "io/inside.h"

typedef struct {
    const bq_session *s;
    bq_keeper keeper; /* for the pass */
    bq_inside head;   /* who we are, and the parts */
    bq_inside_file *file;
    int found,
        slot;     /* the pass to go on inside (none: -1), and its file; the next save takes the other one */
    double since; /* the last save */
} bq_inside_keep;

/* Look what a run before left of this block, which has no checkpoint of the sweep yet.  most: steps that
 * there is room for. */
void bq_inside_begin(bq_inside_keep *k, const bq_session *s, const bq_quantized *q, int sweep, int phase,
                     int block, int64_t most);

/* The keeper of the pass with that number.  Where a later one was under way this one is done again, to the
 * same bytes, and keeps nothing. */
const bq_keeper *bq_inside_pass(bq_inside_keep *k, int pass);

/* The block's checkpoint is on disk: the states are no longer needed. */
void bq_inside_end(bq_inside_keep *k);

#endif
