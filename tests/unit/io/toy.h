/* SPDX-License-Identifier: Apache-2.0 */
/* toy.h - a model directory made of a golden model, and results to export: round to nearest of its Linears.
 */
#ifndef TOY_H
#define TOY_H

#include "refuse.h"

#include "base/num.h"
#include "io/out/format.h"
#include "io/files.h"
#include "io/json.h"
#include "io/out/writer.h"

#include <math.h>

/* Open an output's tensors as they are stored: without its config.json, which may say what they stand for. */
static inline int stored_open(bq_weights **w, const char *dir) {
    char config[600], hidden[600];
    snprintf(config, sizeof config, "%s/config.json", dir);
    snprintf(hidden, sizeof hidden, "%s/config.hidden", dir);
    assert_int_equal(rename(config, hidden), 0);
    int code = bq_weights_open(w, dir);
    assert_int_equal(rename(hidden, config), 0);
    return code;
}

static inline void text_in(const char *dir, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    text_save(path, text);
}

/* dir/config.json and dir/model.safetensors from tests/vectors/<golden>: names without init/, values in
 * dtype. */
static inline void toy_model(const char *dir, const char *golden, const char *dtype) {
    char path[600];
    bq_weights *w;
    snprintf(path, sizeof path, "%s/%s.safetensors", BQ_VECTORS, golden);
    assert_int_equal(bq_weights_open(&w, path), BQ_OK);
    assert_int_equal(bq_dir_make(dir), 0);
    text_in(dir, "config.json", bq_weights_metadata(w, "config"));
    bq_writer *to = bq_writer_plan();
    for (int i = 0; i < bq_weights_count(w); i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        if (strncmp(t->name, "init/", 5) == 0) bq_writer_add(to, t->name + 5, dtype, t->dims, t->shape);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    bq_writer_open(to, path);
    for (int i = 0; i < bq_writer_count(to); i++) {
        snprintf(path, sizeof path, "init/%s", bq_writer_at(to, i)->name);
        const bq_tensor *t = bq_weights_find(w, path);
        float *data = malloc(t->bytes);
        assert_non_null(data);
        bq_weights_read_raw(w, t, 0, data, t->bytes);
        if (strcmp(dtype, "F32") == 0)
            bq_writer_put(to, data, t->bytes);
        else {
            for (size_t k = 0; k < t->bytes / 4; k++) bq_writer_put(to, (uint16_t[]){bq_to_bf16(data[k])}, 2);
        }
        free(data);
    }
    bq_writer_close(to);
    bq_weights_close(w);
}

/* The rule of a toy result, by name: bits 0 leaves the tensor; bits 1 replaces it by twice its value;
 * negative bits: with zero points; 16 + bits: with inputs of 8 bits; 32 + bits: with factors of the inputs.
 */
typedef struct {
    const char *part; /* of the name; the first rule that fits counts */
    int bits;
    int64_t group;
} toy_rule;

typedef struct {
    const bq_weights *src;
    const toy_rule *rule; /* ends with part NULL */
    bool with_dense;      /* give the product too */
    int gets;             /* tensors whose data were asked for */
    int64_t rows;         /* of the replaced tensor, so far */
    float *value, *scale, *zero, *dense, pre[512];
    int8_t *code;
} toy;

static inline void toy_free(toy *t) {
    free(t->value);
    free(t->scale);
    free(t->zero);
    free(t->dense);
    free(t->code);
    t->value = t->scale = t->zero = t->dense = NULL;
    t->code = NULL;
}

static inline void toy_quantize(toy *t, const bq_qtensor *q, int64_t rows, int64_t cols) {
    int64_t groups = q->scale.cols, width = groups > 1 ? q->scheme.group : cols;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t g = 0; g < groups; g++) {
            float low = -1e-9f, high = 1e-9f, limit = bq_qmax(q->scheme), zero = 0;
            int64_t end = (g + 1) * width < cols ? (g + 1) * width : cols;
            for (int64_t c = g * width; c < end; c++)
                low = fminf(low, t->value[r * cols + c]), high = fmaxf(high, t->value[r * cols + c]);
            float scale = q->zero.rows ? (high - low) / (2 * limit + 1) : fmaxf(high, -low) / limit;
            if (q->zero.rows) zero = fmaxf(-limit - 1, fminf(limit, -limit - 1 - rintf(low / scale)));
            t->scale[r * groups + g] = scale, t->zero[r * groups + g] = zero;
            for (int64_t c = g * width; c < end; c++) {
                float code = fmaxf(-limit - 1, fminf(limit, rintf(t->value[r * cols + c] / scale) + zero));
                t->code[r * cols + c] = (int8_t)code;
                t->dense[r * cols + c] = (code - zero) * scale;
                if (q->pre.rows) t->dense[r * cols + c] *= t->pre[c];
            }
        }
    }
}

