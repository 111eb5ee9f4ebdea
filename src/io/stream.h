/* stream.h - the hidden states of a rank's samples at one depth: in host memory, or in a node-local scratch
 * file.
 *
 * The file is raw, has no name (unlinked at once), and so leaves nothing behind however the job ends.  A
 * broken disk ends the job.  Different samples may be read and written by different threads at a time.  All
 * calls are local. */
#ifndef BQ_STREAM_H
#define BQ_STREAM_H

#include "base/mat.h"

typedef struct {
    int64_t samples, tokens, hidden;
    float *data; /* memory: (samples, tokens, hidden), owned; else NULL */
    int fd;      /* scratch: the file; meaningless in memory */
    bool open;
} bq_stream;

/* Bytes of such a stream, in memory or on disk: for the plan. */
size_t bq_stream_bytes(int64_t samples, int64_t tokens, int64_t hidden);

/* Contents start undefined.  scratch_dir NULL: memory.  Else its free space is claimed now, where the file
 * system can, so that a full disk shows here.  Sizes >= 0.  Close takes what open gave or a zeroed struct. */
void bq_stream_open(bq_stream *s, int64_t samples, int64_t tokens, int64_t hidden, const char *scratch_dir);
void bq_stream_close(bq_stream *s);

/* Memory only (a bug otherwise): the sample itself, (tokens, hidden). */
float *bq_stream_map(const bq_stream *s, int64_t sample);

/* The sample as a (tokens, hidden) f32 view.  Memory: the stream's own, buffer unused; scratch: read into
 * buffer (any ld), which is returned.  The view is good until buffer is reused or the stream closed. */
bq_mat bq_stream_get(const bq_stream *s, int64_t sample, bq_mat buffer);

/* Store a sample; nothing to do when data already is the stream's own view.  data: host, (tokens, hidden)
 * f32. */
void bq_stream_put(bq_stream *s, int64_t sample, bq_mat data);

/* Exchange two streams, as the new FP inputs are the old targets.  Sizes may differ. */
void bq_stream_swap(bq_stream *a, bq_stream *b);

#endif
