/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/acts.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/hash.h"
#include "io/files.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char format[] = "blockq stream", dataset[] = "hidden";

enum { VERSION = 1 };
#define MAX_LOG ((size_t)1 << 30)

/* Records wait until their samples have this many bytes, or the first has waited for so long. */
#define BATCH         ((size_t)256 << 20)
#define BATCH_SECONDS 5.0

/* A record of the log. */
typedef struct {
    char magic[8];
    int64_t sample;
    uint64_t hash;  /* XXH3 of the sample's values */
    uint64_t check; /* XXH3 of the 24 bytes above and the file's identity */
} record;

_Static_assert(sizeof(record) == 32, "a record has no holes");
static const char magic[8] = "bqvalid1";

struct bq_acts {
    int64_t samples, tokens, hidden;
    int64_t offset; /* of the first sample's data in the file */
    size_t bytes;   /* of one sample */
    uint64_t identity;
    int fd, log;
    bq_mpio *mpio; /* if joined, samples go through it; else NULL */
    char *path;
    uint64_t *hash;  /* (samples) as logged */
    bool *has;       /* (samples) */
    record *waiting; /* records of samples that are written, but may not be on disk */
    int count, room;
    double since; /* when the first of them began to wait */
};

static uint64_t check_of(const record *r, uint64_t identity) {
    char bytes[32];
    memcpy(bytes, r, 24);
    memcpy(bytes + 24, &identity, 8);
    return bq_hash_bytes(bytes, sizeof bytes);
}

/* So that a log that was left beside another file has no valid record. */
static uint64_t identity_of(uint64_t fingerprint, int64_t samples, int64_t tokens, int64_t hidden) {
    uint64_t all[5] = {VERSION, fingerprint, (uint64_t)samples, (uint64_t)tokens, (uint64_t)hidden};
    return bq_hash_bytes(all, sizeof all);
}

int64_t bq_acts_parse(const void *log, size_t bytes, uint64_t identity, int64_t samples, uint64_t *hash,
                      bool *has) {
    const char *at = log, *end = at + bytes;
    int64_t used = 0;
    record r;
    while ((size_t)(end - at) >= sizeof r) {
        memcpy(&r, at, sizeof r);
        bool good = memcmp(r.magic, magic, sizeof magic) == 0 && r.check == check_of(&r, identity);
        at += good ? sizeof r : 1; /* a torn record shifts those behind it by any number of bytes */
        if (!good || r.sample < 0 || r.sample >= samples) continue;
        hash[r.sample] = r.hash;
        has[r.sample] = true;
        used++;
    }
    return used;
}

static void path_of_log(char *out, size_t n, const char *path) {
    BQ_CHECK(snprintf(out, n, "%s.valid", path) < (int)n, "path '%s' is too long", path);
}

static _Noreturn void fail(const bq_acts *a, const char *what) {
    BQ_DIE("%s of '%s' failed: %s", what, a->path, strerror(errno));
}

static bq_acts *make(const char *path, int64_t samples, int64_t tokens, int64_t hidden,
                     uint64_t fingerprint) {
    BQ_CHECK(samples > 0 && tokens > 0 && hidden > 0, "a stream file of %ld x %ld x %ld", (long)samples,
             (long)tokens, (long)hidden);
    bq_acts *a = calloc(1, sizeof *a);
    BQ_CHECK(a, "no memory for a stream file");
    a->samples = samples, a->tokens = tokens, a->hidden = hidden;
    a->bytes = (size_t)(tokens * hidden) * sizeof(float);
    a->identity = identity_of(fingerprint, samples, tokens, hidden);
    a->fd = a->log = -1;
    a->path = bq_text_copy(path);
    a->hash = calloc((size_t)samples, sizeof *a->hash);
    a->has = calloc((size_t)samples, sizeof *a->has);
    BQ_CHECK(a->hash && a->has, "no memory for the log of %" PRId64 " samples", samples);
    return a;
}

