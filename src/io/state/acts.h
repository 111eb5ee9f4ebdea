/* SPDX-License-Identifier: Apache-2.0 */
/* acts.h - one stream of hidden states in a file, sample by sample: acts/fp_000.h5, and the log beside it,
 * "<path>.valid".  docs/files.md has both.
 *
 * The file has all its space before the first sample is written; later only values are written.  So a kill
 * can tear a sample, but not the file.  The log is only appended to: each record has the hash of one
 * sample, and a check that covers the file's identity.  What is not a whole record of this file is skipped.
 *
 * Several processes may write different samples of one file at a time.  A network file system that loses a
 * record makes that sample absent, never wrong.  One thread at a time per handle.  All calls are local,
 * except those on a joined file that say otherwise. */
#ifndef BQ_ACTS_H
#define BQ_ACTS_H

#include "io/state/h5.h"
#include "io/state/mpio.h"

typedef struct bq_acts bq_acts;

/* As bq_h5_get_head says; foreign, too: another shape; torn, too: not an own file. */
enum { BQ_ACTS_OK, BQ_ACTS_ABSENT, BQ_ACTS_FOREIGN, BQ_ACTS_TORN };

/* Make a new file without samples; an old one and its log are replaced.  Ends the job when the disk fails,
 * or where the file system can tell that the whole stream does not fit.  The caller closes. */
void bq_acts_create(bq_acts **a, const char *path, int64_t samples, int64_t tokens, int64_t hidden,
                    uint64_t fingerprint);

/* Open the file of an earlier run.  Prints nothing.  Returns a BQ_ACTS value; unless it is OK, why has the
 * reason (BQ_WHY bytes, or NULL) and *a is NULL.  On BQ_ACTS_OK the caller closes.  Where the log cannot be
 * read, no sample counts. */
int bq_acts_open(bq_acts **a, const char *path, int64_t samples, int64_t tokens, int64_t hidden,
                 uint64_t fingerprint, char *why);

/* From here on samples go through MPI-IO (mpio.h): the same bytes, the same log.  All replicas of the stage
 * have the file open; they call this, sync and close together.  Only where bq_mpio_built.  Collective over
 * stage. */
void bq_acts_join(bq_acts *a, const bq_comm *comm);
bool bq_acts_joined(const bq_acts *a);

/* Write a sample.  data: (tokens, hidden) f32, contiguous.  The sample's record is appended to the log when
 * its data are on disk: by sync or close, or by a later write when 256 MiB or five seconds have passed.
 * Ends the job when the disk fails.  Fault points acts_write, acts_log, acts_sync. */
void bq_acts_write(bq_acts *a, int64_t sample, const float *data);

/* Is there a record of the sample; of all in [first, first + count)?  Nothing is read. */
bool bq_acts_has(const bq_acts *a, int64_t sample);
bool bq_acts_has_all(const bq_acts *a, int64_t first, int64_t count);

/* Read a sample.  False if it is absent, cannot be read, or has not the logged hash; it then counts as
 * absent.  Fault point acts_read. */
bool bq_acts_read(bq_acts *a, int64_t sample, float *data);
/* As has_all, and reads all of them: they have the logged hashes. */
bool bq_acts_whole(bq_acts *a, int64_t first, int64_t count);

/* First the data, then the log is on disk when this returns.  Collective over stage for a joined file. */
void bq_acts_sync(bq_acts *a);
/* Append the records that wait, after a sync of the data; the log is not synced.  NULL is fine.  Collective
 * over stage for a joined file. */
void bq_acts_close(bq_acts *a);

/* Parse a log.  Sets hash[s] and has[s] for each whole record of a sample s < samples that has this identity;
 * the last record of a sample counts.  All other bytes are skipped.  Returns the number of records used.  */
int64_t bq_acts_parse(const void *log, size_t bytes, uint64_t identity, int64_t samples, uint64_t *hash,
                      bool *has);

#endif
