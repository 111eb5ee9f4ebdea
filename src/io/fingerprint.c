/* SPDX-License-Identifier: Apache-2.0 */
/* The hash of a model: one pass over its bytes hashes every shard and checks every value; a file keeps the
 * hashes to save the pass next time. */
#include "io/in/weights_reader.h"

#include "base/die.h"
#include "base/log.h"
#include "base/num.h"
#include "comm/comm.h"
#include "io/files.h"
#include "io/json.h"

#include <endian.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK ((size_t)4 << 20)

/* Only infinities and NaN have all bits of the exponent set; in e4m3 only NaN has all bits but the sign. */
static bool all_finite(const void *data, size_t bytes, bq_type type, bool e4m3) {
    uint32_t bad = 0;
    if (e4m3) {
        const uint8_t *u = data;
        for (size_t i = 0; i < bytes; i++) bad |= (u[i] & 0x7fu) == 0x7fu;
    } else if (type == BQ_F32) {
        const uint32_t *u = data;
        for (size_t i = 0; i < bytes / 4; i++) bad |= (u[i] & 0x7f800000u) == 0x7f800000u;
    } else {
        uint32_t exponent = type == BQ_BF16 ? 0x7f80u : 0x7c00u;
        const uint16_t *u = data;
        for (size_t i = 0; i < bytes / 2; i++) bad |= (u[i] & exponent) == exponent;
    }
    return !bad;
}

static int refuse_value(const char *file, const bq_tensor *t, bq_type type, bool e4m3, const void *data,
                        size_t from) {
    size_t size = e4m3 ? 1 : bq_type_size(type), i = 0;
    float x;
    for (;; i++) {
        const uint16_t *u = (const uint16_t *)data + (e4m3 ? 0 : i);
        x = e4m3              ? bq_from_e4m3(((const uint8_t *)data)[i])
            : type == BQ_F32  ? ((const float *)data)[i]
            : type == BQ_BF16 ? bq_from_bf16(*u)
                              : bq_from_f16(*u);
        if (!isfinite(x)) break;
    }
    long long place = (long long)(from / size + i), cols = t->dims ? (long long)t->shape[t->dims - 1] : 1;
    const char *what = isnan(x) ? "a NaN" : x > 0 ? "inf" : "-inf";
    return bq_refuse(BQ_DATA, "%s: tensor '%.200s' has %s at row %lld, column %lld", file, t->name, what,
                     place / cols, place % cols);
}

/* Add bytes [*at, end) of a file that are in no tensor. */
static void skip(const bq_weights *w, int part, size_t *at, size_t end, void *buffer, bq_hash *h) {
    for (size_t bytes; *at < end; *at += bytes) {
        bytes = end - *at < CHUNK ? end - *at : CHUNK;
        bq_weights_pread(w, part, *at, buffer, bytes);
        bq_hash_add(h, buffer, bytes);
        bq_comm_beat();
    }
}

/* Check a tensor's values; h: and hash its bytes. */
static int walk_tensor(const bq_weights *w, const bq_tensor *t, void *buffer, bq_hash *h) {
    bq_type type = BQ_F32;
    bool e4m3 = strcmp(t->dtype, "F8_E4M3") == 0, check = e4m3 || bq_dtype_float(t->dtype, &type);
    for (size_t from = 0, bytes; from < t->bytes; from += bytes) {
        bytes = t->bytes - from < CHUNK ? t->bytes - from : CHUNK;
        bq_weights_read_raw(w, t, from, buffer, bytes);
        if (h) bq_hash_add(h, buffer, bytes);
        bq_comm_beat();
        if (check && !all_finite(buffer, bytes, type, e4m3))
            return refuse_value(w->part[t->file].name, t, type, e4m3, buffer, from);
    }
    return BQ_OK;
}

/* Hash a file in order of its bytes, and check its tensors on the way.  Where tensors are read in another
 * form than stored, the two are apart. */
static int walk(const bq_weights *w, int part, void *buffer, uint64_t *hash) {
    bool stored = w->reader->stored;
    bq_hash *h = bq_hash_open();
    size_t at = 0;
    int rc = BQ_OK;
    for (int i = 0; i < w->count && !rc; i++) {
        const bq_tensor *t = &w->at[i];
        if (t->file != part) continue;
        if (stored) skip(w, part, &at, t->offset, buffer, h);
        rc = walk_tensor(w, t, buffer, stored ? h : NULL);
        if (stored) at += t->bytes;
    }
    if (!rc) skip(w, part, &at, w->part[part].bytes, buffer, h);
    *hash = bq_hash_close(h);
    return rc;
}

