/* SPDX-License-Identifier: Apache-2.0 */
#include "io/out/export.h"

#include "base/die.h"
#include "base/family.h"
#include "base/shard.h"
#include "io/in/config.h"
#include "io/in/fp8.h"
#include "io/out/format.h"
#include "io/files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD  "lm_head.weight"
#define EMBED ".embed_tokens.weight" /* behind a prefix: the tensor of a tied head */

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to plan an export");
    return memory;
}

int bq_export_refuse(const bq_export_item *item, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return bq_refuse(BQ_DATA, "export: '%s'%s", item->name, text);
}

/* ---- items ---- */

static const bq_container *container_of(const bq_export_job *job) {
    return job->format->container ? job->format->container : &bq_container_safetensors;
}

static int compare_items(const void *a, const void *b) {
    const bq_export_item *x = a, *y = b;
    return strverscmp(x->name, y->name); /* layers.2 before layers.10: tensors of a block are neighbours */
}

static bool is_replaced(const bq_export_job *job, const char *name, const bq_tensor *t) {
    bq_mat ask = bq_mat_host(NULL, 1, t->dims ? t->shape[t->dims - 1] : 1, BQ_F32);
    return job->source.dense && job->source.dense(job->source.ctx, name, 0, ask);
}

/* List the source's tensors but scales of FP8, which no output has, and a head that the source ties if the
 * results have one. */
static void collect(bq_export_job *job) {
    int count = bq_weights_count(job->src);
    const bq_tensor *embed = NULL;
    job->item = need(calloc((size_t)count + 1, sizeof *job->item));
    for (int i = 0; i < count; i++) {
        const bq_tensor *t = bq_weights_at(job->src, i);
        size_t n = strlen(t->name);
        if (bq_fp8_scales(job->src, t)) continue;
        if (n > strlen(EMBED) && strcmp(t->name + n - strlen(EMBED), EMBED) == 0) embed = t;
        job->item[job->items++] = (bq_export_item){.name = t->name, .t = t};
    }
    bq_qtensor q = {0};
    if (!bq_weights_find(job->src, HEAD) && embed &&
        (job->source.get(job->source.ctx, HEAD, false, &q) || is_replaced(job, HEAD, embed)))
        job->item[job->items++] = (bq_export_item){.name = HEAD, .t = embed};
    qsort(job->item, (size_t)job->items, sizeof *job->item, compare_items);
}

const bq_export_item *bq_export_find(const bq_export_job *job, const char *name) {
    const bq_export_item key = {.name = name};
    return bsearch(&key, job->item, (size_t)job->items, sizeof key, compare_items);
}

bool bq_export_same(const bq_qtensor *a, const bq_qtensor *b) {
    bq_scheme s = a->scheme;
    bool kept = bq_scheme_small(s) || bq_scheme_small(b->scheme); /* their types are formats of their own */
    if (!kept) s.scale = b->scheme.scale;
    s.grid = b->scheme.grid;
    return bq_scheme_equal(s, b->scheme) && bq_rounding_equal(a->inputs, b->inputs) && a->fixed == b->fixed;
}

/* A result must have the shape of the tensor it replaces: shapes decide how many bytes are read from
 * views. */
static int check_result(const bq_export_item *item) {
    const bq_qtensor *q = &item->q;
    const bq_tensor *t = item->t;
    bq_mat m = q->code;
    int64_t rows = t->dims == 2 ? t->shape[0] : 1, cols = t->dims ? t->shape[t->dims - 1] : 1;
    if (t->dims < 1 || t->dims > 2 || m.rows != rows || m.cols != cols)
        return bq_export_refuse(item, ": result is (%ld, %ld), the tensor (%ld, %ld)", (long)m.rows,
                                (long)m.cols, (long)rows, (long)cols);
    if (m.type != BQ_I8) return bq_export_refuse(item, ": result is of type %s", bq_type_name(m.type));
    int64_t group = q->scheme.group, groups = group > 0 ? (m.cols + group - 1) / group : 1;
    int64_t most = bq_element_whole(q->scheme.element) ? m.cols - 1 : m.cols;
    if (!bq_code_bits(q->scheme) || group > most || q->scale.type != BQ_F32 || q->scale.rows != m.rows ||
        q->scale.cols != groups)
        return bq_export_refuse(item, ": %d bits, scales (%ld, %ld) %s, wanted (%ld, %ld) f32",
                                q->scheme.element, (long)q->scale.rows, (long)q->scale.cols,
                                bq_type_name(q->scale.type), (long)m.rows, (long)groups);
    int64_t zeros = q->scheme.symmetric ? 0 : m.rows;
    if (q->zero.rows != zeros || (zeros && (q->zero.type != BQ_F32 || q->zero.cols != groups)))
        return bq_export_refuse(item, ": zero points (%ld, %ld) %s, wanted (%ld, %ld) f32",
                                (long)q->zero.rows, (long)q->zero.cols, bq_type_name(q->zero.type),
                                (long)zeros, (long)groups);
    if (q->pre.rows && (q->pre.type != BQ_F32 || q->pre.rows != 1 || q->pre.cols != m.cols))
        return bq_export_refuse(item, ": factors (%ld, %ld) %s, wanted (1, %ld) f32", (long)q->pre.rows,
                                (long)q->pre.cols, bq_type_name(q->pre.type), (long)m.cols);
    return BQ_OK;
}

