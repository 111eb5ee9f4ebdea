/* SPDX-License-Identifier: Apache-2.0 */
/* stream_file.h - activation files of a run (io/state/acts.h): samples of one stream, each (T, H) f32. */
#ifndef BQ_STREAM_FILE_H
#define BQ_STREAM_FILE_H

#include "driver/streams/run.h"
#include "io/state/acts.h"

/* look: open a file of the run's shape with that hash, or return NULL.  new: make it if there is none.  The
 * caller closes it.  Local. */
bq_acts *bq_stream_file_look(const bq_run *s, const char *path, uint64_t hash);
bq_acts *bq_stream_file_new(const bq_run *s, const char *path, uint64_t hash);

/* join: take what look returned for collective reading and writing, if --acts says so; it is then NULL on all
 * replicas if it was on one, and close is collective, too.  open: look and join.  Collective over stage. */
bq_acts *bq_stream_file_join(const bq_run *s, bq_acts *acts);
bq_acts *bq_stream_file_open(const bq_run *s, const char *path, uint64_t hash);

/* The same for a file that is made if there is none: by replica 0, with --acts root by each replica.
 * Collective over stage. */
bq_acts *bq_stream_file_make(const bq_run *s, const char *path, uint64_t hash);

#endif
