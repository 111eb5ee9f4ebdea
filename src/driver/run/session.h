/* SPDX-License-Identifier: Apache-2.0 */
/* session.h - opens and closes a run on one rank.  Checks come first, so a run that must be refused changes
 * nothing. */
#ifndef BQ_SESSION_H
#define BQ_SESSION_H

#include "driver/streams/run.h"

/* Increased whenever a change of code changes result bytes; it is part of every fingerprint. */
#define BQ_NUMERICS 4

/* Read and check what the user gave (recipe, model, tokens) and whether it fits into memory; open the device.
 * Writes nothing.  BQ_OK, or the exit code after one message; close is due in any case.  Collective over
 * world. */
int bq_session_open(bq_run *s, const bq_args *args, bq_comm *comm);

/* Open the finished run args->run, for `eval --run` and `export`: recipe, model and checkpoints.  It may have
 * been made on another number of ranks and kind of machine.  BQ_DATA when it is not finished or its model has
 * changed.  Collective over world. */
int bq_session_open_finished(bq_run *s, const bq_args *args, bq_comm *comm);

/* Make the run directory and its log, write the resolved recipe, compare fingerprints with those that an
 * earlier run left there.  BQ_OK; BQ_USAGE (unwritable; neither empty nor a run; links in the place of files;
 * made by another recipe: the message lists what changed); BQ_DATA (NaN weights; an output's directory holds
 * another model).  Collective over world. */
int bq_session_enter(bq_run *s);

/* The first part of enter: check the run directory before anything is made there, make it, take its lock,
 * open its log.  reference: with --reference make the folder of the FP stream, one for each stream, and
 * take its lock; after the stream's hash is known.  Returns as enter.  Local: rank 0 first. */
int bq_session_place(bq_run *s);
int bq_session_reference(bq_run *s);

/* Read what the run directory holds into s->state.  BQ_OK, or BQ_USAGE if another recipe or other inputs made
 * it: the message lists the keys with both values.  Local. */
int bq_session_resume(bq_run *s);

/* Write ckpt/state.json: what is done, after `seconds` of this run.  Only rank 0 writes.  Local. */
void bq_session_save(bq_run *s, double seconds);

void bq_session_close(bq_run *s);

#endif
