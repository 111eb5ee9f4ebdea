/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF, version 3.  A result whose grid a type of GGUF has keeps its codes; others are quantized again by the
 * rule of a type (gguf_pack.c).
 * Tensors that are not quantized have the types that gguf_types.c says.  Names, the order of rows of q and k,
 * and the 1 that is added to Gemma's norms are those of the converter of llama.cpp (io/in/gguf_names.h), and
 * the experts of a block are one tensor.  Several shards are the parts of one model, as readers know them. */
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
} archs[] = {{"llama", "llama", false},     {"mistral", "llama", false},     {"mixtral", "llama", false},
             {"qwen2", "qwen2", false},     {"qwen3", "qwen3", false},       {"qwen3_moe", "qwen3moe", false},
             {"phi3", "phi3", true},        {"gemma3_text", "gemma3", true}, {"gpt_oss", "gpt-oss", true},
             {"glm4_moe", "glm4moe", false}};

/* What readers of gpt-oss take for granted and this model has not; NULL: nothing. */
static const char *gpt_oss_lack(const bq_model *m) {
    for (int b = 0; b < m->blocks; b++)
        if (!m->window || m->full[b] != (b % 2 == 1))
            return "windows that are not those of every second block";
    if (m->rope.kind != BQ_ROPE_YARN) return "a rope other than yarn";
    return m->glu_limit != 7 ? "a swiglu_limit other than 7" : NULL;
}

/* Which blocks have experts, and how these are chosen. */
static const char *experts_lack(const bq_model *m, const char *type) {
    bool glm = strcmp(type, "glm4_moe") == 0;
    for (int b = 0; b < m->blocks; b++)
        if (m->dense[b] && (!glm || b >= m->first_experts)) return "blocks without experts beside others";
    if (glm && (m->route_groups != 1 || !m->shared_inter))
        return "groups of experts, or that no expert is shared";
    if (strcmp(type, "qwen3_moe") == 0 && !m->route_normalize) return "how it chooses experts";
    return NULL;
}

/* What the keys of the architecture cannot say; NULL: nothing. */
static const char *lack(const bq_model *m, const char *type, bool windows) {
    const bq_rope *r = &m->rope;
    bool oss = strcmp(type, "gpt_oss") == 0;
    double yarn = r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    if (m->window && !windows) return "a sliding window";
    const char *experts = m->experts ? experts_lack(m, type) : NULL;
    if (experts) return experts;
    if (!m->experts && strcmp(type, "qwen3_moe") == 0) return "that it has no experts";
    if (m->query_scalar && m->query_scalar != (double)m->head_dim) return "its query_pre_attn_scalar";
    if (r->kind == BQ_ROPE_YARN &&
        (r->attention != yarn || r->low != 1 || r->high != 32 || r->truncate == oss))
        return "its yarn, which has more than a factor";
    return oss ? gpt_oss_lack(m) : NULL;
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

/* Has a key an output layer of its own to speak of? */
static int check_output(const bq_export_job *job) {
    bool head = false;
    for (int i = 0; i < job->items; i++) head |= strcmp(job->item[i].name, "lm_head.weight") == 0;
    if (head || ((const bq_gguf_options *)job->options)->output == BQ_GGUF_SOURCE) return BQ_OK;
    return bq_refuse(BQ_DATA, "gguf: output_tensor_type: the model's output layer is its embedding: set "
                              "token_embedding_type");
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
    if (!rc) rc = check_output(job);
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
                   (long)own->again, sqrt(own->loss.error / own->loss.power));
    json_decref(own->tokenizer);
    json_decref(own->config);
    free(own);
}

/* ---- the plan ---- */

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

static int plan(bq_export_job *job, int item) {
    const bq_gguf_job *own = job->own;
    const bq_export_item *it = &job->item[item];
    const bq_tensor *t = it->t;
    bq_gguf_name name;
    if (t->dims < 1 || t->dims > 2 || !bq_gguf_name_of(own->arch, it->name, &name))
        return bq_export_refuse(it, " has no name in gguf's %s: write another format",
                                bq_gguf_arch_at(own->arch));
    const bq_gguf_type *type = bq_gguf_type_of_item(job, it, name.name, NULL);
    size_t cut = strlen(it->name);
    if (!type) return BQ_DATA;
    bool values = !it->quantized && (it->replaced || strcmp(type->name, t->dtype) != 0);
    bool paired = name.change == BQ_GGUF_PAIRED && values && t->dims == 2;
    if (t->shape[t->dims - 1] * (paired ? own->model.head_dim : 1) > BQ_GGUF_ROOM)
        return bq_export_refuse(it, " has too long rows");
    if (name.expert < 0) {
        bq_export_add(job, item, BQ_GGUF_TENSOR, cut, name.name, type->name, t->dims, t->shape);
    } else if (name.expert == 0) {
        const int64_t shape[] = {own->model.experts, t->shape[0], t->shape[t->dims - 1]};
        bq_export_add(job, item, BQ_GGUF_TENSOR, cut, name.name, type->name, t->dims + 1, shape);
    } else {
        const bq_export_item *first = bq_gguf_expert(job, name.name, 0);
        if (!first || bq_gguf_type_of_item(job, first, name.name, NULL) != type)
            return bq_export_refuse(it,
                                    " is not as that of expert 0, with which it would be one tensor in gguf");
    }
    if (strcmp(name.name, "token_embd.weight") == 0) add_rope(job, item, cut);
    return BQ_OK;
}

/* ---- the format ---- */

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

static bool wants_inputs(const void *options) { return ((const bq_gguf_options *)options)->imatrix; }

static const bq_container container = {
    .suffix = "gguf", .align = BQ_GGUF_ALIGN, .dtype = dtype, .bytes = bytes_of, .header = bq_gguf_head};

const bq_format bq_format_gguf = {
    .name = "gguf",
    .help = "codes of up to 8 bits in groups of 32 with F16 scales, as llama.cpp reads them.",
    .loads = "- llama.cpp: `llama-cli -m FILE`, or `llama-server -m FILE`\n",
    .plan = plan,
    .scope = {"outputs.N, format: gguf", "Types of tensors that are not quantized.", bq_gguf_out_keys,
              BQ_FORMAT_OPTIONS_OF(bq_gguf_options)},
    .write = bq_gguf_write,
    .edit = edit,
    .container = &container,
    .replaced = true,
    .offsets = true,
    .stacks = true,
    .wants_inputs = wants_inputs,
    .finish = bq_gguf_imatrix,
    .begin = begin,
    .end = end,
};
