/* acts.h - one stream of hidden states in a file, sample by sample: acts/fp_000.h5 and the log beside it.
 *
 * The file is created whole (dataset /hidden, (samples, tokens, hidden) f32, contiguous, any HDF5 reader
 * opens it) before the first sample; later only raw data is written into it, so a kill can tear a sample but
 * not the file.
 * "<path>.valid" says which samples are there: an append-only log of 32-byte records, each with the XXH3 of
 * the sample's data and a checksum of its own that also covers the file's identity.  What is not a whole
 * record of this very file is skipped, wherever it stands.
 *
 * Several processes may write different samples of one file at a time.  A network file system that loses an
 * appended record loses that sample's validity, never correctness.  One thread per handle.  All calls are
 * local, but for those on a file that was joined. */
#ifndef BQ_ACTS_H
#define BQ_ACTS_H

#include "io/state/h5.h"
#include "io/state/mpio.h"

typedef struct bq_acts bq_acts;

enum {
    BQ_ACTS_OK,
    BQ_ACTS_ABSENT,  /* no such file */
    BQ_ACTS_FOREIGN, /* another fingerprint, shape or version */
    BQ_ACTS_TORN,    /* not a whole file of this kind */
};

/* A new file in the place of any old one, without samples.  Ends the job when the disk fails (also when it
 * has not room for the whole stream).  The caller closes. */
void bq_acts_create(bq_acts **a, const char *path, int64_t samples, int64_t tokens, int64_t hidden,
                    uint64_t fingerprint);

/* Open what a run before left.  Quiet: a BQ_ACTS value, and unless OK the reason in why (BQ_WHY bytes, or
 * NULL); the caller decides to redo, and says so.  On BQ_ACTS_OK the caller closes, else *a is NULL. */
int bq_acts_open(bq_acts **a, const char *path, int64_t samples, int64_t tokens, int64_t hidden,
                 uint64_t fingerprint, char *why);

/* From here on samples go through MPI-IO (io/mpio.h) instead of plain reads and writes: the same bytes and
 * the same log.  All replicas of the stage have the file open and call this, sync and close together.
 * Collective over stage; only where bq_mpio_built. */
void bq_acts_join(bq_acts *a, const bq_comm *comm);
bool bq_acts_joined(const bq_acts *a);

/* data: (tokens, hidden) f32, contiguous.  The sample's record is appended to the log once the data are known
 * to be on disk: by sync or close, or with those of the samples after it, every few seconds or hundred
 * megabytes.  Ends the job when the disk fails.  Fault points acts_write, acts_log, acts_sync. */
void bq_acts_write(bq_acts *a, int64_t sample, const float *data);

/* Whether there is a whole record of the sample, of all in [first, first + count); and how many there are. */
bool bq_acts_has(const bq_acts *a, int64_t sample);
bool bq_acts_has_all(const bq_acts *a, int64_t first, int64_t count);
int64_t bq_acts_count(const bq_acts *a);

/* False when the sample is absent or its data do not have the logged hash: it then counts as absent. */
bool bq_acts_read(bq_acts *a, int64_t sample, float *data);
/* As has_all, and all of them were read: they have the logged hashes. */
bool bq_acts_whole(bq_acts *a, int64_t first, int64_t count);

/* Data first, then the log, are on disk when this returns. */
void bq_acts_sync(bq_acts *a);
/* What was written and not synced is: the data, not the log.  NULL is fine. */
void bq_acts_close(bq_acts *a);

/* The log's parser: sets hash[s] and has[s] for each whole record of a sample s < samples made with this
 * identity; the last record of a sample counts.  Anything else in the bytes is skipped.  Returns the records
 * used. */
int64_t bq_acts_parse(const void *log, size_t bytes, uint64_t identity, int64_t samples, uint64_t *hash,
                      bool *has);

#endif
