/* boundary.h - the quantized stream between two blocks, kept in a file.
 *
 * Where a segment ends, acts/qt_<block>.s<sweep>.h5 is the head of the next one in the sweep after (sweep.h).
 * Where a stage ends inside a segment, acts/qt_<block>.p<phase>.s<sweep>.h5 is handed to the next stage in
 * the same walk: written before the stage does anything else, read when the next one has done all the rest.
 */
#ifndef BQ_BOUNDARY_H
#define BQ_BOUNDARY_H

#include "driver/streams/run.h"
#include "io/state/acts.h"
#include "io/state/stream.h"

/* Before `block`; phase -1: the end of a segment. */
typedef struct {
    int sweep, phase, block;
} bq_boundary;

/* Its path, and the hash that its file carries.  Local. */
uint64_t bq_boundary_file(const bq_run *s, bq_boundary at, char *path, size_t n);

/* Its file for the replicas to read their samples, or NULL; the caller closes.  Collective over stage. */
bq_acts *bq_boundary_open(const bq_run *s, bq_boundary at);

/* The file has all samples of all replicas of the stage, undamaged: until it does, each call reads those that
 * its log has.  A damaged one is said, and counts as absent.  Collective over stage. */
bool bq_boundary_kept(const bq_run *s, bq_boundary at);

/* A sample of an open boundary that was kept, host (T, H); one damaged since ends the job.  Local. */
void bq_boundary_read(bq_acts *acts, bq_boundary at, int64_t sample, bq_mat to);

/* Keep my share of the stream unless the file is there and whole; buffer: host (T, H).  Collective over
 * stage. */
void bq_boundary_keep(const bq_run *s, bq_boundary at, const bq_stream *qt, bq_mat buffer);

/* My share of the kept stream into qt.  Collective over stage. */
void bq_boundary_load(const bq_run *s, bq_boundary at, bq_stream *qt, bq_mat buffer);

/* Wait until another stage has kept it; false: a stop came first, for all replicas.  Collective over stage.
 */
bool bq_boundary_await(const bq_run *s, bq_boundary at);

#endif
