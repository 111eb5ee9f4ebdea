/* stream_file.h - files of one stream of a run: a sample is (tokens, hidden) f32 (io/acts.h). */
#ifndef BQ_STREAM_FILE_H
#define BQ_STREAM_FILE_H

#include "driver/streams/run.h"
#include "io/state/acts.h"

/* A file of one stream of this run's shape, which the caller closes: NULL when there is none of that hash,
 * made where there is none.  Local. */
bq_acts *bq_stream_file_look(const bq_run *s, const char *path, uint64_t hash);
bq_acts *bq_stream_file_new(const bq_run *s, const char *path, uint64_t hash);

/* What look gave, for the replicas of the stage to move samples: joined (io/acts.h) where --acts says so, and
 * then NULL for all when one has none.  Then close is collective, too.  Collective over stage. */
bq_acts *bq_stream_file_join(const bq_run *s, bq_acts *acts);
bq_acts *bq_stream_file_open(const bq_run *s, const char *path, uint64_t hash);

/* The same, created by replica 0 where there is none, with --acts root by each of them.  Collective over
 * stage. */
bq_acts *bq_stream_file_make(const bq_run *s, const char *path, uint64_t hash);

#endif
