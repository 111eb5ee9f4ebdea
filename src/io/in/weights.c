/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/weights_reader.h"

#include "base/die.h"
#include "base/num.h"
#include "io/files.h"
#include "io/in/config.h"
#include "io/in/fp8.h"
#include "io/json.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((size_t)1 << 20)

/* The table of readers.  The first that knows a path opens it. */
#define READERS(ROW) ROW(gguf) ROW(procedural) ROW(stacked) ROW(packed) ROW(safetensors)

#define DECLARE(name) extern const bq_weights_reader bq_weights_##name;
#define ADDRESS(name) &bq_weights_##name,
READERS(DECLARE)
static const bq_weights_reader *const readers[] = {READERS(ADDRESS) NULL};

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to list a model's tensors");
    return memory;
}

/* ---- for readers ---- */

int bq_weights_part_open(bq_weights *w, const char *name) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, w->dir, name);
    int fd, err = bq_file_open(path, O_RDONLY, &fd);
    if (err) return bq_refuse(BQ_DATA, "cannot open shard '%s': %s", path, bq_file_why(err));
    w->part = need(realloc(w->part, (size_t)(w->parts + 1) * sizeof *w->part));
    w->part[w->parts++] = (bq_weights_part){.name = need(strdup(name)), .fd = fd};
    return BQ_OK;
}

void bq_weights_add(bq_weights *w, const bq_tensor *t) {
    if (w->count == w->room) {
        w->room = w->room ? 2 * w->room : 64;
        w->at = need(realloc(w->at, (size_t)w->room * sizeof *w->at));
    }
    w->at[w->count] = *t;
    w->at[w->count++].name = need(strdup(t->name));
}

int bq_weights_listed(bq_weights *w) {
    w->by_name = need(calloc((size_t)w->count + 1, sizeof *w->by_name));
    for (int i = 0; i < w->count; i++) w->by_name[i] = &w->at[i];
    bq_tensors_sort(w->by_name, w->count);
    for (int i = 1; i < w->count; i++) {
        const bq_tensor *a = w->by_name[i - 1], *b = w->by_name[i];
        if (strcmp(a->name, b->name) == 0) {
            return bq_refuse(BQ_DATA, "%s: tensor '%.200s' is both in '%s' and in '%s'", w->dir, a->name,
                             w->part[a->file].name, w->part[b->file].name);
        }
    }
    return BQ_OK;
}

/* ---- open, close ---- */

/* The directory of a model that is one file, else the path. */
static char *dir_of(const char *path) {
    struct stat st;
    const char *slash = strrchr(path, '/');
    bool file = stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
    return need(!file ? strdup(path) : slash ? strndup(path, (size_t)(slash + 1 - path)) : strdup("."));
}

static int open_config(bq_weights *w) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, w->dir, "config.json");
    w->config_path = need(strdup(path));
    return bq_file_exists(path) ? bq_json_read(path, BQ_CONFIG_MAX, &w->config) : BQ_OK;
}

static int open_by(bq_weights *w, const char *path) {
    char wanted[400];
    size_t n = 0;
    for (int i = 0; readers[i]; i++) {
        w->reader = readers[i];
        if (w->reader->knows(path, w->config)) return w->reader->open(w, path);
        if (w->reader->wanted && n < sizeof wanted)
            n += (size_t)snprintf(wanted + n, sizeof wanted - n, "%s%s", i ? ", or " : "", w->reader->wanted);
    }
    return bq_refuse(BQ_DATA, "%s: there is no model that can be read: %s", path, wanted);
}

int bq_weights_open(bq_weights **out, const char *path) {
    bq_weights *w = need(calloc(1, sizeof *w));
    w->dir = dir_of(path);
    int rc = open_config(w);
    if (!rc) rc = open_by(w, path);
    if (rc) {
        bq_weights_close(w);
        w = NULL;
    }
    *out = w;
    return rc;
}

bool bq_weights_known(const char *path) {
    int i = 0;
    while (readers[i] && !readers[i]->knows(path, NULL)) i++;
    return readers[i];
}

void bq_weights_close(bq_weights *w) {
    if (!w) return;
    if (w->own) w->reader->close(w->own);
    for (int i = 0; i < w->parts; i++) {
        close(w->part[i].fd);
        free(w->part[i].name);
    }
    for (int i = 0; i < w->count; i++) free((char *)(uintptr_t)w->at[i].name);
    json_decref(w->config);
    json_decref(w->metadata);
    free(w->part);
    free(w->at);
    free(w->by_name);
    free(w->config_path);
    free(w->dir);
    free(w);
}

static int check(const bq_weights *w, const bq_tensor *wanted) {
    const bq_tensor *t = bq_weights_find(w, wanted->name);
    bq_type type;
    if (!t)
        return bq_refuse(BQ_DATA, "%s: tensor '%s' is missing: the files do not fit config.json", w->dir,
                         wanted->name);
    int rc = bq_fp8_check(w, t);
    if (rc) return rc;
    if (!bq_fp8_tensor(w, t) && !bq_dtype_float(t->dtype, &type))
        return bq_refuse(BQ_DATA, "%s: tensor '%s' has type %s: F32, F16 or BF16 is needed", w->dir, t->name,
                         t->dtype);
    if (t->dims == wanted->dims && !memcmp(t->shape, wanted->shape, (size_t)t->dims * sizeof *t->shape))
        return BQ_OK;
    char shape[64];
    int n = snprintf(shape, sizeof shape, "%lld", (long long)wanted->shape[0]);
    if (wanted->dims > 1)
        snprintf(shape + n, sizeof shape - (size_t)n, " x %lld", (long long)wanted->shape[1]);
    return bq_refuse(BQ_DATA, "%s: tensor '%s' has another shape than config.json says (%s)", w->dir, t->name,
                     shape);
}

