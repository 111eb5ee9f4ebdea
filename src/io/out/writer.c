/* SPDX-License-Identifier: Apache-2.0 */
#include "io/out/writer.h"

#include "base/die.h"
#include "io/files.h"
#include "io/json.h"
#include "io/state/raw.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bq_writer {
    const bq_container *container;
    const void *ctx;
    bq_tensor *at;
    int count, room;
    int next;          /* the tensor that is being written */
    size_t start;      /* of the data in the file */
    size_t data, done; /* bytes of the data: planned, written */
    char *path, *temp;
    int fd;
    bq_hash *hash; /* of what is written; NULL: not open */
    bq_sha256_state sha256;
};

bq_writer *bq_writer_plan_as(const bq_container *container, const void *ctx) {
    bq_writer *w = calloc(1, sizeof *w);
    BQ_CHECK(w, "no memory for a writer");
    w->container = container, w->ctx = ctx, w->fd = -1;
    return w;
}

bq_writer *bq_writer_plan(void) { return bq_writer_plan_as(&bq_container_safetensors, NULL); }

void bq_writer_add(bq_writer *w, const char *name, const char *dtype, int dims, const int64_t *shape) {
    const char *known = w->container->dtype(dtype);
    BQ_CHECK(w->fd < 0 && dims >= 0 && dims <= BQ_TENSOR_DIMS && known, "%s: bad tensor %s", name, dtype);
    w->at = bq_grow(w->at, w->count, &w->room, sizeof *w->at);
    bq_tensor *t = &w->at[w->count++];
    *t = (bq_tensor){.name = bq_text_copy(name), .dtype = known, .dims = dims};
    if (dims) memcpy(t->shape, shape, (size_t)dims * sizeof *shape);
    t->bytes = w->container->bytes(t);
}

int bq_writer_count(const bq_writer *w) { return w->count; }
const bq_tensor *bq_writer_at(const bq_writer *w, int i) { return &w->at[i]; }

/* ---- safetensors ---- */

static size_t bytes_of(const bq_tensor *t) {
    int64_t bits = bq_tensor_count(t) * bq_dtype_bits(t->dtype);
    BQ_CHECK(bits >= 0 && bits % 8 == 0, "%s: its shape does not fill bytes", t->name);
    return (size_t)(bits / 8);
}

static int by_dtype_and_name(const void *a, const void *b) {
    const bq_tensor *x = a, *y = b;
    int bits = bq_dtype_bits(y->dtype) - bq_dtype_bits(x->dtype);
    return bits ? bits : strcmp(x->name, y->name);
}

static char *header_text(const bq_tensor *at, int count) {
    json_t *header =
        json_pack("{s:{s:s, s:s}}", BQ_METADATA_KEY, "format", "pt", "producer", BQ_WRITER_PRODUCER);
    BQ_CHECK(header, "no memory for a header");
    for (const bq_tensor *t = at; t < at + count; t++) {
        json_t *shape = json_array();
        for (int d = 0; d < t->dims; d++) json_array_append_new(shape, json_integer(t->shape[d]));
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                                  (json_int_t)t->offset, (json_int_t)(t->offset + t->bytes));
        BQ_CHECK(entry && !json_object_get(header, t->name), "tensor '%s' is planned twice", t->name);
        BQ_CHECK(json_object_set_new(header, t->name, entry) == 0, "tensor name '%s' is not UTF-8", t->name);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    BQ_CHECK(text, "no memory for a header");
    json_decref(header);
    return text;
}

/* The text's length, the text, blanks up to a multiple of 8. */
static char *header(const void *ctx, const bq_tensor *at, int count, size_t *bytes) {
    (void)ctx;
    char *text = header_text(at, count);
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *all = malloc(8 + padded);
    BQ_CHECK(all, "no memory for a header");
    BQ_CHECK(padded <= BQ_HEADER_MAX, "a header of %zu bytes", padded);
    uint64_t n = htole64(padded);
    memset(all, ' ', 8 + padded);
    memcpy(all, &n, 8);
    memcpy(all + 8, text, length);
    free(text);
    *bytes = 8 + padded;
    return all;
}

