/* SPDX-License-Identifier: Apache-2.0 */
/* boundary.h - the QT stream between two blocks, kept in a file.
 *
 * At the end of a segment: acts/qt_<block>.s<sweep>.h5, from which the next segment starts in the next sweep
 * (sweep.h).  Where a stage ends inside a segment: acts/qt_<block>.p<phase>.s<sweep>.h5.  The stage writes it
 * first of all, and the next stage reads it after all its other work in the phase (bq_grid_pieces). */
#ifndef BQ_BOUNDARY_H
#define BQ_BOUNDARY_H

#include "driver/streams/run.h"
#include "io/state/acts.h"
#include "io/state/stream.h"

/* The boundary before `block`; phase -1: at the end of a segment. */
typedef struct {
    int sweep, phase, block;
} bq_boundary;

/* The path of its file, and the hash that the file carries.  Local. */
uint64_t bq_boundary_file(const bq_run *s, bq_boundary at, char *path, size_t n);

/* Open its file to read samples; NULL if there is none.  The caller closes it.  Collective over stage. */
bq_acts *bq_boundary_open(const bq_run *s, bq_boundary at);

/* Does the file have all samples of all replicas of the stage, undamaged?  Until it does, each call reads the
 * samples that are listed in it.  A damaged sample counts as absent, after a warning.  Collective over
 * stage. */
bool bq_boundary_kept(const bq_run *s, bq_boundary at);

/* Read a sample, host (T, H), of a boundary that was found whole; a damaged one ends the job.  Local. */
void bq_boundary_read(bq_acts *acts, bq_boundary at, int64_t sample, bq_mat to);

/* Write my share of the stream, unless the file is there and whole.  buffer: host (T, H).  Collective over
 * stage. */
void bq_boundary_keep(const bq_run *s, bq_boundary at, const bq_stream *qt, bq_mat buffer);

/* Read my share of the kept stream into qt.  Collective over stage. */
void bq_boundary_load(const bq_run *s, bq_boundary at, bq_stream *qt, bq_mat buffer);

/* Wait until another stage has kept it.  False on all replicas: a stop came first.  Collective over
 * stage. */
bool bq_boundary_await(const bq_run *s, bq_boundary at);

#endif
