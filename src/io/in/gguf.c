/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/meter.h"
#include "io/files.h"
#include "io/in/gguf_blocks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((size_t)1 << 18) /* bytes that are read and then decoded: they fit a core's cache */

typedef struct {
    char *name;
    int fd;
    bq_gguf_header header;
} part;

struct bq_gguf {
    char *dir, *path; /* of the first part: for messages */
    part *part;
    int parts, count;
    bq_tensor *at;
    const bq_tensor **by_name;
};

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to list a model's tensors");
    return memory;
}

/* ---- opening ---- */

/* Where the part stands among how many; *tensors: of all parts together, -1 if it does not say. */
static int split_of(const part *p, const char *path, int64_t *number, int64_t *parts, int64_t *tensors) {
    bq_gguf_keys k = {&p->header, path, 0};
    *number = 0, *parts = 1, *tensors = -1;
    bq_gguf_int(&k, "split.count", 0, BQ_GGUF_PARTS, parts);
    if (*parts == 0) *parts = 1;
    bq_gguf_int(&k, "split.no", 0, *parts - 1, number);
    bq_gguf_int(&k, "split.tensors.count", 0, INT32_MAX, tensors);
    return k.status;
}

static int open_part(bq_gguf *g, const char *name, int64_t *number, int64_t *parts, int64_t *tensors) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, g->dir, name);
    int fd, err = bq_file_open(path, O_RDONLY, &fd);
    if (err) return bq_refuse(BQ_DATA, "cannot open '%s': %s", path, bq_file_why(err));
    part *p = &g->part[g->parts++];
    p->fd = fd, p->name = need(strdup(name));
    int rc = bq_gguf_header_read(&p->header, fd, path);
    return rc ? rc : split_of(p, path, number, parts, tensors);
}

/* Open the other parts of a model whose first part is open: only the number in the name is another one. */
static int open_others(bq_gguf *g, const char *first, int64_t parts) {
    char name[BQ_PATH], end[24];
    int64_t number, other, all;
    bq_path_join(name, sizeof name, "", first);
    int n = snprintf(end, sizeof end, "-00001-of-%05d.gguf", (int)parts);
    char *tail = name + strlen(name) - (strlen(name) < (size_t)n ? 0 : n);
    if (strcmp(tail, end) != 0)
        return bq_refuse(BQ_DATA, "%s: it has split.count %d, so its name should end in '%s'", g->path,
                         (int)parts, end);
    g->part = need(realloc(g->part, (size_t)parts * sizeof *g->part));
    for (int i = 1; i < parts; i++) {
        snprintf(tail, (size_t)n + 1, "-%05d-of-%05d.gguf", i + 1, (int)parts);
        int rc = open_part(g, name, &number, &other, &all);
        if (rc) return rc;
        if (number != i || other != parts)
            return bq_refuse(BQ_DATA, "%s%s: its keys say part %d of %d (split.no, split.count)", g->dir,
                             name, (int)number + 1, (int)other);
    }
    return BQ_OK;
}

/* List the tensors of all parts, in order and by name. */
static int gather(bq_gguf *g) {
    for (int i = 0; i < g->parts; i++) g->count += g->part[i].header.tensors;
    g->at = need(calloc((size_t)g->count + 1, sizeof *g->at));
    g->by_name = need(calloc((size_t)g->count + 1, sizeof *g->by_name));
    for (int i = 0, n = 0; i < g->parts; i++) {
        for (int j = 0; j < g->part[i].header.tensors; j++, n++) {
            g->at[n] = g->part[i].header.tensor[j];
            g->at[n].file = i;
            g->by_name[n] = &g->at[n];
        }
    }
    bq_tensors_sort(g->by_name, g->count);
    for (int i = 1; i < g->count; i++) {
        const bq_tensor *a = g->by_name[i - 1], *b = g->by_name[i];
        if (strcmp(a->name, b->name) == 0)
            return bq_refuse(BQ_DATA, "%s: tensor '%.200s' is there twice, in '%s' and in '%s'", g->path,
                             a->name, g->part[a->file].name, g->part[b->file].name);
    }
    return BQ_OK;
}

static int open_all(bq_gguf *g, const char *name) {
    int64_t number, parts, tensors;
    g->part = need(calloc(1, sizeof *g->part));
    int rc = open_part(g, name, &number, &parts, &tensors);
    if (!rc && number != 0)
        rc = bq_refuse(BQ_DATA, "%s: it is part %lld of %lld: name the first part", g->path,
                       (long long)number + 1, (long long)parts);
    if (!rc && parts > 1) rc = open_others(g, name, parts);
    if (!rc) rc = gather(g);
    if (!rc && tensors >= 0 && tensors != g->count)
        rc = bq_refuse(BQ_DATA, "%s: split.tensors.count: there are %d tensors, not %lld", g->path, g->count,
                       (long long)tensors);
    return rc;
}