/* Whole rows go through the buffer, so one must fit. */
int bq_export_plan_replaced(bq_export_job *job, int i, const char *dtype) {
    const bq_tensor *t = job->item[i].t;
    if (t->dims < 1 || t->dims > 2 || t->shape[t->dims - 1] > (int64_t)(BQ_EXPORT_BUFFER / 4))
        return bq_export_refuse(&job->item[i], " cannot be replaced: it has %d dimensions or too long rows",
                                t->dims);
    bq_export_add(job, i, 0, 0, "", dtype, t->dims, t->shape);
    return BQ_OK;
}

/* Has the family stacks of experts, and can the format write these? */
static int check_family(bq_export_job *job) {
    int family = bq_config_family(job->config);
    job->stacked = family >= 0 && bq_family_at(family)->traits & BQ_FAMILY_STACKED;
    if (!job->stacked || job->format->stacks) return BQ_OK;
    return bq_refuse(BQ_DATA,
                     "export: %s keeps all experts of a block in one tensor, and %s is not written so: write "
                     "safetensors or gguf",
                     bq_family_at(family)->type, job->format->name);
}

static int plan(bq_export_job *job) {
    bool quantized = false;
    int begun = job->format->begin ? job->format->begin(job) : BQ_OK;
    if (begun) return begun;
    for (int i = 0; i < job->items; i++) {
        bq_export_item *item = &job->item[i];
        item->quantized = job->source.get(job->source.ctx, item->name, false, &item->q);
        item->replaced = !item->quantized && is_replaced(job, item->name, item->t);
        int rc = item->quantized ? check_result(item) : BQ_OK;
        if (!rc && item->quantized && bq_scheme_offset(item->q.scheme) && !job->format->offsets)
            rc = bq_export_refuse(item,
                                  " has zero points that are floats: %s holds none, write safetensors or "
                                  "gguf, or set zero=int where the recipe's bits has it",
                                  job->format->name);
        bool plain = item->replaced && !job->format->replaced;
        if (!rc) rc = plain ? bq_export_plan_replaced(job, i, "F32") : job->format->plan(job, i);
        if (rc) return rc;
        quantized = quantized || item->quantized;
    }
    if (quantized || !job->format->quantized) return BQ_OK;
    return bq_refuse(BQ_DATA, "export: nothing is quantized");
}

void bq_export_add(bq_export_job *job, int item, int part, size_t cut, const char *suffix, const char *dtype,
                   int dims, const int64_t *shape) {
    job->out = bq_grow(job->out, job->outs, &job->room, sizeof *job->out);
    const char *base = job->item[item].name;
    char *name = NULL;
    BQ_CHECK(asprintf(&name, "%.*s%s", (int)(strlen(base) - cut), base, suffix) >= 0, "no memory for a name");
    bq_export_out *out = &job->out[job->outs++];
    *out = (bq_export_out){.t = {.name = name, .dtype = dtype, .dims = dims}, .item = item, .part = part};
    if (dims) memcpy(out->t.shape, shape, (size_t)dims * sizeof *shape);
    out->t.bytes = container_of(job)->bytes(&out->t);
    job->item[item].bytes += out->t.bytes;
}

/* ---- shards ---- */

static void cut_shards(bq_export_job *job, size_t limit) {
    size_t filled = 0;
    job->shards = 1;
    for (int i = 0; i < job->items; i++) {
        bq_export_item *item = &job->item[i];
        if (filled && filled + item->bytes > limit) job->shards++, filled = 0;
        filled += item->bytes;
        item->shard = job->shards - 1;
    }
}

static void shard_name(const bq_export_job *job, int shard, char name[64]) {
    const char *suffix = container_of(job)->suffix;
    if (job->shards == 1)
        snprintf(name, 64, "model.%s", suffix);
    else
        snprintf(name, 64, "model-%05d-of-%05d.%s", shard + 1, job->shards, suffix);
}