/* 0, or an error as bq_file_open_own. */
static int open_log(bq_acts *a) {
    char log[BQ_PATH];
    path_of_log(log, sizeof log, a->path);
    return bq_file_open_own(log, O_WRONLY | O_APPEND | O_CREAT, &a->log);
}

void bq_acts_create(bq_acts **out, const char *path, int64_t samples, int64_t tokens, int64_t hidden,
                    uint64_t fingerprint) {
    char log[BQ_PATH];
    bq_h5 h;
    int64_t shape[3] = {samples, tokens, hidden};
    bq_acts *a = make(path, samples, tokens, hidden, fingerprint);
    path_of_log(log, sizeof log, path);
    if (unlink(log) && errno != ENOENT) fail(a, "removal of the log");
    bq_h5_create(&h, path);
    bq_h5_put_head(&h, format, VERSION, fingerprint);
    a->offset = bq_h5_put_data(&h, dataset, BQ_F32, 3, shape);
    bq_h5_fix(&h);
    bq_h5_commit(&h);
    int err = bq_file_open_own(path, O_RDWR, &a->fd);
    if (!err) err = open_log(a);
    BQ_CHECK(!err, "open of '%s' failed: %s", path, bq_file_why(err));
    *out = a;
}

/* Returns a BQ_ACTS value; unless it is OK, h->why has the reason. */
static int look(bq_h5 *h, const bq_acts *a, uint64_t fingerprint, int64_t *offset) {
    int64_t shape[3];
    int status = bq_h5_get_head(h, format, VERSION, VERSION, fingerprint);
    if (status != BQ_H5_OK) return status;
    if (!bq_h5_get_data(h, dataset, BQ_F32, 3, shape, offset)) return BQ_ACTS_TORN;
    if (shape[0] == a->samples && shape[1] == a->tokens && shape[2] == a->hidden) return BQ_ACTS_OK;
    bq_h5_refuse(h, "its shape is %ld x %ld x %ld, not %ld x %ld x %ld", (long)shape[0], (long)shape[1],
                 (long)shape[2], (long)a->samples, (long)a->tokens, (long)a->hidden);
    return BQ_ACTS_FOREIGN;
}

static void load_log(bq_acts *a) {
    char path[BQ_PATH], *data;
    size_t bytes;
    path_of_log(path, sizeof path, a->path);
    if (bq_file_read(path, MAX_LOG, &data, &bytes)) return; /* then all samples are made again */
    bq_acts_parse(data, bytes, a->identity, a->samples, a->hash, a->has);
    free(data);
}

int bq_acts_open(bq_acts **out, const char *path, int64_t samples, int64_t tokens, int64_t hidden,
                 uint64_t fingerprint, char *why) {
    bq_h5 h = {0};
    bq_acts *a = make(path, samples, tokens, hidden, fingerprint);
    int status = BQ_ACTS_TORN;
    if (bq_h5_open_rw(&h, path))
        status = look(&h, a, fingerprint, &a->offset);
    else if (h.absent)
        status = BQ_ACTS_ABSENT;
    if (status == BQ_ACTS_OK) a->fd = bq_h5_take(&h);
    bq_h5_close(&h);
    int err = status == BQ_ACTS_OK ? open_log(a) : 0;
    if (err) status = BQ_ACTS_TORN, bq_h5_refuse(&h, "%s", bq_file_why(err));
    if (status == BQ_ACTS_OK)
        load_log(a);
    else
        bq_acts_close(a);
    *out = status == BQ_ACTS_OK ? a : NULL;
    if (why) memcpy(why, h.why, BQ_WHY);
    return status;
}

void bq_acts_join(bq_acts *a, const bq_comm *comm) { a->mpio = bq_mpio_open(comm, a->path, dataset); }
bool bq_acts_joined(const bq_acts *a) { return a->mpio; }

static int64_t place_of(const bq_acts *a, int64_t sample) {
    BQ_CHECK(sample >= 0 && sample < a->samples, "sample %" PRId64 " of '%s', which has %" PRId64, sample,
             a->path, a->samples);
    return a->offset + sample * (int64_t)a->bytes;
}

