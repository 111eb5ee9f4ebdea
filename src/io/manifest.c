/* SPDX-License-Identifier: Apache-2.0 */
#include "io/manifest.h"

#include "base/die.h"
#include "io/files.h"
#include "io/json.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FILE ((size_t)64 << 20)

void bq_manifest_new(bq_manifest *m, const char *of) { *m = (bq_manifest){.of = bq_text_copy(of)}; }

static void add(bq_manifest *m, const char *name, int64_t size, bq_file_hash hash) {
    m->file = bq_grow(m->file, m->count, &m->room, sizeof *m->file);
    m->file[m->count++] = (bq_manifest_file){bq_text_copy(name), size, hash};
}

void bq_manifest_close(bq_manifest *m) {
    for (int i = 0; i < m->count; i++) free(m->file[i].name);
    free(m->file);
    free(m->of);
    *m = (bq_manifest){0};
}

static int64_t ctime_of(const struct stat *st) {
    return (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
}

static int open_file(const char *dir, const char *name, struct stat *st) {
    char path[BQ_PATH];
    int fd;
    bq_path_join(path, sizeof path, dir, name);
    if ((errno = bq_file_open(path, O_RDONLY, &fd))) return -1;
    if (fstat(fd, st) == 0) return fd;
    close(fd);
    return -1;
}

bool bq_manifest_add(bq_manifest *m, const char *dir, const char *name, const bq_file_hash *hash) {
    struct stat st;
    bq_file_hash value = hash ? *hash : (bq_file_hash){0};
    int fd = open_file(dir, name, &st);
    bool good = fd >= 0 && (hash || bq_raw_hash_both(fd, st.st_size, &value));
    int error = errno;
    if (fd >= 0) close(fd);
    if (good) add(m, name, st.st_size, value);
    return errno = error, good;
}

int bq_manifest_look(const bq_manifest *m, int i, const char *dir) {
    struct stat st;
    uint64_t hash;
    const bq_manifest_file *f = &m->file[i];
    int fd = open_file(dir, f->name, &st), found = BQ_MANIFEST_OTHER;
    if (fd >= 0 && st.st_size == f->size) {
        if (ctime_of(&st) <= m->written)
            found = BQ_MANIFEST_SAME;
        else if (bq_raw_hash(fd, f->size, &hash) && hash == f->hash.xxh3)
            found = BQ_MANIFEST_EQUAL;
    }
    if (fd >= 0) close(fd);
    return found;
}

void bq_manifest_write(const bq_manifest *m, const char *path) {
    json_t *list = json_array();
    for (int i = 0; i < m->count; i++) {
        char hex[17], sha256[65];
        snprintf(hex, sizeof hex, "%016" PRIx64, m->file[i].hash.xxh3);
        bq_sha256_hex(m->file[i].hash.sha256, sha256);
        json_array_append_new(list, json_pack("{s:s, s:I, s:s, s:s}", "name", m->file[i].name, "size",
                                              (json_int_t)m->file[i].size, "hash", hex, "sha256", sha256));
    }
    json_t *root = json_pack("{s:s, s:o}", "of", m->of, "files", list);
    BQ_CHECK(root && json_array_size(list) == (size_t)m->count, "no memory for '%s', or a bad name in it",
             path);
    int error = bq_json_write_sealed(path, root);
    BQ_CHECK(error == 0, "write of '%s' failed: %s", path, strerror(error));
    json_decref(root);
}

static bool take(bq_manifest *m, json_t *one) {
    const char *name, *hex, *sha256;
    json_int_t size;
    char *end;
    if (json_unpack(one, "{s:s, s:I, s:s, s:s}", "name", &name, "size", &size, "hash", &hex, "sha256",
                    &sha256))
        return false;
    bq_file_hash hash = {.xxh3 = strtoull(hex, &end, 16)};
    if (!*name || strchr(name, '/') || size < 0 || strlen(hex) != 16 || *end) return false;
    if (strlen(sha256) != 64 || strspn(sha256, "0123456789abcdef") != 64) return false;
    for (int i = 0; i < 8; i++) sscanf(sha256 + 8 * i, "%8" SCNx32, &hash.sha256[i]);
    add(m, name, size, hash);
    return true;
}

bool bq_manifest_read(bq_manifest *m, const char *path) {
    struct stat st;
    json_t *root = bq_json_read_sealed(path, MAX_FILE), *list = json_object_get(root, "files"), *one;
    const char *of = json_string_value(json_object_get(root, "of"));
    size_t i;
    bool good = of && json_is_array(list) && stat(path, &st) == 0;
    bq_manifest_new(m, of ? of : "");
    json_array_foreach(list, i, one) good = good && take(m, one);
    if (good) m->written = ctime_of(&st);
    json_decref(root);
    return good;
}
