/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a GGUF file: keys of the model, made of its configuration, and what each tensor is. */
#include "base/die.h"
#include "io/in/gguf_names.h"
#include "io/out/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ---- */

void bq_gguf_put_open(bq_gguf_put *p) {
    *p = (bq_gguf_put){.text = NULL};
    p->to = open_memstream(&p->text, &p->bytes);
    BQ_CHECK(p->to, "no memory for a header");
}

char *bq_gguf_put_close(bq_gguf_put *p, const bq_tensor *at, int count, size_t *bytes) {
    bq_gguf_put all;
    BQ_CHECK(fclose(p->to) == 0, "no memory for a header");
    bq_gguf_put_open(&all);
    fputs("GGUF", all.to);
    bq_gguf_put_number(&all, 3, 4);
    bq_gguf_put_number(&all, (uint64_t)count, 8);
    bq_gguf_put_number(&all, p->keys, 8);
    fwrite(p->text, 1, p->bytes, all.to);
    for (const bq_tensor *t = at; t < at + count; t++) {
        bq_gguf_put_text(&all, t->name);
        bq_gguf_put_number(&all, (uint64_t)t->dims, 4);
        for (int d = t->dims; d-- > 0;) bq_gguf_put_number(&all, (uint64_t)t->shape[d], 8);
        bq_gguf_put_number(&all, bq_gguf_type_named(t->dtype)->number, 4);
        bq_gguf_put_number(&all, t->offset, 8);
    }
    while (ftell(all.to) % BQ_GGUF_ALIGN) fputc(0, all.to);
    BQ_CHECK(fclose(all.to) == 0, "no memory for a header");
    free(p->text);
    *bytes = all.bytes;
    return all.text;
}

void bq_gguf_put_number(bq_gguf_put *p, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) fputc((int)(value >> 8 * i & 255), p->to);
}

void bq_gguf_put_text(bq_gguf_put *p, const char *text) {
    bq_gguf_put_number(p, strlen(text), 8);
    fputs(text, p->to);
}

void bq_gguf_put_key(bq_gguf_put *p, const char *key, uint32_t type) {
    bq_gguf_put_text(p, key);
    bq_gguf_put_number(p, type, 4);
    p->keys++;
}

void bq_gguf_put_list(bq_gguf_put *p, const char *key, uint32_t type, int64_t count) {
    bq_gguf_put_key(p, key, BQ_GGUF_LIST);
    bq_gguf_put_number(p, type, 4);
    bq_gguf_put_number(p, (uint64_t)count, 8);
}

void bq_gguf_put_int(bq_gguf_put *p, const char *key, int64_t value) {
    BQ_CHECK(value >= 0 && value <= UINT32_MAX, "%s is %lld, which is no u32", key, (long long)value);
    bq_gguf_put_key(p, key, BQ_GGUF_U32);
    bq_gguf_put_number(p, (uint64_t)value, 4);
}

void bq_gguf_put_real(bq_gguf_put *p, const char *key, double value) {
    float x = (float)value;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bq_gguf_put_key(p, key, BQ_GGUF_F32);
    bq_gguf_put_number(p, bits, 4);
}

void bq_gguf_put_word(bq_gguf_put *p, const char *key, const char *text) {
    bq_gguf_put_key(p, key, BQ_GGUF_TEXT);
    bq_gguf_put_text(p, text);
}

void bq_gguf_put_bool(bq_gguf_put *p, const char *key, bool value) {
    bq_gguf_put_key(p, key, BQ_GGUF_BOOL);
    bq_gguf_put_number(p, value, 1);
}

/* ---- the model ---- */

/* "<architecture>.<name>" */
static const char *of(const bq_gguf_job *own, const char *name, char to[128]) {
    snprintf(to, 128, "%s.%s", bq_gguf_arch_at(own->arch), name);
    return to;
}

static void put_rope(bq_gguf_put *p, const bq_gguf_job *own) {
    const bq_model *m = &own->model;
    const bq_rope *r = m->full_rope.dim ? &m->full_rope : &m->rope;
    char key[128];
    bq_gguf_put_real(p, of(own, "rope.freq_base", key), r->theta);
    bq_gguf_put_int(p, of(own, "rope.dimension_count", key), r->dim);
    if (r->kind == BQ_ROPE_LINEAR || r->kind == BQ_ROPE_YARN) {
        bq_gguf_put_word(p, of(own, "rope.scaling.type", key), r->kind == BQ_ROPE_YARN ? "yarn" : "linear");
        bq_gguf_put_real(p, of(own, "rope.scaling.factor", key), r->factor);
    }
    if (r->kind == BQ_ROPE_YARN || r->kind == BQ_ROPE_LONG)
        bq_gguf_put_int(p, of(own, "rope.scaling.original_context_length", key), (int64_t)r->original);
    if (r->kind == BQ_ROPE_LONG) bq_gguf_put_real(p, of(own, "rope.scaling.attn_factor", key), r->attention);
    if (m->full_rope.dim) bq_gguf_put_real(p, of(own, "rope.freq_base_swa", key), m->rope.theta);
}