/* The first `tokens` tokens of a sample. */
static void put(bq_acts *a, int64_t sample, int64_t tokens, const float *data) {
    int64_t at = place_of(a, sample);
    if (a->mpio)
        bq_mpio_write(a->mpio, sample, tokens, data);
    else if (!bq_raw_write(a->fd, data, (size_t)(tokens * a->hidden) * sizeof *data, at))
        fail(a, "write");
}

static bool get(bq_acts *a, int64_t sample, float *data) {
    int64_t at = place_of(a, sample);
    return a->mpio ? bq_mpio_read(a->mpio, sample, a->tokens, data) : bq_raw_read(a->fd, data, a->bytes, at);
}

/* Sync the data, then append their records.  So a record never stands for data that a power failure could
 * lose. */
static void flush(bq_acts *a) {
    size_t bytes = (size_t)a->count * sizeof(record);
    ssize_t n;
    errno = bq_fault("acts_sync") ? EIO : bq_raw_sync(a->fd);
    if (errno) fail(a, "sync");
    if (!bytes) return;
    do n = write(a->log, a->waiting, bq_fault("acts_log") ? bytes / 2 : bytes);
    while (n < 0 && errno == EINTR);
    if (n >= 0 && n < (ssize_t)bytes) errno = ENOSPC;
    if (n != (ssize_t)bytes) fail(a, "write of the log");
    a->count = 0;
}

static void await_sync(bq_acts *a, record r) {
    a->waiting = bq_grow(a->waiting, a->count, &a->room, sizeof r);
    if (a->count == 0) a->since = bq_seconds();
    a->waiting[a->count++] = r;
    if ((size_t)a->count * a->bytes >= BATCH || bq_seconds() - a->since >= BATCH_SECONDS) flush(a);
}

void bq_acts_write(bq_acts *a, int64_t sample, const float *data) {
    record r = {.sample = sample, .hash = bq_hash_bytes(data, a->bytes)};
    if (bq_fault("acts_write")) put(a, sample, a->tokens / 2, data), errno = ENOSPC, fail(a, "write");
    put(a, sample, a->tokens, data);
    memcpy(r.magic, magic, sizeof magic);
    r.check = check_of(&r, a->identity);
    await_sync(a, r);
    a->hash[sample] = r.hash;
    a->has[sample] = true;
}

bool bq_acts_has(const bq_acts *a, int64_t sample) {
    place_of(a, sample);
    return a->has[sample];
}

bool bq_acts_has_all(const bq_acts *a, int64_t first, int64_t count) {
    bool all = true;
    for (int64_t s = first; s < first + count && all; s++) all = bq_acts_has(a, s);
    return all;
}

bool bq_acts_whole(bq_acts *a, int64_t first, int64_t count) {
    bool all = bq_acts_has_all(a, first, count);
    float *data = all ? malloc(a->bytes) : NULL;
    BQ_CHECK(data || !all, "no memory for a sample of %zu bytes", a->bytes);
    for (int64_t s = first; s < first + count && all; s++) all = bq_acts_read(a, s, data);
    free(data);
    return all;
}

bool bq_acts_read(bq_acts *a, int64_t sample, float *data) {
    if (!bq_acts_has(a, sample)) return false;
    a->has[sample] =
        !bq_fault("acts_read") && get(a, sample, data) && bq_hash_bytes(data, a->bytes) == a->hash[sample];
    return a->has[sample];
}

void bq_acts_sync(bq_acts *a) {
    if (a->mpio) bq_mpio_sync(a->mpio);
    flush(a);
    if ((errno = bq_raw_sync(a->log))) fail(a, "sync");
}

void bq_acts_close(bq_acts *a) {
    if (!a) return;
    if (a->count) flush(a);
    if (a->mpio) bq_mpio_close(a->mpio);
    if (a->fd >= 0) close(a->fd);
    if (a->log >= 0) close(a->log);
    free(a->waiting);
    free(a->has);
    free(a->hash);
    free(a->path);
    free(a);
}
