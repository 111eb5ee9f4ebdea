/* SPDX-License-Identifier: Apache-2.0 */
/* stream.h - the hidden states of a rank's samples at one depth: on a device, in pinned or plain host
 * memory, or in a scratch file on the node.
 *
 * A scratch file is raw (docs/files.md) and its name is removed at once, so nothing is left behind
 * however the job ends.  A failing disk ends the job.  Several threads may read and write different samples
 * at a time.  All calls are local.  Fault points: scratch_open, scratch_read, scratch_write. */
#ifndef BQ_STREAM_H
#define BQ_STREAM_H

#include "kernels/ops.h"

/* Where a stream is; zeroed: host memory. */
typedef struct {
    bq_place place;
    const char *scratch; /* a directory: in a file there (place BQ_HOST); NULL: in memory */
    bq_dev *dev;         /* whose memory it is, or who pins it; not used with BQ_HOST */
} bq_home;

typedef struct {
    int64_t samples, tokens, hidden;
    bq_home home;
    float *data; /* memory: (samples, tokens, hidden), owned (on a device by its arena); scratch: NULL */
    int fd;      /* scratch: the file */
    bool open;
} bq_stream;

/* Bytes of the values; and of the memory that a stream takes at most wherever it is, for the plan. */
size_t bq_stream_bytes(int64_t samples, int64_t tokens, int64_t hidden);
size_t bq_stream_need(int64_t samples, int64_t tokens, int64_t hidden);

/* Open a stream with undefined values; sizes >= 0.  Scratch: the space is claimed now where the file system
 * can, so that a full disk shows here.  Pinned: if the system pins no more, plain memory is taken after a
 * warning.  Device: pushed to its arena; the caller's mark and reset give it back.  close takes what open
 * made, or a zeroed struct. */
void bq_stream_open(bq_stream *s, int64_t samples, int64_t tokens, int64_t hidden, bq_home home);
void bq_stream_close(bq_stream *s);

/* The sample itself, (tokens, hidden); only of a stream in memory. */
float *bq_stream_map(const bq_stream *s, int64_t sample);

/* The sample as a (tokens, hidden) f32 view.  In memory: the stream's own, wherever that is; buffer is not
 * used.  Scratch: read into buffer (host, any ld), which is returned.  Valid until buffer is used again or
 * the stream is closed. */
bq_mat bq_stream_get(const bq_stream *s, int64_t sample, bq_mat buffer);
/* The same for the host to read: of a stream on a device it is a finished copy in buffer. */
bq_mat bq_stream_host(const bq_stream *s, int64_t sample, bq_mat buffer);

/* Store a sample; does nothing if data is the stream's own view.  data: (tokens, hidden) f32 on the host;
 * for a stream on a device it may be there, too.  Pinned memory is written at once: no copy from that
 * sample to the device may still be running. */
void bq_stream_put(bq_stream *s, int64_t sample, bq_mat data);

/* Can a device compute on samples where they are?  The sample then, as a view. */
bool bq_stream_direct(const bq_stream *s, const bq_dev *dev);

/* Rows of a sample of a stream that is not on a device, by their numbers: copy them to m (n, hidden), host,
 * or from there. */
void bq_stream_take_rows(const bq_stream *s, int64_t sample, const int32_t *row, bq_mat m);
void bq_stream_put_rows(bq_stream *s, int64_t sample, const int32_t *row, bq_mat m);

/* A stream over memory of another (samples * tokens, hidden), contiguous; it is not closed. */
bq_stream bq_stream_over(bq_mat memory, int64_t tokens);

/* Make it one of other sizes, with at most as many values; they are then undefined. */
void bq_stream_shape(bq_stream *s, int64_t samples, int64_t tokens);

/* Exchange two streams, of any sizes. */
void bq_stream_swap(bq_stream *a, bq_stream *b);

#endif