static inline const toy_rule *toy_rule_of(const toy *t, const char *name) {
    const toy_rule *rule = t->rule;
    while (rule->part && !strstr(name, rule->part)) rule++;
    return rule;
}

static inline const bq_tensor *toy_source(const toy *t, const char *name) {
    const bq_tensor *from = bq_weights_find(t->src, name);
    return from ? from : bq_weights_find(t->src, "model.embed_tokens.weight");
}

/* Rows in order, each once. */
static inline bool toy_dense(void *ctx, const char *name, int64_t first, bq_mat to) {
    toy *t = ctx;
    const bq_tensor *from = toy_source(t, name);
    if (toy_rule_of(t, name)->bits != 1) return false;
    if (!to.data) return true;
    if (first == 0) t->gets++, t->rows = 0;
    assert_int_equal(first, t->rows);
    assert_int_equal(to.cols, from->shape[from->dims - 1]);
    assert_true(to.type == BQ_F32 && to.place == BQ_HOST);
    t->rows += to.rows;
    assert_true(t->rows <= (from->dims == 2 ? from->shape[0] : 1));
    bq_weights_read(t->src, from, first, to.rows, to);
    for (int64_t r = 0; r < to.rows; r++)
        for (int64_t c = 0; c < to.cols; c++) *(float *)bq_mat_at(to, r, c) *= 2;
    return true;
}

static inline bool toy_get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    toy *t = ctx;
    const toy_rule *rule = toy_rule_of(t, name);
    if (rule->bits == 0 || rule->bits == 1) return false;
    const bq_tensor *from = toy_source(t, name);
    int64_t rows = from->dims == 2 ? from->shape[0] : 1, cols = from->shape[from->dims - 1];
    int64_t groups = rule->group ? (cols + rule->group - 1) / rule->group : 1;
    *q = (bq_qtensor){.scheme = {abs(rule->bits) % 16, rule->group ? rule->group : -1, rule->bits > 0, BQ_F32,
                                 BQ_GRID_AIMET, 1, 0},
                      .inputs =
                          rule->bits > 16 && rule->bits < 32 ? bq_rounding_of_tokens(8) : (bq_rounding){0},
                      .code = bq_mat_host(NULL, rows, cols, BQ_I8),
                      .scale = bq_mat_host(NULL, rows, groups, BQ_F32),
                      .zero = bq_mat_host(NULL, rule->bits < 0 ? rows : 0, groups, BQ_F32),
                      .pre = bq_mat_host(NULL, rule->bits > 32, cols, BQ_F32)};
    if (!want_data) return true;
    assert_true(cols <= 512);
    for (int64_t c = 0; c < cols; c++) t->pre[c] = 1 / (float)(c % 7 + 3);
    if (q->pre.rows) q->pre.data = t->pre;
    t->gets++;
    toy_free(t);
    size_t n = (size_t)(rows * cols);
    t->value = malloc(4 * n), t->scale = malloc((size_t)(4 * rows * groups)),
    t->zero = malloc((size_t)(4 * rows * groups)), t->dense = malloc(4 * n), t->code = malloc(n);
    assert_true(t->value && t->scale && t->zero && t->dense && t->code);
    bq_weights_read(t->src, from, 0, rows, bq_mat_host(t->value, rows, cols, BQ_F32));
    toy_quantize(t, q, rows, cols);
    q->code.data = t->code, q->scale.data = t->scale, q->zero.data = q->zero.rows ? t->zero : NULL;
    if (t->with_dense) q->dense = bq_mat_host(t->dense, rows, cols, BQ_F32);
    return true;
}

/* ---- */

static const toy_rule w4[] = {{"lm_head", 0, 0}, {"_proj.weight", 4, 0}, {NULL, 0, 0}};
static const toy_rule w4g4[] = {{"lm_head", 0, 0}, {"_proj.weight", 4, 4}, {NULL, 0, 0}};
static const toy_rule w8g4[] = {{"lm_head", 0, 0}, {"_proj.weight", 8, 4}, {NULL, 0, 0}};
static const toy_rule mixed[] = {{"lm_head", 8, 0}, {"model.norm", 1, 0},         {"1.mlp.down_proj", 8, 4},
                                 {"k_proj", 0, 0},  {"0.self_attn.o_proj", 1, 0}, {"_proj.weight", 4, 4},
                                 {NULL, 0, 0}};
static const toy_rule a4g4[] = {{"lm_head", 0, 0}, {"_proj.weight", -4, 4}, {NULL, 0, 0}};
static const toy_rule a8[] = {{"lm_head", 0, 0}, {"k_proj", 8, 0}, {"_proj.weight", -8, 0}, {NULL, 0, 0}};
static const toy_rule kept[] = {{"lm_head", 0, 0}, {"k_proj", 4, 0}, {"_proj.weight", 36, 4}, {NULL, 0, 0}};
static const toy_rule w8a8[] = {{"lm_head", 0, 0}, {"_proj.weight", 24, 0}, {NULL, 0, 0}};
static const toy_rule part8[] = {
    {"lm_head", 0, 0}, {"down_proj", 24, 0}, {"o_proj", 8, 0}, {"_proj.weight", -4, 4}, {NULL, 0, 0}};
