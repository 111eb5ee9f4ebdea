/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/stream.h"

#include "base/die.h"
#include "base/log.h"
#include "io/files.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const size_t alignment = 256; /* good for vector loads and for copies from pinned memory */

size_t bq_stream_bytes(int64_t samples, int64_t tokens, int64_t hidden) {
    int64_t bytes = sizeof(float);
    BQ_CHECK(samples >= 0 && tokens >= 0 && hidden >= 0 && !__builtin_mul_overflow(bytes, samples, &bytes) &&
                 !__builtin_mul_overflow(bytes, tokens, &bytes) &&
                 !__builtin_mul_overflow(bytes, hidden, &bytes),
             "a stream of %" PRId64 " x %" PRId64 " x %" PRId64 " values", samples, tokens, hidden);
    return (size_t)bytes;
}

size_t bq_stream_need(int64_t samples, int64_t tokens, int64_t hidden) {
    return bq_stream_bytes(samples, tokens, hidden) ? bq_arena_need(samples * tokens, hidden, BQ_F32) : 0;
}

/* Contiguous pieces of a view: one, or its rows. */
static int64_t runs_of(bq_mat m) { return m.ld == m.cols || m.rows < 1 ? 1 : m.rows; }

static void check_sample(const bq_stream *s, int64_t sample) {
    BQ_CHECK(s->open && sample >= 0 && sample < s->samples, "sample %" PRId64 " of a stream of %" PRId64,
             sample, s->samples);
}

static void check_view(const bq_stream *s, bq_mat m) {
    bool there = m.place != BQ_DEVICE || s->home.place == BQ_DEVICE;
    BQ_CHECK(m.rows == s->tokens && m.cols == s->hidden && m.type == BQ_F32 && there,
             "a %" PRId64 " x %" PRId64 " view of %s for samples of %" PRId64 " x %" PRId64, m.rows, m.cols,
             bq_type_name(m.type), s->tokens, s->hidden);
}

static bool fails(const char *point, int error) { return bq_fault(point) && (errno = error, true); }

static int open_scratch(const char *dir, int64_t bytes) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, dir, "blockq-stream-XXXXXX");
    int fd = bq_fault("scratch_open") ? (errno = ENOSPC, -1) : mkostemp(path, O_CLOEXEC);
    BQ_CHECK(fd >= 0, "scratch file in '%s': %s", dir, strerror(errno));
    unlink(path);
    BQ_CHECK(bq_raw_reserve(fd, bytes) && ftruncate(fd, bytes) == 0,
             "scratch file of %" PRId64 " bytes in '%s': %s", bytes, dir, strerror(errno));
    return fd;
}

void bq_stream_open(bq_stream *s, int64_t samples, int64_t tokens, int64_t hidden, bq_home home) {
    size_t bytes = bq_stream_bytes(samples, tokens, hidden);
    *s = (bq_stream){
        .samples = samples, .tokens = tokens, .hidden = hidden, .home = home, .fd = -1, .open = true};
    if (home.scratch) {
        s->fd = open_scratch(home.scratch, (int64_t)bytes);
        return;
    }
    if (home.place == BQ_DEVICE)
        s->data = bq_arena_push(&home.dev->mem, samples * tokens, hidden, BQ_F32).data;
    if (home.place == BQ_PINNED) s->data = home.dev->op->pin(home.dev, bytes);
    if (home.place == BQ_PINNED && !s->data) {
        bq_log_all(BQ_WARN,
                   "a stream of %zu bytes cannot be pinned: plain memory holds it, copies are slower", bytes);
        s->home.place = BQ_HOST;
    }
    if (s->home.place == BQ_HOST)
        s->data = aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
    BQ_CHECK(s->data, "no memory for a stream of %zu bytes", bytes);
}

void bq_stream_close(bq_stream *s) {
    if (!s->open) return;
    if (s->home.place == BQ_HOST) free(s->data);
    if (s->home.place == BQ_PINNED) s->home.dev->op->unpin(s->home.dev, s->data);
    if (s->fd >= 0) close(s->fd);
    *s = (bq_stream){0};
}

float *bq_stream_map(const bq_stream *s, int64_t sample) {
    check_sample(s, sample);
    BQ_CHECK(s->data, "a stream in a scratch file has no address");
    return s->data + sample * s->tokens * s->hidden;
}

static bq_mat own(const bq_stream *s, int64_t sample) {
    bq_mat m = bq_mat_host(bq_stream_map(s, sample), s->tokens, s->hidden, BQ_F32);
    m.place = s->home.place;
    return m;
}

