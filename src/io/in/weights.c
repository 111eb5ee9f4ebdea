#include "io/in/weights.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/meter.h"
#include "base/num.h"
#include "io/files.h"
#include "io/json.h"
#include "io/in/procedural.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHARDS_MAX 900 /* every shard keeps a descriptor, and 1024 is the usual limit */
#define CHUNK      ((size_t)1 << 20)

typedef struct {
    char *name;
    int fd;
    bq_safetensors st;
} shard;

struct bq_weights {
    char *dir;
    bool procedural; /* one shard, which describes tensors and is no file */
    int64_t seed;
    shard *shard;
    int shards, count;
    bq_tensor *at;
    const bq_tensor **by_name;
};

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to list a model's tensors");
    return memory;
}

static int compare_names(const void *a, const void *b) {
    const bq_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_texts(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static int open_shard(bq_weights *w, const char *name) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, w->dir, name);
    int fd, err = bq_file_open(path, O_RDONLY, &fd);
    if (err) return bq_refuse(BQ_DATA, "cannot open shard '%s': %s", path, bq_file_why(err));
    shard *s = &w->shard[w->shards++];
    s->fd = fd, s->name = need(strdup(name));
    return bq_safetensors_read(&s->st, fd, path);
}

/* Flat list and list by name; a name in two shards is refused. */
static int gather(bq_weights *w) {
    for (int i = 0; i < w->shards; i++) w->count += w->shard[i].st.count;
    w->at = need(calloc((size_t)w->count + 1, sizeof *w->at));
    w->by_name = need(calloc((size_t)w->count + 1, sizeof *w->by_name));
    for (int i = 0, n = 0; i < w->shards; i++) {
        for (int j = 0; j < w->shard[i].st.count; j++, n++) {
            w->at[n] = w->shard[i].st.at[j];
            w->at[n].file = i;
            w->by_name[n] = &w->at[n];
        }
    }
    qsort(w->by_name, (size_t)w->count, sizeof *w->by_name, compare_names);
    for (int i = 1; i < w->count; i++) {
        const bq_tensor *a = w->by_name[i - 1], *b = w->by_name[i];
        if (strcmp(a->name, b->name) == 0) {
            return bq_refuse(BQ_DATA, "%s: tensor '%.200s' is both in '%s' and in '%s'", w->dir, a->name,
                             w->shard[a->file].name, w->shard[b->file].name);
        }
    }
    return BQ_OK;
}

/* The files the map names, each once, in order. */
static int open_shards(bq_weights *w, const json_t *map) {
    const char *key;
    json_t *v;
    size_t n = 0, all = json_object_size(map);
    const char **file = need(calloc(all + 1, sizeof *file));
    json_object_foreach((json_t *)(uintptr_t)map, key, v) file[n++] = json_string_value(v);
    qsort(file, n, sizeof *file, compare_texts);
    size_t files = 0;
    for (size_t i = 0; i < n; i++) {
        if (!i || strcmp(file[i], file[files - 1]) != 0) file[files++] = file[i];
    }
    int rc = BQ_OK;
    if (files > SHARDS_MAX)
        rc = bq_refuse(BQ_DATA, "%s: %zu shards, at most %d can be open", w->dir, files, SHARDS_MAX);
    else
        w->shard = need(calloc(files, sizeof *w->shard));
    for (size_t i = 0; i < files && !rc; i++) rc = open_shard(w, file[i]);
    free(file);
    return rc;
}

/* The index and the headers must say the same. */
static int agree(const bq_weights *w, const char *path, const json_t *map) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        const bq_tensor *t = bq_weights_find(w, key);
        if (!t || strcmp(w->shard[t->file].name, json_string_value(v)) != 0) {
            return bq_refuse(BQ_DATA, "%s: tensor '%.200s' is not in '%s'", path, key, json_string_value(v));
        }
    }
    for (int i = 0; i < w->count; i++) {
        if (json_object_get(map, w->at[i].name)) continue;
        return bq_refuse(BQ_DATA, "%s: tensor '%.200s' of '%s' is not listed", path, w->at[i].name,
                         w->shard[w->at[i].file].name);
    }
    return BQ_OK;
}

static int open_index(bq_weights *w, const char *path) {
    char *text;
    size_t bytes;
    json_t *map;
    int err = bq_file_read(path, BQ_INDEX_MAX, &text, &bytes);
    if (err) return bq_refuse(BQ_DATA, "cannot read '%s': %s", path, bq_file_why(err));
    int rc = bq_index_parse(path, text, bytes, &map);
    free(text);
    if (!rc) rc = open_shards(w, map);
    if (!rc) rc = gather(w);
    if (!rc) rc = agree(w, path, map);
    json_decref(map);
    return rc;
}

static int open_single(bq_weights *w, const char *name) {
    w->shard = need(calloc(1, sizeof *w->shard));
    int rc = open_shard(w, name);
    return rc ? rc : gather(w);
}

static bq_weights *fresh(const char *dir) {
    bq_weights *w = need(calloc(1, sizeof *w));
    w->dir = need(strdup(dir));
    return w;
}

static int finish(bq_weights **out, bq_weights *w, int rc) {
    if (rc) {
        bq_weights_close(w);
        w = NULL;
    }
    *out = w;
    return rc;
}

int bq_weights_open(bq_weights **out, const char *dir) {
    char single[BQ_PATH], index[BQ_PATH];
    bq_path_join(single, sizeof single, dir, "model.safetensors");
    bq_path_join(index, sizeof index, dir, "model.safetensors.index.json");
    bq_weights *w = fresh(dir);
    int rc;
    if (bq_file_exists(single))
        rc = open_single(w, "model.safetensors");
    else if (bq_file_exists(index))
        rc = open_index(w, index);
    else
        rc = bq_refuse(BQ_DATA, "%s: neither model.safetensors nor model.safetensors.index.json is there",
                       dir);
    return finish(out, w, rc);
}

