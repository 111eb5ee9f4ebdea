/* SPDX-License-Identifier: Apache-2.0 */
/* Models in safetensors files: one file, or the shards that an index names. */
#include "base/die.h"
#include "io/files.h"
#include "io/in/weights_reader.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS_MAX 900 /* every shard has an open descriptor, and 1024 is the usual limit */
#define SINGLE     "model.safetensors"
#define INDEX      "model.safetensors.index.json"

static int compare_texts(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static int open_shard(bq_weights *w, const char *name) {
    char path[BQ_PATH];
    bq_safetensors st;
    int part = w->parts, rc = bq_weights_part_open(w, name);
    if (rc) return rc;
    bq_path_join(path, sizeof path, w->dir, name);
    rc = bq_safetensors_read(&st, w->part[part].fd, path);
    if (rc) return rc;
    w->part[part].bytes = st.bytes;
    if (!part) w->metadata = json_incref(json_object_get(st.header, BQ_METADATA_KEY));
    for (int i = 0; i < st.count; i++) {
        st.at[i].file = part;
        bq_weights_add(w, &st.at[i]);
    }
    bq_safetensors_close(&st);
    return BQ_OK;
}

/* Open the files that the map names, each once, in order of name. */
static int open_shards(bq_weights *w, const json_t *map) {
    const char *key;
    json_t *v;
    size_t n = 0, all = json_object_size(map), files = 0;
    const char **file = calloc(all + 1, sizeof *file);
    BQ_CHECK(file, "no memory for the names of %zu tensors' files", all);
    json_object_foreach((json_t *)(uintptr_t)map, key, v) file[n++] = json_string_value(v);
    qsort(file, n, sizeof *file, compare_texts);
    for (size_t i = 0; i < n; i++) {
        if (!i || strcmp(file[i], file[files - 1]) != 0) file[files++] = file[i];
    }
    int rc = BQ_OK;
    if (files > SHARDS_MAX)
        rc = bq_refuse(BQ_DATA, "%s: %zu shards, at most %d can be open", w->dir, files, SHARDS_MAX);
    for (size_t i = 0; i < files && !rc; i++) rc = open_shard(w, file[i]);
    free(file);
    return rc;
}

/* Check that the index and the headers agree. */
static int agree(const bq_weights *w, const char *path, const json_t *map) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        const bq_tensor *t = bq_weights_find(w, key);
        if (!t || strcmp(w->part[t->file].name, json_string_value(v)) != 0) {
            return bq_refuse(BQ_DATA, "%s: tensor '%.200s' is not in '%s'", path, key, json_string_value(v));
        }
    }
    for (int i = 0; i < w->count; i++) {
        if (json_object_get(map, w->at[i].name)) continue;
        return bq_refuse(BQ_DATA, "%s: tensor '%.200s' of '%s' is not listed", path, w->at[i].name,
                         w->part[w->at[i].file].name);
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
    if (!rc) rc = bq_weights_listed(w);
    if (!rc) rc = agree(w, path, map);
    json_decref(map);
    return rc;
}

static int open_single(bq_weights *w, const char *name) {
    int rc = open_shard(w, name);
    return rc ? rc : bq_weights_listed(w);
}

static bool is_shard(const char *path) {
    return fnmatch("*.safetensors", path, 0) == 0 && bq_file_exists(path);
}

static bool has(const char *dir, const char *name) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, dir, name);
    return bq_file_exists(path);
}

static bool knows(const char *path, const json_t *config) {
    (void)config;
    return has(path, SINGLE) || has(path, INDEX) || is_shard(path);
}

static int open_any(bq_weights *w, const char *path) {
    const char *slash = strrchr(path, '/');
    char index[BQ_PATH];
    if (has(path, SINGLE)) return open_single(w, SINGLE);
    bq_path_join(index, sizeof index, path, INDEX);
    return bq_file_exists(index) ? open_index(w, index) : open_single(w, slash ? slash + 1 : path);
}

static void read_stored(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    bq_weights_pread(w, t->file, t->offset + from, to, bytes);
}

static void prefetch(const bq_weights *w, const bq_tensor *t) {
    posix_fadvise(w->part[t->file].fd, (off_t)t->offset, (off_t)t->bytes, POSIX_FADV_WILLNEED);
}

const bq_weights_reader bq_weights_safetensors = {
    .wanted = SINGLE " or " INDEX,
    .knows = knows,
    .open = open_any,
    .read = read_stored,
    .prefetch = prefetch,
    .stored = true,
};
