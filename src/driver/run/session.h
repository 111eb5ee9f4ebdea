/* session.h - one run on one rank: everything it has open, set up in the order in which things can be
 * refused. */
#ifndef BQ_SESSION_H
#define BQ_SESSION_H

#include "driver/streams/run.h"

/* Bumped whenever a change of code changes result bytes: part of every fingerprint. */
#define BQ_NUMERICS 3

/* Read and check everything that a user gave: recipe, model, tokens, and whether it fits.  BQ_OK, or the exit
 * code after one message.  Opens the device too.  Nothing is written.  Collective over world; close takes any
 * state. */
int bq_session_open(bq_run *s, const bq_args *args, bq_comm *comm);

/* A finished run, for `eval --run` and `export`: recipe, model and checkpoints of args->run, on any number of
 * ranks and any kind of machine; calibration is not needed.  BQ_DATA when the run is not finished or its
 * model has changed.  Collective. */
int bq_session_open_finished(bq_run *s, const bq_args *args, bq_comm *comm);

/* Make the run directory and its log, write the resolved recipe, compare fingerprints with what a run before
 * left there. BQ_OK, BQ_USAGE (unwritable; neither empty nor a run; with links or other things where blockq
 * has files; made by another recipe: the message lists what changed), BQ_DATA (NaN weights; a model of
 * somebody else where an output is to go). */
int bq_session_enter(bq_run *s);

/* Open the state of what the run directory holds.  BQ_OK, or BQ_USAGE where that was made by
 * another recipe, or of other inputs: the message has the keys with both values.  Local. */
int bq_session_resume(bq_run *s);

/* Write ckpt/state.json: what is done, after `seconds` of this run.  Local, rank 0 writes. */
void bq_session_save(bq_run *s, double seconds);

void bq_session_close(bq_run *s);

#endif