/* Every `period`-th block has no window; readers take 6 for it. */
static void put_window(bq_gguf_put *p, const bq_gguf_job *own) {
    const bq_model *m = &own->model;
    char key[128];
    int period = 1;
    while (period < m->blocks && !m->full[period - 1]) period++;
    const char *arch = bq_gguf_arch_at(own->arch);
    bool phi3 = strcmp(arch, "phi3") == 0, gemma = strcmp(arch, "gemma3") == 0;
    if (m->window || phi3) bq_gguf_put_int(p, of(own, "attention.sliding_window", key), m->window);
    if (m->window && gemma && m->full[period - 1] && period != 6)
        bq_gguf_put_int(p, of(own, "attention.sliding_window_pattern", key), period);
}

static void put_experts(bq_gguf_put *p, const bq_gguf_job *own) {
    const bq_model *m = &own->model;
    char key[128];
    bq_gguf_put_int(p, of(own, "expert_count", key), m->experts);
    bq_gguf_put_int(p, of(own, "expert_used_count", key), m->chosen);
    if (strcmp(bq_gguf_arch_at(own->arch), "llama") != 0)
        bq_gguf_put_int(p, of(own, "expert_feed_forward_length", key), m->expert_inter);
    if (strcmp(bq_gguf_arch_at(own->arch), "glm4moe") != 0) return;
    bq_gguf_put_int(p, of(own, "expert_shared_count", key), m->shared_experts);
    bq_gguf_put_int(p, of(own, "leading_dense_block_count", key), m->first_experts);
    bq_gguf_put_int(p, of(own, "expert_gating_func", key), 2); /* sigmoid */
    bq_gguf_put_real(p, of(own, "expert_weights_scale", key), m->route_factor);
    bq_gguf_put_bool(p, of(own, "expert_weights_norm", key), m->route_normalize);
}

static void put_model(bq_gguf_put *p, const bq_gguf_job *own) {
    const bq_model *m = &own->model;
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"block_count", m->blocks},
                 {"context_length", m->max_position},
                 {"embedding_length", m->hidden},
                 {"feed_forward_length", m->inter ? m->inter : m->expert_inter},
                 {"vocab_size", m->vocab},
                 {"attention.head_count", m->heads},
                 {"attention.head_count_kv", m->kv_heads},
                 {"attention.key_length", m->head_dim},
                 {"attention.value_length", m->head_dim}};
    char key[128];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        bq_gguf_put_int(p, of(own, sizes[i].name, key), sizes[i].value);
    bq_gguf_put_real(p, of(own, "attention.layer_norm_rms_epsilon", key), m->eps);
    put_rope(p, own);
    put_window(p, own);
    if (m->experts) put_experts(p, own);
}

/* ---- the file ---- */

/* What most quantized tensors are, for people; where none is, what most matrices are. */
static int64_t file_type(const bq_export_job *job) {
    static const struct {
        const char *type;
        int64_t number;
    } types[] = {{"Q4_0", 2},  {"Q4_1", 3},   {"Q8_0", 7},  {"Q5_0", 8}, {"Q5_1", 9},
                 {"Q6_K", 18}, {"MXFP4", 38}, {"BF16", 32}, {"F16", 1}};
    int64_t best = 0;
    int most = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        int count = 0;
        for (int k = 0; k < job->outs; k++) count += strcmp(job->out[k].t.dtype, types[i].type) == 0;
        if (count <= most || (strchr("BF", types[i].type[0]) && best)) continue;
        most = count, best = types[i].number;
    }
    return best;
}

static void put_keys(bq_gguf_put *p, const bq_export_file *file) {
    const bq_export_job *job = file->job;
    const bq_gguf_job *own = job->own;
    bq_gguf_put_word(p, "general.quantized_by",
                     BQ_WRITER_PRODUCER); /* the first: export_dir.c looks for it */
    if (job->shards > 1) {
        bq_gguf_put_int(p, "split.no", file->shard);
        bq_gguf_put_int(p, "split.count", job->shards);
        bq_gguf_put_int(p, "split.tensors.count", job->outs);
    }
    if (file->shard) return;
    bq_gguf_put_word(p, "general.architecture", bq_gguf_arch_at(own->arch));
    bq_gguf_put_word(p, "general.type", "model");
    bq_gguf_put_int(p, "general.quantization_version", 2);
    bq_gguf_put_int(p, "general.file_type", file_type(job));
    put_model(p, own);
    bq_gguf_put_tokens(p, own, job->config);
}

char *bq_gguf_head(const void *ctx, const bq_tensor *at, int count, size_t *bytes) {
    bq_gguf_put p;
    bq_gguf_put_open(&p);
    put_keys(&p, ctx);
    return bq_gguf_put_close(&p, at, count, bytes);
}
