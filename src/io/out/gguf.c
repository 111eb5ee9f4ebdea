/* GGUF, version 3.  A result whose grid a type of GGUF has keeps its codes; others are quantized again by the
 * rule of a type (gguf_pack.c).
 * Tensors that are not quantized: matrices of F32, F16 and BF16 keep their type, routers and all tensors of
 * one dimension become F32, replaced ones are F32.  Names, the order of rows of q and k, and the 1 that is
 * added to Gemma's norms are those of the converter of llama.cpp (io/in/gguf_names.h), and the experts of a
 * block are one tensor.  Several shards are the parts of one model, as readers know them. */
#include "io/out/gguf.h"

#include "base/die.h"
#include "base/family.h"
#include "base/log.h"
#include "io/files.h"
#include "io/in/config.h"
#include "io/in/gguf_names.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

/* By model_type: the architecture, and whether its windows can be said. */
static const struct {
    const char *type, *arch;
    bool windows;
} archs[] = {{"llama", "llama", false}, {"mistral", "llama", false},    {"mixtral", "llama", false},
             {"qwen2", "qwen2", false}, {"qwen3", "qwen3", false},      {"qwen3_moe", "qwen3moe", false},
             {"phi3", "phi3", true},    {"gemma3_text", "gemma3", true}};

/* What the keys of the architecture cannot say; NULL: nothing. */
static const char *lack(const bq_model *m, const char *type, bool windows) {
    const bq_rope *r = &m->rope;
    bool dense = false;
    for (int b = 0; b < m->blocks; b++) dense |= m->dense[b];
    double yarn = r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    if (m->window && !windows) return "a sliding window";
    if (m->experts && dense) return "blocks without experts beside others";
    if (strcmp(type, "qwen3_moe") == 0 && (!m->experts || !m->route_normalize))
        return "how it chooses experts";
    if (m->query_scalar && m->query_scalar != (double)m->head_dim) return "its query_pre_attn_scalar";
    if (r->kind == BQ_ROPE_YARN && (r->attention != yarn || r->low != 1 || r->high != 32 || !r->truncate))
        return "its yarn, which has more than a factor";
    return NULL;
}

static int find_arch(const bq_export_job *job, bq_gguf_job *own) {
    const char *path, *type = bq_family_at(own->model.family)->type;
    size_t i = 0, n = sizeof archs / sizeof *archs;
    while (i < n && strcmp(archs[i].type, type) != 0) i++;
    bq_weights_config(job->src, &path);
    if (i == n)
        return bq_refuse(BQ_DATA, "%s: gguf is not written for model_type %s: write another format", path,
                         type);
    const char *why = lack(&own->model, type, archs[i].windows);
    if (why) return bq_refuse(BQ_DATA, "%s: gguf cannot say %s: write another format", path, why);
    own->arch = bq_gguf_arch_find(archs[i].arch);
    return BQ_OK;
}

static int read_beside(const bq_export_job *job, const json_t *beside, const char *name, json_t **to) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, bq_weights_dir(job->src), name);
    *to = beside ? json_incref(json_object_get(beside, name)) : NULL;
    return beside || !bq_file_exists(path) ? BQ_OK : bq_json_read(path, BQ_HEADER_MAX, to);
}

static int begin(bq_export_job *job) {
    bq_gguf_job *own = job->own = calloc(1, sizeof *own);
    json_t *beside = NULL;
    BQ_CHECK(own, "no memory to plan an export");
    int rc = bq_config_of(job->src, &own->model);
    if (!rc) rc = find_arch(job, own);
    if (!rc) rc = bq_weights_beside(job->src, true, &beside);
    if (!rc) rc = read_beside(job, beside, "tokenizer.json", &own->tokenizer);
    if (!rc) rc = read_beside(job, beside, "tokenizer_config.json", &own->config);
    json_decref(beside);
    return rc;
}

static void end(bq_export_job *job) {
    bq_gguf_job *own = job->own;
    if (own->rounded)
        bq_log_all(BQ_INFO,
                   "gguf: minima of %ld of %ld blocks were rounded to F16, by at most %.2g of a step",
                   (long)own->rounded, (long)own->blocks, (double)own->worst);
    if (own->again)
        bq_log_all(BQ_INFO,
                   "gguf: %ld rows were quantized again, by the rule of their type: error %.2g of the "
                   "values (RMS)",
                   (long)own->again, sqrt(own->error / own->power));
    json_decref(own->tokenizer);
    json_decref(own->config);
    free(own);
}

/* ---- the plan ---- */

/* The type's name in the file; NULL after one message. */
static const char *type_of(const bq_export_item *item, const bq_gguf_name *name) {
    const bq_gguf_type *type;
    const char *why, *source = item->t->dtype;
    bq_type plain;
    if (item->quantized) {
        type = bq_gguf_type_for(&item->q, &why);
        if (type) return type->name;
        bq_export_refuse(item, " cannot be in gguf: it has %s", why);
        return NULL;
    }
    if (item->replaced || item->t->dims == 1 || strstr(name->name, ".ffn_gate_inp.")) return "F32";
    if (bq_dtype_float(source, &plain)) return source;
    bq_export_refuse(item, " is of type %s, which gguf is not written with", source);
    return NULL;
}

