#include "io/out/writer.h"

#include "base/die.h"
#include "base/hash.h"
#include "io/files.h"
#include "io/json.h"
#include "io/state/raw.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bq_writer {
    bq_tensor *at;
    int count, room;
    size_t data, done; /* bytes of the data buffer: planned, written */
    char *path, *temp;
    int fd;
    bq_hash *hash; /* of what is written; NULL: not open */
};

bq_writer *bq_writer_plan(void) {
    bq_writer *w = calloc(1, sizeof *w);
    BQ_CHECK(w, "no memory for a writer");
    w->fd = -1;
    return w;
}

void bq_writer_add(bq_writer *w, const char *name, const char *dtype, int dims, const int64_t *shape) {
    BQ_CHECK(w->fd < 0 && dims >= 0 && dims <= BQ_TENSOR_DIMS && bq_dtype_name(dtype), "%s: bad tensor %s",
             name, dtype);
    w->at = bq_grow(w->at, w->count, &w->room, sizeof *w->at);
    bq_tensor *t = &w->at[w->count++];
    *t = (bq_tensor){.name = bq_text_copy(name), .dtype = bq_dtype_name(dtype), .dims = dims};
    if (dims) memcpy(t->shape, shape, (size_t)dims * sizeof *shape);
    int64_t bits = bq_tensor_count(t) * bq_dtype_bits(dtype);
    BQ_CHECK(bits >= 0 && bits % 8 == 0, "%s: its shape does not fill bytes", name);
    t->bytes = (size_t)(bits / 8);
    w->data += t->bytes;
}

int bq_writer_count(const bq_writer *w) { return w->count; }
const bq_tensor *bq_writer_at(const bq_writer *w, int i) { return &w->at[i]; }

/* The data start at a multiple of 8, so with wide dtypes first every tensor is aligned to its type. */
static int by_dtype_and_name(const void *a, const void *b) {
    const bq_tensor *x = a, *y = b;
    int bits = bq_dtype_bits(y->dtype) - bq_dtype_bits(x->dtype);
    return bits ? bits : strcmp(x->name, y->name);
}

/* The text of the header.  Sets offsets in the data buffer; bq_writer_open, which knows the header's
 * length, makes them offsets in the file. */
static char *header_text(bq_writer *w) {
    size_t offset = 0;
    json_t *header =
        json_pack("{s:{s:s, s:s}}", BQ_METADATA_KEY, "format", "pt", "producer", BQ_WRITER_PRODUCER);
    BQ_CHECK(header, "no memory for a header");
    for (int i = 0; i < w->count; i++) {
        bq_tensor *t = &w->at[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->dims; d++) json_array_append_new(shape, json_integer(t->shape[d]));
        t->offset = offset;
        offset += t->bytes;
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                                  (json_int_t)t->offset, (json_int_t)offset);
        BQ_CHECK(entry && !json_object_get(header, t->name), "tensor '%s' is planned twice", t->name);
        BQ_CHECK(json_object_set_new(header, t->name, entry) == 0, "tensor name '%s' is not UTF-8", t->name);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    BQ_CHECK(text, "no memory for a header");
    json_decref(header);
    return text;
}

static void put(bq_writer *w, const void *data, size_t bytes) {
    int err = bq_fault("writer_write") ? ENOSPC : bq_file_put(w->fd, data, bytes);
    BQ_CHECK(!err, "write of '%s' failed: %s", w->temp, strerror(err));
    bq_hash_add(w->hash, data, bytes);
}

void bq_writer_open(bq_writer *w, const char *path) {
    char temp[BQ_PATH + 32];
    if (w->count) qsort(w->at, (size_t)w->count, sizeof *w->at, by_dtype_and_name);
    char *text = header_text(w);
    bq_temp_name(temp, sizeof temp, path);
    w->path = bq_text_copy(path), w->temp = bq_text_copy(temp);
    int err = bq_file_create(temp, &w->fd);
    BQ_CHECK(!err, "cannot create '%s': %s", temp, bq_file_why(err));
    w->hash = bq_hash_open();
    size_t bytes = strlen(text), padded = (bytes + 7) / 8 * 8;
    BQ_CHECK(padded <= BQ_HEADER_MAX, "%s: a header of %zu bytes", path, padded);
    uint64_t n = htole64(padded);
    put(w, &n, sizeof n);
    put(w, text, bytes);
    put(w, "        ", padded - bytes);
    free(text);
    for (int i = 0; i < w->count; i++) w->at[i].offset += 8 + padded;
}

void bq_writer_put(bq_writer *w, const void *data, size_t bytes) {
    BQ_CHECK(bytes <= w->data - w->done, "%s: more data than planned", w->path);
    w->done += bytes;
    put(w, data, bytes);
}

uint64_t bq_writer_close(bq_writer *w) {
    BQ_CHECK(w->done == w->data, "%s: %zu of %zu bytes written", w->path, w->done, w->data);
    int err = bq_fault("writer_close") ? EIO : bq_raw_sync(w->fd);
    if (close(w->fd) && !err) err = errno;
    w->fd = -1;
    if (!err) err = bq_file_rename(w->temp, w->path);
    BQ_CHECK(!err, "write of '%s' failed: %s", w->path, strerror(err));
    free(w->temp);
    uint64_t hash = bq_hash_close(w->hash);
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