int bq_gguf_open(bq_gguf **out, const char *path) {
    const char *slash = strrchr(path, '/');
    bq_gguf *g = need(calloc(1, sizeof *g));
    g->path = need(strdup(path));
    g->dir = need(strndup(path, slash ? (size_t)(slash - path) + 1 : 0));
    int rc = open_all(g, slash ? slash + 1 : path);
    if (rc) {
        bq_gguf_close(g);
        g = NULL;
    }
    *out = g;
    return rc;
}

void bq_gguf_close(bq_gguf *g) {
    if (!g) return;
    for (int i = 0; i < g->parts; i++) {
        close(g->part[i].fd);
        free(g->part[i].name);
        bq_gguf_header_close(&g->part[i].header);
    }
    free(g->part);
    free(g->at);
    free(g->by_name);
    free(g->dir);
    free(g->path);
    free(g);
}

/* ---- what is there ---- */

bq_gguf_keys bq_gguf_keys_of(const bq_gguf *g) { return (bq_gguf_keys){&g->part[0].header, g->path, BQ_OK}; }

int bq_gguf_count(const bq_gguf *g) { return g->count; }
const bq_tensor *bq_gguf_at(const bq_gguf *g, int i) { return &g->at[i]; }

const bq_tensor *bq_gguf_find(const bq_gguf *g, const char *name) {
    return bq_tensors_find(g->by_name, g->count, name);
}

int bq_gguf_files(const bq_gguf *g) { return g->parts; }

const char *bq_gguf_file(const bq_gguf *g, int file, size_t *bytes) {
    *bytes = g->part[file].header.file_bytes;
    return g->part[file].name;
}

int bq_gguf_fd(const bq_gguf *g, int file) { return g->part[file].fd; }
const char *bq_gguf_dir(const bq_gguf *g) { return g->dir; }

int64_t bq_gguf_cols(const bq_tensor *t) { return t->shape[t->dims - 1]; }
int64_t bq_gguf_rows(const bq_tensor *t) { return bq_tensor_count(t) / bq_gguf_cols(t); }

/* ---- reading ---- */

void bq_gguf_read_raw(const bq_gguf *g, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    const part *file = &g->part[t->file];
    BQ_CHECK(from <= t->bytes && bytes <= t->bytes - from, "%s: bytes %zu + %zu of %zu", t->name, from, bytes,
             t->bytes);
    double start = bq_seconds();
    bq_spent.read += (int64_t)bytes;
    off_t at = (off_t)(t->offset + from);
    for (char *p = to; bytes;) {
        ssize_t got = bq_fault("weights_read") ? (errno = EIO, -1) : pread(file->fd, p, bytes, at);
        if (got < 0 && errno == EINTR) continue;
        BQ_CHECK(got > 0, "read of '%s%s' failed: %s", g->dir, file->name,
                 got < 0 ? strerror(errno) : "it is shorter than it was");
        p += got, at += got, bytes -= (size_t)got;
    }
    bq_spent.files += bq_seconds() - start;
}

/* Decode blocks from block `first` on, through a buffer of CHUNK bytes. */
static void read_run(const bq_gguf *g, const bq_tensor *t, const bq_gguf_type *type, int64_t first,
                     int64_t blocks, float *to, uint8_t *buffer) {
    while (blocks > 0) {
        int64_t room = (int64_t)CHUNK / type->bytes, n = blocks < room ? blocks : room;
        bq_gguf_read_raw(g, t, (size_t)(first * type->bytes), buffer, (size_t)(n * type->bytes));
        type->decode(buffer, n, to);
        first += n, to += n * type->elements, blocks -= n;
    }
}

void bq_gguf_read(const bq_gguf *g, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to) {
    const bq_gguf_type *type = bq_gguf_type_named(t->dtype);
    int64_t all = bq_gguf_rows(t), cols = bq_gguf_cols(t), blocks = cols / type->elements;
    BQ_CHECK(first >= 0 && rows >= 0 && first <= all - rows, "%s: rows %lld + %lld of %lld", t->name,
             (long long)first, (long long)rows, (long long)all);
    BQ_CHECK(to.type == BQ_F32 && to.place != BQ_DEVICE && to.rows == rows && to.cols == cols &&
                 to.ld >= cols,
             "%s: wanted as (%lld, %lld) %s", t->name, (long long)to.rows, (long long)to.cols,
             bq_type_name(to.type));
    size_t all_bytes = (size_t)(rows * blocks * type->bytes);
    uint8_t *buffer = need(malloc(all_bytes < CHUNK ? all_bytes + 1 : CHUNK)); /* one row is read often */
    if (to.ld == cols) {
        read_run(g, t, type, first * blocks, rows * blocks, to.data, buffer);
    } else {
        for (int64_t r = 0; r < rows; r++)
            read_run(g, t, type, (first + r) * blocks, blocks, bq_mat_at(to, r, 0), buffer);
    }
    free(buffer);
}