static void add_rope(bq_export_job *job, int item, size_t cut) {
    const bq_rope *rope = &((bq_gguf_job *)job->own)->model.rope;
    const int64_t shape[] = {rope->dim / 2};
    if (rope->kind == BQ_ROPE_LLAMA3)
        bq_export_add(job, item, BQ_GGUF_FREQS, cut, "rope_freqs.weight", "F32", 1, shape);
    if (rope->kind == BQ_ROPE_LONG) {
        bq_export_add(job, item, BQ_GGUF_LONG, cut, "rope_factors_long.weight", "F32", 1, shape);
        bq_export_add(job, item, BQ_GGUF_SHORT, cut, "rope_factors_short.weight", "F32", 1, shape);
    }
}

static int compare_items(const void *a, const void *b) {
    return strverscmp(((const bq_export_item *)a)->name, ((const bq_export_item *)b)->name);
}

/* The item of another expert of a stacked tensor. */
static const bq_export_item *expert(const bq_export_job *job, const char *stacked, int64_t e) {
    bq_gguf_name name;
    bq_gguf_checkpoint_name(((bq_gguf_job *)job->own)->arch, stacked, e, &name);
    const bq_export_item key = {.name = name.name};
    return bsearch(&key, job->item, (size_t)job->items, sizeof key, compare_items);
}

static int plan(bq_export_job *job, int item) {
    const bq_gguf_job *own = job->own;
    const bq_export_item *it = &job->item[item];
    const bq_tensor *t = it->t;
    bq_gguf_name name;
    if (t->dims < 1 || t->dims > 2 || !bq_gguf_name_of(own->arch, it->name, &name))
        return bq_export_refuse(it, " has no name in gguf's %s: write another format",
                                bq_gguf_arch_at(own->arch));
    const char *type = type_of(it, &name);
    size_t cut = strlen(it->name);
    if (!type) return BQ_DATA;
    bool paired = name.change == BQ_GGUF_PAIRED && it->replaced && t->dims == 2;
    if (t->shape[t->dims - 1] * (paired ? own->model.head_dim : 1) > (int64_t)(BQ_EXPORT_BUFFER / 4))
        return bq_export_refuse(it, " has too long rows");
    if (name.expert < 0) {
        bq_export_add(job, item, BQ_GGUF_TENSOR, cut, name.name, type, t->dims, t->shape);
    } else if (name.expert == 0) {
        const int64_t shape[] = {own->model.experts, t->shape[0], t->shape[1]};
        bq_export_add(job, item, BQ_GGUF_TENSOR, cut, name.name, type, 3, shape);
    } else {
        const bq_export_item *first = expert(job, name.name, 0);
        if (!first || strcmp(type_of(first, &name), type) != 0)
            return bq_export_refuse(it,
                                    " is not as that of expert 0, with which it would be one tensor in gguf");
    }
    if (strcmp(name.name, "token_embd.weight") == 0) add_rope(job, item, cut);
    return BQ_OK;
}

/* ---- writing ---- */

/* Rows [first, first + rows) of an item as floats. */
static void fetch(const bq_export_job *job, const bq_export_item *item, int64_t first, bq_mat to) {
    if (!item->replaced)
        bq_weights_read(job->src, item->t, first, to.rows, to);
    else
        BQ_CHECK(job->source.dense(job->source.ctx, item->name, first, to), "export: '%s' is gone",
                 item->name);
}

/* Which row, or channel of a bias, of the checkpoint stands at place r. */
static int64_t row_at(int64_t r, int64_t head_dim) {
    int64_t i = r % head_dim;
    return r - i + i % 2 * (head_dim / 2) + i / 2;
}

/* As F32. */
static void put_floats(bq_export_job *job, const bq_export_item *item, bq_gguf_change change, bq_writer *w) {
    int64_t hd = ((bq_gguf_job *)job->own)->model.head_dim, cols = item->t->shape[item->t->dims - 1];
    int64_t rows = item->t->dims == 2 ? item->t->shape[0] : 1, room = (int64_t)(BQ_EXPORT_BUFFER / 4) / cols;
    bool paired = change == BQ_GGUF_PAIRED;
    if (paired && rows > 1) room = hd;
    float *value = (float *)(void *)job->buffer;
    for (int64_t first = 0, n; first < rows; first += n) {
        n = rows - first < room ? rows - first : room;
        fetch(job, item, first, bq_mat_host(value, n, cols, BQ_F32));
        for (int64_t i = 0; i < n * cols && change == BQ_GGUF_PLUS_ONE; i++) value[i] += 1;
        if (!paired) bq_writer_put(w, value, (size_t)(n * cols) * 4);
        for (int64_t r = 0; r < n && paired && rows > 1; r++)
            bq_writer_put(w, value + row_at(r, hd) * cols, (size_t)cols * 4);
        for (int64_t c = 0; c < cols && paired && rows == 1; c++) bq_writer_put(w, value + row_at(c, hd), 4);
    }
}

