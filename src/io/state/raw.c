#include "io/state/raw.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/hash.h"
#include "base/meter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian, and so are we");

enum { CHUNK = 1 << 18 }; /* what is hashed is in the second cache still */

/* The seconds since `start` went into a file, and so did the bytes. */
static bool spend(double start, int64_t *counter, size_t bytes, bool good) {
    bq_spent.files += bq_seconds() - start;
    *counter += (int64_t)bytes;
    return good;
}

bool bq_raw_read(int fd, void *data, size_t bytes, int64_t offset) {
    double start = bq_seconds();
    size_t done = 0;
    while (done < bytes) {
        size_t want = bytes - done < 1 << 30 ? bytes - done : 1 << 30;
        ssize_t n = pread(fd, (char *)data + done, want, offset + (int64_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = EIO;
        if (n <= 0) break;
        done += (size_t)n;
    }
    return spend(start, &bq_spent.read, done, done == bytes);
}

bool bq_raw_write(int fd, const void *data, size_t bytes, int64_t offset) {
    double start = bq_seconds();
    size_t done = 0;
    while (done < bytes) {
        size_t want = bytes - done < 1 << 30 ? bytes - done : 1 << 30;
        ssize_t n = pwrite(fd, (const char *)data + done, want, offset + (int64_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = ENOSPC;
        if (n <= 0) break;
        done += (size_t)n;
    }
    return spend(start, &bq_spent.written, done, done == bytes);
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
    /* Not every file system can; then the disk fills up, or not, while writing. */
    return rc == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG);
}

typedef struct {
    char magic[8];
    uint64_t size, tag, hash; /* of the bytes before the seal, and their XXH3 */
    uint64_t check;           /* XXH3 of the 32 bytes above */
} seal;

_Static_assert(sizeof(seal) == BQ_SEAL, "the seal has no holes");
static const char magic[8] = "bqseal1\n";

bool bq_raw_hash(int fd, int64_t size, uint64_t *value) {
    size_t room = size < CHUNK ? (size_t)size + 1 : CHUNK;
    char *chunk = malloc(room);
    BQ_CHECK(chunk, "no memory for %zu bytes to read a file", room);
    bq_hash *hash = bq_hash_open();
    bool good = true;
    posix_fadvise(fd, 0, (off_t)size, POSIX_FADV_WILLNEED); /* reads go on while bytes are hashed */
    for (int64_t at = 0; good && at < size;) {
        size_t n = (size_t)(size - at) < room ? (size_t)(size - at) : room;
        good = bq_raw_read(fd, chunk, n, at);
        if (good) bq_hash_add(hash, chunk, n);
        at += (int64_t)n;
    }
    int saved = errno;
    *value = bq_hash_close(hash);
    free(chunk);
    errno = saved;
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
    if (fstat(fd, &st) || st.st_size < BQ_SEAL) return false;
    if (!bq_raw_read(fd, &s, sizeof s, st.st_size - BQ_SEAL)) return false;
    if (memcmp(s.magic, magic, sizeof magic) || s.size != (uint64_t)st.st_size - BQ_SEAL) return false;
    if (s.check != bq_hash_bytes(&s, sizeof s - sizeof s.check)) return false;
    if (every && (!bq_raw_hash(fd, st.st_size - BQ_SEAL, &hash) || hash != s.hash)) return false;
    *size = st.st_size - BQ_SEAL;
    *tag = s.tag;
    return true;
}