/* What shows that a file was replaced: some programs keep its time, and a new file may have the old size.
 * Ranks other than 0 may read copies on their own disks (--model-copy).  For these only size and mtime are
 * compared, and only with what rank 0 has found before. */
enum { SIZE, MTIME, CTIME, INODE, MARKS };
static const char *const mark_name[MARKS] = {"size", "mtime_ns", "ctime_ns", "inode"};

typedef struct {
    char path[BQ_PATH];
    int64_t mark[MARKS];
} identity;

static int64_t ns(struct timespec t) { return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec; }

static void identify(const bq_weights *w, int part, identity *id) {
    char joined[BQ_PATH];
    struct stat st = {0};
    bq_path_join(joined, sizeof joined, w->dir, w->part[part].name);
    char *real = realpath(joined, NULL);
    bq_path_join(id->path, sizeof id->path, "", real ? real : joined);
    free(real);
    fstat(w->part[part].fd, &st); /* of the open file, whatever has its name now */
    const int64_t mark[MARKS] = {st.st_size, ns(st.st_mtim), ns(st.st_ctim), (int64_t)st.st_ino};
    memcpy(id->mark, mark, sizeof mark);
}

/* The shard's hash in the list, if it is there and the file is the same. */
static bool cached(const json_t *shards, const identity *id, uint64_t *hash) {
    size_t i;
    json_t *v;
    json_array_foreach(shards, i, v) {
        const char *path = json_string_value(json_object_get(v, "path"));
        const char *text = json_string_value(json_object_get(v, "hash"));
        if (!path || !text || strcmp(path, id->path) != 0 || strlen(text) != 16) continue;
        int same = 0, marks = bq_log_rank() ? CTIME : MARKS;
        while (same < marks && json_integer_value(json_object_get(v, mark_name[same])) == id->mark[same])
            same++;
        if (same < marks) continue;
        char *end;
        *hash = strtoull(text, &end, 16);
        return *end == 0;
    }
    return false;
}

static void add_to_cache(json_t *shards, const identity *id, uint64_t hash) {
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    json_t *entry = json_pack("{s:s, s:s}", "path", id->path, "hash", text);
    for (int i = 0; i < MARKS; i++) json_object_set_new(entry, mark_name[i], json_integer(id->mark[i]));
    json_array_append_new(shards, entry);
}

static void write_cache(const char *path, json_t *shards) {
    json_t *cache = json_pack("{s:O}", "shards", shards);
    BQ_CHECK(cache, "no memory for '%s'", path);
    int err = bq_json_write_sealed(path, cache);
    if (err)
        bq_log(BQ_WARN, "cannot write '%s': %s; the model will be read again next time", path, strerror(err));
    json_decref(cache);
}

int bq_weights_fingerprint(const bq_weights *w, const char *cache_path, uint64_t *hash) {
    json_t *old = cache_path ? bq_json_read_sealed(cache_path, (size_t)16 << 20) : NULL,
           *fresh = json_array();
    void *buffer = malloc(CHUNK);
    BQ_CHECK(buffer && fresh, "no memory to hash a model");
    bq_hash *all = bq_hash_open();
    if (w->reader->hash) w->reader->hash(w, all);
    bool changed = false;
    int rc = BQ_OK;
    for (int i = 0; i < w->parts && !rc; i++) {
        identity id, after;
        uint64_t one;
        identify(w, i, &id);
        bool known = cached(json_object_get(old, "shards"), &id, &one);
        if (!known) rc = walk(w, i, buffer, &one), changed = true;
        identify(w, i, &after);
        if (memcmp(id.mark, after.mark, sizeof id.mark) == 0) add_to_cache(fresh, &id, one);
        one = htole64(one);
        bq_hash_add(all, &one, sizeof one);
    }
    *hash = bq_hash_close(all);
    if (!rc && changed && cache_path && bq_log_rank() == 0) write_cache(cache_path, fresh);
    free(buffer);
    json_decref(old);
    json_decref(fresh);
    return rc;
}