/* As in the source, its rows in the order of the file. */
static void put_rows(bq_export_job *job, const bq_tensor *t, int64_t head_dim, bq_writer *w) {
    size_t row = t->bytes / (size_t)t->shape[0];
    for (int64_t r = 0; r < t->shape[0]; r++) {
        bq_weights_read_raw(job->src, t, (size_t)row_at(r, head_dim) * row, job->buffer, row);
        bq_writer_put(w, job->buffer, row);
    }
}

static void put_codes(bq_export_job *job, const bq_qtensor *q, const char *dtype, bool paired, bq_writer *w) {
    bq_gguf_job *own = job->own;
    const bq_gguf_type *type = bq_gguf_type_named(dtype);
    size_t row = (size_t)(q->code.cols / type->elements * type->bytes);
    BQ_CHECK(q->code.data && q->scale.data, "export: a result without data");
    for (int64_t r = 0; r < q->code.rows; r++) {
        bq_gguf_pack(own, q, type, paired ? row_at(r, own->model.head_dim) : r, (uint8_t *)job->buffer);
        bq_writer_put(w, job->buffer, row);
    }
}

/* Factors of llama3 divide the frequencies: 1 for short waves, the factor for long ones, a ramp between. */
static void put_rope(const bq_rope *rope, bq_gguf_part part, bq_writer *w) {
    for (int64_t i = 0; i < rope->dim / 2; i++) {
        double wave = 2 * acos(-1) * pow(rope->theta, 2.0 * (double)i / (double)rope->dim);
        double t = (rope->original / wave - rope->low) / (rope->high - rope->low);
        double divisor = t > 1 ? 1 : t < 0 ? rope->factor : 1 / ((1 - t) / rope->factor + t);
        float x = (float)(part == BQ_GGUF_LONG    ? rope->long_factor[i]
                          : part == BQ_GGUF_SHORT ? rope->short_factor[i]
                                                  : divisor);
        bq_writer_put(w, &x, 4);
    }
}

/* One tensor of the model.  q: its result, NULL: it is not quantized. */
static void put_item(bq_export_job *job, const bq_export_item *item, const bq_qtensor *q, const char *dtype,
                     bq_gguf_change change, bq_writer *w) {
    bool paired = change == BQ_GGUF_PAIRED;
    if (q)
        put_codes(job, q, dtype, paired, w);
    else if (item->replaced || item->t->dims == 1 || strcmp(dtype, item->t->dtype) != 0)
        put_floats(job, item, change, w);
    else if (paired)
        put_rows(job, item->t, ((bq_gguf_job *)job->own)->model.head_dim, w);
    else
        bq_export_put_raw(job, item->t, w);
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    const bq_gguf_job *own = job->own;
    bq_gguf_name name;
    if (out->part != BQ_GGUF_TENSOR) {
        put_rope(&own->model.rope, (bq_gguf_part)out->part, w);
        return;
    }
    bq_gguf_name_of(own->arch, job->item[out->item].name, &name);
    put_item(job, &job->item[out->item], q, out->t.dtype, name.change, w);
    for (int64_t e = 1; e < own->model.experts && name.expert == 0; e++) {
        const bq_export_item *item = expert(job, out->t.name, e);
        bq_qtensor one;
        if (item->quantized) bq_export_hold(job, item, &one);
        put_item(job, item, item->quantized ? &one : NULL, out->t.dtype, name.change, w);
    }
}

/* config.json and the tokenizer's files stand beside the model as they were. */
static void edit(const bq_export_job *job, json_t *config) { (void)job, (void)config; }

static const char *dtype(const char *name) {
    const bq_gguf_type *type = bq_gguf_type_named(name);
    return type ? type->name : NULL;
}

static size_t bytes_of(const bq_tensor *t) {
    const bq_gguf_type *type = bq_gguf_type_named(t->dtype);
    return (size_t)(bq_tensor_count(t) / type->elements * type->bytes);
}

static const bq_container container = {
    .suffix = "gguf", .align = BQ_GGUF_ALIGN, .dtype = dtype, .bytes = bytes_of, .header = bq_gguf_head};

const bq_format bq_format_gguf = {
    .name = "gguf",
    .help = "codes of up to 8 bits in groups of 32 with F16 scales, as llama.cpp reads them.",
    .loads = "- llama.cpp: `llama-cli -m FILE`, or `llama-server -m FILE`\n",
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .container = &container,
    .replaced = true,
    .begin = begin,
    .end = end,
};
