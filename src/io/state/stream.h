/* stream.h - the hidden states of a rank's samples at one depth: on a device, in pinned or other host memory,
 * or in a node-local scratch file.
 *
 * The file is raw, has no name (unlinked at once), and so leaves nothing behind however the job ends.  A
 * broken disk ends the job.  Different samples may be read and written by different threads at a time.  All
 * calls are local. */
#ifndef BQ_STREAM_H
#define BQ_STREAM_H

#include "kernels/ops.h"

/* Where streams live; zeroed: host memory. */
typedef struct {
    bq_place place;
    const char *scratch; /* a directory, for files instead of memory (place BQ_HOST), else NULL */
    bq_dev *dev;         /* whose memory it is, or who pins it; with BQ_HOST unused */
} bq_home;

typedef struct {
    int64_t samples, tokens, hidden;
    bq_home home;
    float *data; /* memory: (samples, tokens, hidden); else NULL.  Owned, on a device the arena's */
    int fd;      /* scratch: the file; meaningless in memory */
    bool open;
} bq_stream;

/* Bytes of such a stream, and what it takes of any memory: for the plan. */
size_t bq_stream_bytes(int64_t samples, int64_t tokens, int64_t hidden);
size_t bq_stream_need(int64_t samples, int64_t tokens, int64_t hidden);

/* Contents start undefined.  Scratch: free space is claimed now, where the file system can, so that a full
 * disk shows here.  Pinned: plain memory where the system pins no more, after one warning.  Device: pushed to
 * its arena, for the caller's mark and reset to give back.  Sizes >= 0.  Close takes what open gave or a
 * zeroed struct. */
void bq_stream_open(bq_stream *s, int64_t samples, int64_t tokens, int64_t hidden, bq_home home);
void bq_stream_close(bq_stream *s);

/* Memory only (a bug otherwise): the sample itself, (tokens, hidden). */
float *bq_stream_map(const bq_stream *s, int64_t sample);

/* The sample as a (tokens, hidden) f32 view, for the device's put.  Memory: the stream's own, wherever it is,
 * buffer unused; scratch: read into buffer (host, any ld), which is returned.  The view is good until buffer
 * is reused or the stream closed. */
bq_mat bq_stream_get(const bq_stream *s, int64_t sample, bq_mat buffer);
/* The same, for the host to read: of a stream on a device a copy in buffer, waited for. */
bq_mat bq_stream_host(const bq_stream *s, int64_t sample, bq_mat buffer);

/* Store a sample; nothing to do when data already is the stream's own view.  data: (tokens, hidden) f32 on
 * the host, and for a stream on a device there, too.  Pinned memory is written at once: no put of that sample
 * may be on its way. */
void bq_stream_put(bq_stream *s, int64_t sample, bq_mat data);

/* Exchange two streams, as the new FP inputs are the old targets.  Sizes may differ. */
void bq_stream_swap(bq_stream *a, bq_stream *b);

#endif