int bq_weights_open_file(bq_weights **out, const char *path) {
    const char *slash = strrchr(path, '/');
    char dir[BQ_PATH];
    bq_path_join(dir, sizeof dir, "", path);
    dir[slash ? slash - path + 1 : 0] = 0;
    bq_weights *w = fresh(dir);
    return finish(out, w, open_single(w, slash ? slash + 1 : path));
}

int bq_weights_open_procedural(bq_weights **out, const char *dir, const char *header, size_t data,
                               int64_t seed) {
    size_t bytes = strlen(header);
    bq_weights *w = fresh(dir);
    w->procedural = true, w->seed = seed;
    w->shard = need(calloc(1, sizeof *w->shard));
    w->shard[w->shards++] = (shard){.name = need(strdup("procedural")), .fd = -1};
    int rc = bq_safetensors_parse(&w->shard[0].st, dir, header, bytes, 8 + bytes + data);
    return finish(out, w, rc ? rc : gather(w));
}

bool bq_weights_procedural(const bq_weights *w, int64_t *seed) {
    *seed = w->seed;
    return w->procedural;
}

void bq_weights_close(bq_weights *w) {
    if (!w) return;
    for (int i = 0; i < w->shards; i++) {
        close(w->shard[i].fd);
        free(w->shard[i].name);
        bq_safetensors_close(&w->shard[i].st);
    }
    free(w->shard);
    free(w->at);
    free(w->by_name);
    free(w->dir);
    free(w);
}

int bq_weights_count(const bq_weights *w) { return w->count; }
const bq_tensor *bq_weights_at(const bq_weights *w, int i) { return &w->at[i]; }
int bq_weights_files(const bq_weights *w) { return w->shards; }

const char *bq_weights_file(const bq_weights *w, int file, size_t *bytes) {
    *bytes = w->shard[file].st.bytes;
    return w->shard[file].name;
}

int bq_weights_fd(const bq_weights *w, int file) { return w->shard[file].fd; }

const char *bq_weights_dir(const bq_weights *w) { return w->dir; }

const char *bq_weights_metadata(const bq_weights *w, const char *key) {
    return bq_safetensors_metadata(&w->shard[0].st, key);
}

const bq_tensor *bq_weights_find(const bq_weights *w, const char *name) {
    bq_tensor wanted = {.name = name};
    const bq_tensor *key = &wanted;
    const bq_tensor **at = bsearch(&key, w->by_name, (size_t)w->count, sizeof *w->by_name, compare_names);
    return at ? *at : NULL;
}

/* ---- reading ---- */

void bq_weights_prefetch(const bq_weights *w, const bq_tensor *t) {
    posix_fadvise(w->shard[t->file].fd, (off_t)t->offset, (off_t)t->bytes, POSIX_FADV_WILLNEED);
}

void bq_weights_pread(const bq_weights *w, int file, size_t from, void *to, size_t bytes) {
    const shard *s = &w->shard[file];
    double start = bq_seconds();
    bq_spent.read += (int64_t)bytes;
    for (char *p = to; bytes;) {
        ssize_t got = bq_fault("weights_read") ? (errno = EIO, -1) : pread(s->fd, p, bytes, (off_t)from);
        if (got < 0 && errno == EINTR) continue;
        BQ_CHECK(got > 0, "read of '%s/%s' failed: %s", w->dir, s->name,
                 got < 0 ? strerror(errno) : "it is shorter than it was");
        p += got, from += (size_t)got, bytes -= (size_t)got;
    }
    bq_spent.files += bq_seconds() - start;
}

void bq_weights_read_raw(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    BQ_CHECK(from <= t->bytes && bytes <= t->bytes - from, "%s: bytes %zu + %zu of %zu", t->name, from, bytes,
             t->bytes);
    if (w->procedural) { /* t may be a flat view of it */
        bq_procedural_make(w->seed, bq_weights_find(w, t->name), from, to, bytes);
        return;
    }
    bq_weights_pread(w, t->file, t->offset + from, to, bytes);
}

/* count values from element `first` on, converted through a buffer of CHUNK bytes. */
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
    BQ_CHECK(bq_dtype_float(t->dtype, &type), "%s: %s cannot be read as f32", t->name, t->dtype);
    BQ_CHECK(t->dims == 1 || t->dims == 2, "%s: %d dimensions, wanted 1 or 2", t->name, t->dims);
    int64_t all = t->dims == 2 ? t->shape[0] : 1, cols = t->shape[t->dims - 1];
    BQ_CHECK(first >= 0 && rows >= 0 && first <= all - rows, "%s: rows %lld + %lld of %lld", t->name,
             (long long)first, (long long)rows, (long long)all);
    BQ_CHECK(to.type == BQ_F32 && to.place != BQ_DEVICE && to.rows == rows && to.cols == cols &&
                 to.ld >= cols,
             "%s: wanted as (%lld, %lld) %s", t->name, (long long)to.rows, (long long)to.cols,
             bq_type_name(to.type));
    uint16_t *buffer = type == BQ_F32 ? NULL : need(malloc(CHUNK));
    if (to.ld == cols)
        read_run(w, t, type, first * cols, rows * cols, to.data, buffer);
    else {
        for (int64_t r = 0; r < rows; r++)
            read_run(w, t, type, (first + r) * cols, cols, bq_mat_at(to, r, 0), buffer);
    }
    free(buffer);
}