const bq_container bq_container_safetensors = {.suffix = "safetensors",
                                               .align = 1,
                                               .dtype = bq_dtype_name,
                                               .bytes = bytes_of,
                                               .order = by_dtype_and_name,
                                               .header = header};

/* ---- the stream ---- */

static void put(bq_writer *w, const void *data, size_t bytes) {
    int err = bq_fault("writer_write") ? ENOSPC : bq_file_put(w->fd, data, bytes);
    BQ_CHECK(!err, "write of '%s' failed: %s", w->temp, strerror(err));
    bq_hash_add(w->hash, data, bytes);
    bq_sha256_add(&w->sha256, data, bytes);
}

/* Offsets in the data; `data` becomes their bytes. */
static void place(bq_writer *w) {
    size_t align = w->container->align;
    for (int i = 0; i < w->count; i++) {
        w->at[i].offset = w->data;
        w->data += (w->at[i].bytes + align - 1) / align * align;
    }
}

void bq_writer_open(bq_writer *w, const char *path) {
    char temp[BQ_PATH + 32];
    if (w->count && w->container->order) qsort(w->at, (size_t)w->count, sizeof *w->at, w->container->order);
    place(w);
    char *text = w->container->header(w->ctx, w->at, w->count, &w->start);
    bq_temp_name(temp, sizeof temp, path);
    w->path = bq_text_copy(path), w->temp = bq_text_copy(temp);
    int err = bq_file_create(temp, &w->fd);
    BQ_CHECK(!err, "cannot create '%s': %s", temp, bq_file_why(err));
    w->hash = bq_hash_open();
    bq_sha256_begin(&w->sha256, false);
    put(w, text, w->start);
    free(text);
    for (int i = 0; i < w->count; i++) w->at[i].offset += w->start;
}

/* Fill up the tensor that has all its bytes. */
static void fill(bq_writer *w) {
    static const char zeros[64];
    const bq_tensor *t = &w->at[w->next];
    if (w->container->align == 1 || w->start + w->done != t->offset + t->bytes) return;
    size_t gap = (w->container->align - t->bytes % w->container->align) % w->container->align;
    BQ_CHECK(gap <= sizeof zeros, "%s: tensors aligned to %zu", w->path, w->container->align);
    put(w, zeros, gap);
    w->done += gap, w->next++;
}

void bq_writer_put(bq_writer *w, const void *data, size_t bytes) {
    BQ_CHECK(bytes <= w->data - w->done, "%s: more data than planned", w->path);
    w->done += bytes;
    put(w, data, bytes);
    fill(w);
}

bq_file_hash bq_writer_close(bq_writer *w) {
    BQ_CHECK(w->done == w->data, "%s: %zu of %zu bytes written", w->path, w->done, w->data);
    int err = bq_fault("writer_close") ? EIO : bq_raw_sync(w->fd);
    if (close(w->fd) && !err) err = errno;
    w->fd = -1;
    if (!err) err = bq_file_rename(w->temp, w->path);
    BQ_CHECK(!err, "write of '%s' failed: %s", w->path, strerror(err));
    free(w->temp);
    bq_file_hash hash = {.xxh3 = bq_hash_close(w->hash)};
    bq_sha256_end(&w->sha256, hash.sha256);
    w->temp = NULL, w->hash = NULL;
    bq_writer_drop(w);
    return hash;
}

void bq_writer_drop(bq_writer *w) {
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->temp) unlink(w->temp);
    if (w->hash) bq_hash_close(w->hash);
    for (int i = 0; i < w->count; i++) free((char *)(uintptr_t)w->at[i].name);
    free(w->at);
    free(w->path);
    free(w->temp);
    free(w);
}

void bq_index_write(const char *path, size_t total, json_t *map) {
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    BQ_CHECK(index, "no memory for an index");
    bq_json_write(path, index);
    json_decref(index);
}