static int compare_outs(const void *a, const void *b) {
    const bq_export_out *x = a, *y = b;
    return strcmp(x->t.name, y->t.name);
}

void bq_export_put_raw(bq_export_job *job, const bq_tensor *t, bq_writer *w) {
    for (size_t from = 0, n; from < t->bytes; from += n) {
        n = t->bytes - from < BQ_EXPORT_BUFFER ? t->bytes - from : BQ_EXPORT_BUFFER;
        bq_weights_read_raw(job->src, t, from, job->buffer, n);
        bq_writer_put(w, job->buffer, n);
    }
}

void bq_export_put_rows(bq_mat m, bq_writer *w) {
    BQ_CHECK(m.data && m.place != BQ_DEVICE, "export: a result without data");
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    if (m.ld == m.cols)
        bq_writer_put(w, m.data, row * (size_t)m.rows);
    else
        for (int64_t r = 0; r < m.rows; r++) bq_writer_put(w, bq_mat_at(m, r, 0), row);
}

static void put_replaced(bq_export_job *job, const bq_tensor *t, bq_writer *w) {
    int64_t rows = t->dims == 2 ? t->shape[0] : 1, cols = t->shape[t->dims - 1];
    int64_t room = (int64_t)(BQ_EXPORT_BUFFER / 4) / cols;
    for (int64_t first = 0, n; first < rows; first += n) {
        n = rows - first < room ? rows - first : room;
        bq_mat to = bq_mat_host(job->buffer, n, cols, BQ_F32);
        BQ_CHECK(job->source.dense(job->source.ctx, t->name, first, to), "export: '%s' is gone", t->name);
        bq_export_put_rows(to, w);
    }
}

/* Its shape must be the planned one. */
void bq_export_hold(bq_export_job *job, const bq_export_item *item, bq_qtensor *q) {
    const bq_qtensor *p = &item->q;
    *q = (bq_qtensor){0};
    BQ_CHECK(job->source.get(job->source.ctx, item->name, true, q), "export: '%s' is gone", item->name);
    BQ_CHECK(bq_scheme_equal(q->scheme, p->scheme) && q->code.rows == p->code.rows &&
                 q->code.cols == p->code.cols && bq_rounding_equal(q->inputs, p->inputs) &&
                 q->zero.rows == p->zero.rows && q->pre.rows == p->pre.rows,
             "export: '%s' is not as it was planned", item->name);
}

/* Outs of an item that have types of one width are neighbours in the file, so its data are asked for once
 * for all of these. */
static void write_shard(bq_export_job *job, int shard) {
    char name[64], path[BQ_PATH];
    bq_writer *w = bq_writer_plan_as(container_of(job), &(bq_export_file){job, shard});
    for (int i = 0; i < job->outs; i++) {
        const bq_tensor *t = &job->out[i].t;
        if (job->item[job->out[i].item].shard == shard)
            bq_writer_add(w, t->name, t->dtype, t->dims, t->shape);
    }
    shard_name(job, shard, name);
    bq_path_join(path, sizeof path, job->out_dir, name);
    bq_writer_open(w, path);
    bq_qtensor q = {0};
    int held = -1;
    for (int i = 0; i < bq_writer_count(w); i++) {
        bq_export_out key = {.t = {.name = bq_writer_at(w, i)->name}};
        const bq_export_out *out = bsearch(&key, job->out, (size_t)job->outs, sizeof *out, compare_outs);
        const bq_export_item *item = &job->item[out->item];
        if (item->quantized && held != out->item && out->part >= 0)
            bq_export_hold(job, item, &q), held = out->item;
        const bq_qtensor *result = out->part < 0 ? &item->q : &q;
        if (item->replaced && !job->format->replaced)
            put_replaced(job, &out->t, w);
        else
            job->format->write(job, out, item->quantized ? result : NULL, w);
    }
    job->hash[shard] = bq_writer_close(w);
}

static void write_index(const bq_export_job *job) {
    char path[BQ_PATH], name[64];
    json_t *map = json_object();
    size_t total = 0;
    for (const bq_export_out *out = job->out; out < job->out + job->outs; out++) {
        shard_name(job, job->item[out->item].shard, name);
        BQ_CHECK(json_object_set_new(map, out->t.name, json_string(name)) == 0, "no memory for an index");
        total += out->t.bytes;
    }
    bq_path_join(path, sizeof path, job->out_dir, "model.safetensors.index.json");
    bq_index_write(path, total, map);
}