bq_mat bq_stream_get(const bq_stream *s, int64_t sample, bq_mat buffer) {
    check_sample(s, sample);
    if (s->data) return own(s, sample);
    check_view(s, buffer);
    int64_t runs = runs_of(buffer), run = s->tokens * s->hidden / runs * (int64_t)sizeof(float);
    for (int64_t r = 0; r < runs; r++)
        BQ_CHECK(!fails("scratch_read", EIO) &&
                     bq_raw_read(s->fd, bq_mat_at(buffer, r, 0), (size_t)run, (sample * runs + r) * run),
                 "read of a scratch file failed: %s", strerror(errno));
    return buffer;
}

bq_mat bq_stream_host(const bq_stream *s, int64_t sample, bq_mat buffer) {
    bq_mat m = bq_stream_get(s, sample, buffer);
    if (m.place != BQ_DEVICE) return m;
    check_view(s, buffer);
    s->home.dev->op->get(s->home.dev, m, buffer);
    s->home.dev->op->wait(s->home.dev);
    return buffer;
}

void bq_stream_put(bq_stream *s, int64_t sample, bq_mat data) {
    check_sample(s, sample);
    check_view(s, data);
    if (s->data && data.data == bq_stream_map(s, sample)) return;
    if (s->home.place == BQ_DEVICE) {
        s->home.dev->op->put(s->home.dev, data, own(s, sample));
        return;
    }
    int64_t runs = runs_of(data), run = s->tokens * s->hidden / runs * (int64_t)sizeof(float);
    for (int64_t r = 0; r < runs; r++) {
        const void *from = bq_mat_at(data, r, 0);
        int64_t at = (sample * runs + r) * run;
        if (s->data)
            memcpy((char *)s->data + at, from, (size_t)run);
        else
            BQ_CHECK(!fails("scratch_write", ENOSPC) && bq_raw_write(s->fd, from, (size_t)run, at),
                     "write of a scratch file failed: %s", strerror(errno));
    }
}

bool bq_stream_direct(const bq_stream *s, const bq_dev *dev) {
    return s->data && s->home.place == dev->mem.place;
}

/* The place of row i of the list in the stream, in values; checked. */
static int64_t place_of(const bq_stream *s, int64_t sample, const int32_t *row, int64_t i) {
    BQ_CHECK(row[i] >= 0 && row[i] < s->tokens && s->home.place != BQ_DEVICE, "row %d of %" PRId64, row[i],
             s->tokens);
    return (sample * s->tokens + row[i]) * s->hidden;
}

void bq_stream_take_rows(const bq_stream *s, int64_t sample, const int32_t *row, bq_mat m) {
    size_t bytes = (size_t)s->hidden * sizeof(float);
    check_sample(s, sample);
    for (int64_t i = 0; i < m.rows; i++) {
        int64_t at = place_of(s, sample, row, i);
        if (s->data)
            memcpy(bq_mat_at(m, i, 0), s->data + at, bytes);
        else
            BQ_CHECK(!fails("scratch_read", EIO) &&
                         bq_raw_read(s->fd, bq_mat_at(m, i, 0), bytes, at * (int64_t)sizeof(float)),
                     "read of a scratch file failed: %s", strerror(errno));
    }
}

void bq_stream_put_rows(bq_stream *s, int64_t sample, const int32_t *row, bq_mat m) {
    size_t bytes = (size_t)s->hidden * sizeof(float);
    check_sample(s, sample);
    for (int64_t i = 0; i < m.rows; i++) {
        int64_t at = place_of(s, sample, row, i);
        if (s->data)
            memcpy(s->data + at, bq_mat_at(m, i, 0), bytes);
        else
            BQ_CHECK(!fails("scratch_write", ENOSPC) &&
                         bq_raw_write(s->fd, bq_mat_at(m, i, 0), bytes, at * (int64_t)sizeof(float)),
                     "write of a scratch file failed: %s", strerror(errno));
    }
}

bq_stream bq_stream_over(bq_mat memory, int64_t tokens) {
    return (bq_stream){.samples = memory.rows / tokens,
                       .tokens = tokens,
                       .hidden = memory.cols,
                       .home.place = memory.place,
                       .data = memory.data,
                       .fd = -1,
                       .open = true};
}

void bq_stream_shape(bq_stream *s, int64_t samples, int64_t tokens) {
    BQ_CHECK(samples * tokens <= s->samples * s->tokens,
             "a stream of %" PRId64 " x %" PRId64 " becomes %" PRId64 " x %" PRId64, s->samples, s->tokens,
             samples, tokens);
    s->samples = samples, s->tokens = tokens;
}

void bq_stream_swap(bq_stream *a, bq_stream *b) {
    bq_stream c = *a;
    *a = *b;
    *b = c;
}
