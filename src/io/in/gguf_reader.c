/* SPDX-License-Identifier: Apache-2.0 */
/* Models in GGUF files.  Tensors have the checkpoint's names and order of rows; what the converter did to
 * them is undone.  Matrices that are stored as F16 or BF16 stay so: their values need no more.  All other
 * tensors are F32, which holds every decoded value; F16 and BF16 would round most of them. */
#include "base/die.h"
#include "base/num.h"
#include "io/files.h"
#include "io/in/gguf_config.h"
#include "io/in/gguf_names.h"
#include "io/in/gguf_tokenizer.h"
#include "io/in/weights_reader.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Where a tensor of the model is: tensor `at` of the file, or one expert of it. */
typedef struct {
    int at;
    bq_gguf_name how;
} place;

typedef struct {
    bq_gguf *g;
    int64_t head_dim;
    place *of; /* in order of bq_weights.at */
    int room;
} model;

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to read a GGUF file");
    return memory;
}

/* ---- opening ---- */

static bool knows(const char *path, const json_t *config) {
    struct stat st;
    (void)config;
    return fnmatch("*.gguf", path, 0) == 0 && stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

/* stored: as the file has it, maybe a stack of experts. */
static void add(bq_weights *w, model *m, int at, const bq_tensor *stored, const bq_gguf_name *how) {
    bq_type type;
    bq_tensor t = *stored;
    if (how->expert >= 0) {
        t.dims--;
        for (int i = 0; i < t.dims; i++) t.shape[i] = stored->shape[i + 1];
    }
    bool kept = t.dims == 2 && how->change != BQ_GGUF_PLUS_ONE && bq_dtype_float(stored->dtype, &type);
    t.name = how->name, t.dtype = bq_dtype_name(kept ? stored->dtype : "F32");
    t.bytes = (size_t)bq_tensor_count(&t) * (size_t)bq_dtype_bits(t.dtype) / 8;
    if (w->count == m->room) {
        m->room = m->room ? 2 * m->room : 256;
        m->of = need(realloc(m->of, (size_t)m->room * sizeof *m->of));
    }
    m->of[w->count] = (place){at, *how};
    bq_weights_add(w, &t);
}

/* Add the tensors of the model that tensor `at` of the file has. */
static int take(bq_weights *w, model *m, int arch, int at) {
    const bq_tensor *t = bq_gguf_at(m->g, at);
    bq_gguf_name how;
    bq_gguf_kind kind = bq_gguf_checkpoint_name(arch, t->name, 0, &how);
    if (kind == BQ_GGUF_BESIDE) return BQ_OK;
    if (kind == BQ_GGUF_UNKNOWN)
        return bq_refuse(BQ_DATA, "%s: tensor '%.200s' is not known for architecture %s", w->config_path,
                         t->name, bq_gguf_arch_at(arch));
    int64_t experts = kind == BQ_GGUF_EXPERTS ? t->shape[0] : 1;
    bool bias = fnmatch("*.bias", t->name, 0) == 0;
    if (kind == BQ_GGUF_EXPERTS ? t->dims != (bias ? 2 : 3) : t->dims > 2)
        return bq_refuse(BQ_DATA, "%s: tensor '%.200s' has %d dimensions", w->config_path, t->name, t->dims);
    if (experts > BQ_GGUF_TENSORS - w->count)
        return bq_refuse(BQ_DATA, "%s: tensor '%.200s' has %lld experts", w->config_path, t->name,
                         (long long)experts);
    int64_t channels = t->shape[0];
    if (how.change == BQ_GGUF_PAIRED && (m->head_dim < 2 || m->head_dim % 2 || channels % m->head_dim))
        return bq_refuse(BQ_DATA, "%s: tensor '%.200s' has %lld rows, which are no heads of %lld",
                         w->config_path, t->name, (long long)channels, (long long)m->head_dim);
    for (int64_t i = 0; i < experts; i++) {
        bq_gguf_checkpoint_name(arch, t->name, i, &how);
        add(w, m, at, t, &how);
    }
    return BQ_OK;
}

static int take_config(bq_weights *w, model *m, const char *path, int *arch) {
    char name[64];
    json_decref(w->config);
    free(w->config_path);
    w->config_path = need(strdup(path));
    int rc = bq_gguf_config(m->g, &w->config);
    if (rc) return rc;
    bq_gguf_keys k = bq_gguf_keys_of(m->g);
    bq_gguf_word(&k, "general.architecture", name);
    *arch = bq_gguf_arch_find(name);
    BQ_CHECK(*arch >= 0, "%s: there are no names for architecture %s", path, name);
    m->head_dim = json_integer_value(json_object_get(w->config, "head_dim"));
    return BQ_OK;
}

static int open_model(bq_weights *w, const char *path) {
    model *m = w->own = need(calloc(1, sizeof *m));
    int arch = -1, rc = bq_gguf_open(&m->g, path);
    if (!rc) rc = take_config(w, m, path, &arch);
    for (int i = 0; !rc && i < bq_gguf_files(m->g); i++) {
        size_t bytes;
        rc = bq_weights_part_open(w, bq_gguf_file(m->g, i, &bytes));
        if (!rc) w->part[i].bytes = bytes;
    }
    for (int i = 0; !rc && i < bq_gguf_count(m->g); i++) rc = take(w, m, arch, i);
    return rc ? rc : bq_weights_listed(w);
}

static void close_model(void *own) {
    model *m = own;
    bq_gguf_close(m->g);
    free(m->of);
    free(m);
}

/* ---- reading ---- */

static const place *place_of(const bq_weights *w, const bq_tensor *t) {
    const model *m = w->own;
    return &m->of[bq_weights_find(w, t->name) - w->at]; /* t may be a view */
}

static void put(const float *from, int64_t count, bq_type type, uint8_t *to) {
    if (type == BQ_F32) memcpy(to, from, (size_t)count * 4);
    for (int64_t i = 0; i < count && type != BQ_F32; i++) {
        uint16_t u = type == BQ_F16 ? bq_to_f16(from[i]) : bq_to_bf16(from[i]);
        memcpy(to + 2 * i, &u, 2);
    }
}

/* Rows of F32 are decoded in place, the others, and parts of rows, one by one beside it. */
static void read_values(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    const model *m = w->own;
    const place *p = place_of(w, t);
    const bq_tensor *stored = bq_gguf_at(m->g, p->at);
    bq_type type = BQ_F32;
    bq_dtype_float(t->dtype, &type);
    int64_t size = (int64_t)bq_type_size(type), cols = bq_gguf_cols(stored), n;
    BQ_CHECK(from % (size_t)size == 0 && bytes % (size_t)size == 0, "%s: bytes %zu + %zu of %s", t->name,
             from, bytes, t->dtype);
    uint8_t *out = to;
    float *row = NULL;
    for (int64_t at = (int64_t)from / size, end = at + (int64_t)bytes / size; at < end; at += n) {
        int64_t first = at / cols, skip = at % cols, rows = (end - at) / cols;
        bool whole = type == BQ_F32 && !skip && rows && (uintptr_t)out % sizeof(float) == 0;
        n = whole ? rows * cols : end - at < cols - skip ? end - at : cols - skip;
        if (!whole && !row) row = need(malloc((size_t)cols * sizeof *row));
        bq_mat decoded = bq_mat_host(whole ? (void *)out : row, whole ? rows : 1, cols, BQ_F32);
        bq_gguf_read_as(m->g, stored, &p->how, m->head_dim, first, decoded.rows, decoded);
        if (!whole) put(row + skip, n, type, out);
        out += n * size;
    }
    free(row);
}

static size_t held(const bq_weights *w, const bq_tensor *t) {
    const model *m = w->own;
    const place *p = place_of(w, t);
    const bq_tensor *stored = bq_gguf_at(m->g, p->at);
    return p->how.expert < 0 ? stored->bytes : stored->bytes / (size_t)stored->shape[0];
}

static void prefetch(const bq_weights *w, const bq_tensor *t) {
    const model *m = w->own;
    const place *p = place_of(w, t);
    const bq_tensor *stored = bq_gguf_at(m->g, p->at);
    size_t bytes = held(w, t);
    size_t from = stored->offset + (p->how.expert < 0 ? 0 : (size_t)p->how.expert * bytes);
    posix_fadvise(bq_gguf_fd(m->g, stored->file), (off_t)from, (off_t)bytes, POSIX_FADV_WILLNEED);
}

/* ---- files beside the weights ---- */

static void put_file(json_t *files, const char *name, json_t *value) {
    BQ_CHECK(json_object_set_new(files, name, value) == 0, "no memory for '%s'", name);
}

static int beside(const bq_weights *w, bool tokenizer, json_t **files) {
    static const char *const ids[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    const model *m = w->own;
    json_t *text = NULL, *more = NULL, *all = need(json_object()), *generation = need(json_object());
    int rc = tokenizer ? bq_gguf_tokenizer(m->g, &text, &more) : BQ_OK;
    if (text) put_file(all, "tokenizer.json", text), put_file(all, "tokenizer_config.json", more);
    put_file(generation, "_from_model_config", json_true());
    for (int i = 0; i < 3; i++) {
        json_t *id = json_object_get(w->config, ids[i]);
        if (id) put_file(generation, ids[i], json_incref(id));
    }
    if (json_object_size(generation) > 1) put_file(all, "generation_config.json", json_incref(generation));
    json_decref(generation);
    if (rc) json_decref(all);
    *files = rc ? NULL : all;
    return rc;
}

const bq_weights_reader bq_weights_gguf = {
    .wanted = "a GGUF file, or its first part (*.gguf)",
    .knows = knows,
    .open = open_model,
    .close = close_model,
    .read = read_values,
    .held = held,
    .prefetch = prefetch,
    .beside = beside,
};