int bq_weights_expect(bq_weights *w, const bq_tensor *list, int count) {
    int rc = BQ_OK;
    for (int i = 0; i < count && w->reader->add; i++) w->reader->add(w, &list[i]);
    if (w->reader->add) rc = bq_weights_listed(w);
    for (int i = 0; i < count && !rc; i++) rc = check(w, &list[i]);
    return rc;
}

/* ---- what is there ---- */

int bq_weights_count(const bq_weights *w) { return w->count; }
const bq_tensor *bq_weights_at(const bq_weights *w, int i) { return &w->at[i]; }
int bq_weights_files(const bq_weights *w) { return w->parts; }

const char *bq_weights_file(const bq_weights *w, int file, size_t *bytes) {
    *bytes = w->part[file].bytes;
    return w->part[file].name;
}

const char *bq_weights_dir(const bq_weights *w) { return w->dir; }

const char *bq_weights_metadata(const bq_weights *w, const char *key) {
    return json_string_value(json_object_get(w->metadata, key));
}

const json_t *bq_weights_config(const bq_weights *w, const char **path) {
    *path = w->config_path;
    return w->config;
}

int bq_weights_beside(const bq_weights *w, bool tokenizer, json_t **files) {
    *files = NULL;
    return w->reader->beside ? w->reader->beside(w, tokenizer, files) : BQ_OK;
}

bool bq_weights_synthetic(const bq_weights *w) { return w->reader->add; }

const bq_tensor *bq_weights_find(const bq_weights *w, const char *name) {
    return bq_tensors_find(w->by_name, w->count, name);
}

size_t bq_weights_held(const bq_weights *w, const bq_tensor *t) {
    return (w->reader->held ? w->reader->held(w, t) : t->bytes) + bq_fp8_held(w, t);
}

/* ---- reading ---- */

void bq_weights_prefetch(const bq_weights *w, const bq_tensor *t) {
    if (w->reader->prefetch) w->reader->prefetch(w, t);
}

void bq_weights_pread(const bq_weights *w, int part, size_t from, void *to, size_t bytes) {
    const bq_weights_part *p = &w->part[part];
    errno = EIO;
    BQ_CHECK(!bq_fault("weights_read") && bq_raw_read(p->fd, to, bytes, (int64_t)from),
             "read of '%s/%s' failed: %s", w->dir, p->name,
             errno == EIO ? "bad disk, or it is shorter than it was" : strerror(errno));
}

void bq_weights_read_raw(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    BQ_CHECK(from <= t->bytes && bytes <= t->bytes - from, "%s: bytes %zu + %zu of %zu", t->name, from, bytes,
             t->bytes);
    w->reader->read(w, t, from, to, bytes);
}

/* Read count values from element `first` on, converted through a buffer of CHUNK bytes. */
static void read_run(const bq_weights *w, const bq_tensor *t, bq_type type, int64_t first, int64_t count,
                     float *to, uint16_t *buffer) {
    if (type == BQ_F32) {
        bq_weights_read_raw(w, t, (size_t)first * 4, to, (size_t)count * 4);
        return;
    }
    while (count > 0) {
        int64_t n = count < (int64_t)(CHUNK / 2) ? count : (int64_t)(CHUNK / 2);
        bq_weights_read_raw(w, t, (size_t)first * 2, buffer, (size_t)n * 2);
        if (type == BQ_BF16) {
            for (int64_t i = 0; i < n; i++) to[i] = bq_from_bf16(buffer[i]);
        } else {
            for (int64_t i = 0; i < n; i++) to[i] = bq_from_f16(buffer[i]);
        }
        first += n, to += n, count -= n;
    }
}

void bq_weights_read(const bq_weights *w, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to) {
    bq_type type = BQ_F32;
    bool fp8 = bq_fp8_tensor(w, t);
    BQ_CHECK(fp8 || bq_dtype_float(t->dtype, &type), "%s: %s cannot be read as f32", t->name, t->dtype);
    BQ_CHECK(t->dims == 1 || t->dims == 2, "%s: %d dimensions, wanted 1 or 2", t->name, t->dims);
    int64_t all = t->dims == 2 ? t->shape[0] : 1, cols = t->shape[t->dims - 1];
    BQ_CHECK(first >= 0 && rows >= 0 && first <= all - rows, "%s: rows %lld + %lld of %lld", t->name,
             (long long)first, (long long)rows, (long long)all);
    BQ_CHECK(to.type == BQ_F32 && to.place != BQ_DEVICE && to.rows == rows && to.cols == cols &&
                 to.ld >= cols,
             "%s: wanted as (%lld, %lld) %s", t->name, (long long)to.rows, (long long)to.cols,
             bq_type_name(to.type));
    if (fp8) {
        bq_fp8_read(w, t, first, rows, to);
        return;
    }
    uint16_t *buffer = type == BQ_F32 ? NULL : need(malloc(CHUNK));
    if (to.ld == cols)
        read_run(w, t, type, first * cols, rows * cols, to.data, buffer);
    else {
        for (int64_t r = 0; r < rows; r++)
            read_run(w, t, type, (first + r) * cols, cols, bq_mat_at(to, r, 0), buffer);
    }
    free(buffer);
}
