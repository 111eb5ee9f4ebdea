/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/raw.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/meter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian, and so are we");

enum { CHUNK = 1 << 18 }; /* a chunk is still in the L2 cache when it is hashed */

/* Read to `to`, or write what is at `from`; the other is NULL.  Time and bytes are counted as spent on
 * files. */
static bool move(int fd, char *to, const char *from, size_t bytes, int64_t offset) {
    double start = bq_seconds();
    size_t done = 0;
    while (done < bytes) {
        size_t want = bytes - done < 1 << 30 ? bytes - done : 1 << 30;
        off_t at = offset + (int64_t)done;
        ssize_t n = to ? pread(fd, to + done, want, at) : pwrite(fd, from + done, want, at);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = to ? EIO : ENOSPC;
        if (n <= 0) break;
        done += (size_t)n;
    }
    bq_spent.files += bq_seconds() - start;
    *(to ? &bq_spent.read : &bq_spent.written) += (int64_t)done;
    return done == bytes;
}

bool bq_raw_read(int fd, void *data, size_t bytes, int64_t offset) {
    return move(fd, data, NULL, bytes, offset);
}

bool bq_raw_write(int fd, const void *data, size_t bytes, int64_t offset) {
    return move(fd, NULL, data, bytes, offset);
}

int bq_raw_sync(int fd) {
    double start = bq_seconds();
    int error = fsync(fd) ? errno : 0;
    bq_spent.files += bq_seconds() - start;
    return error;
}

bool bq_raw_reserve(int fd, int64_t size) {
    int rc;
    if (size <= 0) return true;
    do rc = fallocate(fd, 0, 0, size);
    while (rc && errno == EINTR);
    /* Some file systems cannot; then a full disk shows when data are written. */
    return rc == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG);
}

typedef struct {
    char magic[8];
    uint64_t size, tag, hash; /* of the bytes before the seal, and their XXH3 */
    uint64_t check;           /* XXH3 of the 32 bytes above */
} seal;

_Static_assert(sizeof(seal) == BQ_SEAL, "the seal has no holes");
static const char magic[8] = "bqseal1\n";

/* sha256: NULL, or another hash that gets the same bytes. */
static bool hash_file(int fd, int64_t size, uint64_t *value, bq_sha256_state *sha256) {
    size_t room = size < CHUNK ? (size_t)size + 1 : CHUNK;
    char *chunk = malloc(room);
    BQ_CHECK(chunk, "no memory for %zu bytes to read a file", room);
    bq_hash *hash = bq_hash_open();
    bool good = true;
    posix_fadvise(fd, 0, (off_t)size, POSIX_FADV_WILLNEED); /* read ahead while bytes are hashed */
    for (int64_t at = 0; good && at < size;) {
        size_t n = (size_t)(size - at) < room ? (size_t)(size - at) : room;
        good = bq_raw_read(fd, chunk, n, at);
        if (good) bq_hash_add(hash, chunk, n);
        if (good && sha256) bq_sha256_add(sha256, chunk, n);
        at += (int64_t)n;
    }
    int saved = errno;
    *value = bq_hash_close(hash);
    free(chunk);
    errno = saved;
    return good;
}

bool bq_raw_hash(int fd, int64_t size, uint64_t *value) { return hash_file(fd, size, value, NULL); }

bool bq_raw_hash_both(int fd, int64_t size, bq_file_hash *value) {
    bq_sha256_state sha256;
    bq_sha256_begin(&sha256, false);
    bool good = hash_file(fd, size, &value->xxh3, &sha256);
    bq_sha256_end(&sha256, value->sha256);
    return good;
}

bool bq_seal_append(int fd, int64_t size, uint64_t tag) {
    seal s = {.size = (uint64_t)size, .tag = tag};
    memcpy(s.magic, magic, sizeof magic);
    if (!bq_raw_hash(fd, size, &s.hash)) return false;
    s.check = bq_hash_bytes(&s, sizeof s - sizeof s.check);
    return bq_raw_write(fd, &s, sizeof s, size);
}

bool bq_seal_check(int fd, bool every, int64_t *size, uint64_t *tag) {
    struct stat st;
    seal s;
    uint64_t hash;
    if (fstat(fd, &st) || st.st_size < BQ_SEAL || !bq_raw_read(fd, &s, sizeof s, st.st_size - BQ_SEAL))
        return false;
    if (memcmp(s.magic, magic, sizeof magic) || s.size != (uint64_t)st.st_size - BQ_SEAL) return false;
    if (s.check != bq_hash_bytes(&s, sizeof s - sizeof s.check)) return false;
    if (every && (!bq_raw_hash(fd, st.st_size - BQ_SEAL, &hash) || hash != s.hash)) return false;
    *size = st.st_size - BQ_SEAL;
    *tag = s.tag;
    return true;
}