/* lm_head has a tensor of its own now.  A nested config may say the opposite, too. */
static void untie(json_t *config) {
    static const char key[] = "tie_word_embeddings";
    const char *name;
    json_t *inner;
    json_object_set_new(config, key, json_false());
    json_object_foreach(config, name, inner) {
        if (json_object_get(inner, key)) json_object_set_new(inner, key, json_false());
    }
}

static void write_config(bq_export_job *job) {
    json_t *config = job->config;
    char path[BQ_PATH];
    for (int i = 0; i < job->items; i++) {
        const bq_export_item *item = &job->item[i];
        if (strcmp(item->name, HEAD) == 0 && (item->quantized || item->replaced)) untie(config);
    }
    json_object_del(config, "quantization_config"); /* of the source: FP8 */
    job->format->edit(job, config);
    bq_path_join(path, sizeof path, job->out_dir, "config.json");
    bq_json_write(path, config);
}

/* ---- the job ---- */

int bq_export_open(bq_export_job **out, const bq_weights *src, const char *out_dir, bq_qsource q,
                   const bq_format *format, const void *options, size_t shard_bytes) {
    const char *path;
    bq_export_job *job = need(calloc(1, sizeof *job));
    *job = (bq_export_job){.src = src, .out_dir = out_dir, .source = q, .format = format, .options = options};
    job->buffer = need(malloc(BQ_EXPORT_BUFFER));
    *out = NULL;
    job->config = json_deep_copy(bq_weights_config(src, &path));
    int rc = job->config ? BQ_OK : bq_refuse(BQ_DATA, "'%s' is not there", path);
    if (!rc) rc = check_family(job);
    if (!rc && q.cache && !(format->cache && format->cache(job)))
        rc = bq_refuse(
            BQ_DATA,
            "%s cannot say how keys and values are cached: write compressed-tensors (e4m3, 8 bits; per "
            "tensor or head), modelopt (e4m3 per tensor) or aimet (integers per tensor), or set "
            "bits.kv=16",
            format->name);
    if (!rc) collect(job);
    if (!rc) rc = plan(job);
    if (rc) return bq_export_close(job), rc;
    cut_shards(job, shard_bytes);
    job->hash = need(calloc((size_t)job->shards, sizeof *job->hash));
    if (job->outs) qsort(job->out, (size_t)job->outs, sizeof *job->out, compare_outs);
    *out = job;
    return BQ_OK;
}

bool bq_export_is_linear(const bq_export_item *item) {
    static const char weight[] = ".weight";
    size_t n = strlen(item->name), cut = sizeof weight - 1;
    return item->t->dims == 2 && n > cut && strcmp(item->name + n - cut, weight) == 0 &&
           !strstr(item->name, "embed_tokens");
}

void bq_export_escape(FILE *to, const char *name, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) fprintf(to, name[i] == '.' ? "\\." : "%c", name[i]);
}

int bq_export_shards(const bq_export_job *job) { return job->shards; }

void bq_export_write(bq_export_job *job, int part, int parts) {
    bq_shard mine = bq_shard_of(job->shards, part, parts);
    for (int64_t i = 0; i < mine.count; i++) write_shard(job, (int)(mine.first + i));
}

int bq_export_finish(bq_export_job *job) {
    int rc = job->beside ? BQ_OK : bq_weights_beside(job->src, true, &job->beside);
    if (!rc && job->beside)
        bq_export_dir_put(job->beside, job->out_dir);
    else if (!rc)
        rc = bq_export_copy(job);
    if (rc) return rc;
    if (job->shards > 1 && !job->format->container) write_index(job);
    if (job->format->finish) job->format->finish(job);
    write_config(job);
    return BQ_OK;
}

bq_file_hash *bq_export_hashes(bq_export_job *job) { return job->hash; }

void bq_export_list(const bq_export_job *job, bq_manifest *list) {
    char name[64];
    bq_export_list_copied(job, list);
    for (int i = 0; i < job->shards; i++) {
        shard_name(job, i, name);
        BQ_CHECK(bq_manifest_add(list, job->out_dir, name, &job->hash[i]), "cannot open '%s/%s' again: %s",
                 job->out_dir, name, bq_file_why(errno));
    }
}

void bq_export_close(bq_export_job *job) {
    if (!job) return;
    if (job->own) job->format->end(job);
    for (int i = 0; i < job->outs; i++) free((char *)(uintptr_t)job->out[i].t.name);
    free(job->out);
    free(job->item);
    free(job->buffer);
    free(job->hash);
    json_decref(job->config);
    json_decref(job->beside);
    free(job);
}