static const toy_rule turned[] = {
    {"lm_head", 1, 0}, {"embed_tokens", 1, 0}, {"norm", 1, 0}, {"_proj.weight", 4, 0}, {NULL, 0, 0}};
static const toy_rule untie[] = {{"lm_head", 8, 0}, {"_proj.weight", 4, 0}, {NULL, 0, 0}};

static char src_dir[512];

#define TOY_SHARD ((size_t)5000000000) /* one file */

static const _Alignas(8) char toy_no_options[BQ_FORMAT_OPTIONS];
static const void *toy_options = toy_no_options; /* of the format, for export_as; zeros: none is set */

/* One export by `parts` processes' worth of calls, each with a job of its own; out_dir is made once. */
static inline int export_as(const char *format, const bq_weights *w, const char *out, bq_qsource q,
                            size_t limit, int parts) {
    bq_export_job *job[8] = {NULL};
    int rc = BQ_OK;
    assert_true(parts <= 8);
    for (int i = 0; i < parts && !rc; i++)
        rc = bq_export_open(&job[i], w, out, q, bq_format_at(bq_format_find(format)), toy_options, limit);
    if (!rc) rc = bq_export_claim(job[parts - 1]);
    if (!rc) {
        for (int i = parts; i-- > 0;) bq_export_write(job[i], i, parts);
        rc = bq_export_finish(job[0]);
    }
    for (int i = 0; i < parts; i++) bq_export_close(job[i]);
    return rc;
}

static inline int export_parts(const bq_weights *w, const char *out, bq_qsource q, bool ct, size_t limit,
                               int parts) {
    return export_as(ct ? "compressed-tensors" : "safetensors", w, out, q, limit, parts);
}

/* One export of src_dir by the rules; `limit` as bytes a shard, 0 for one shard of products made by the
 * exporter. */
static inline int export_to(const char *out, const toy_rule *rule, bool ct, size_t limit, int *gets) {
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, src_dir), BQ_OK);
    toy t = {.src = w, .rule = rule, .with_dense = limit != 0};
    int rc = export_parts(w, out, (bq_qsource){.ctx = &t, .get = toy_get, .dense = toy_dense}, ct,
                          limit ? limit : TOY_SHARD, 1);
    if (gets) *gets = t.gets;
    toy_free(&t);
    bq_weights_close(w);
    return rc;
}

/* An export of src_dir in which one tensor has become q, which the format is to refuse. */
static inline bool wrong_get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    (void)want_data;
    if (!strstr(name, "layers.1.mlp.down_proj")) return false;
    *q = *(bq_qtensor *)ctx;
    return true;
}

#define W(element, group, symmetric) .scheme = {element, group, symmetric, BQ_F32, BQ_GRID_AIMET, 1, 0}

static inline int export_wrong(const char *format, bq_qtensor q) {
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, src_dir), BQ_OK);
    int rc =
        export_as(format, w, temp_path("wrong"), (bq_qsource){.ctx = &q, .get = wrong_get}, TOY_SHARD, 1);
    bq_weights_close(w);
    return rc;
}

static inline void make_source(const char *golden, const char *dtype) {
    snprintf(src_dir, sizeof src_dir, "%s", temp_path("src"));
    toy_model(src_dir, golden, dtype);
    text_in(src_dir, "tokenizer.json", "{\"t\": 1}");
    text_in(src_dir, "tokenizer_config.json", "{}");
    text_in(src_dir, "generation_config.json", "{\"eos_token_id\": [1, 2]}");
    text_in(src_dir, "chat_template.jinja", "x");
    text_in(src_dir, "merges.txt", "a b");
    text_in(src_dir, "vocab.json", "");
    text_in(src_dir, "tokenizer.model", "\1\2");
    text_in(src_dir, "pytorch_model.bin", "no");
    text_in(src_dir, "README.md", "no");
}

static inline const char *in(const char *dir, const char *name) {
    static char path[4][600];
    static int next;
    snprintf(path[++next % 4], 600, "%s/%s", dir, name);
    return path[next % 4];
}

static inline json_t *config_of(const char *dir) {
    json_t *config;
    assert_int_equal(bq_json_read(in(dir, "config.json"), 1 << 20, &config), BQ_OK);
    return config;
}

static inline void same_json(const json_t *got, const char *want) {
    json_t *v = json_loads(want, JSON_DECODE_ANY, NULL);
    char *text = json_dumps(got, JSON_COMPACT | JSON_ENCODE_ANY);
    assert_non_null(v);
    if (!json_equal(got, v)) fail_msg("got %s, wanted %s", text, want);
    free(text);
    json_decref(v);
}

#endif
