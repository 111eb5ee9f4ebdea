/* SPDX-License-Identifier: Apache-2.0 */
/* The type of each tensor of a GGUF file, and the keys that choose it. */
#include "io/out/gguf.h"

#include <string.h>

static const bq_choice types[] = {{"source", BQ_GGUF_SOURCE},
                                  {"f32", 0},
                                  {"f16", 1},
                                  {"bf16", 30},
                                  {"q8_0", 8},
                                  {"q6_K", 14},
                                  {"q5_1", 7},
                                  {"q5_0", 6},
                                  {"q4_1", 3},
                                  {"q4_0", 2},
                                  {0}};

#define TYPE(name, field)                                                                                    \
    name, BQ_KEY_CHOICE, BQ_AT(bq_gguf_options, field), .value = "source", .choice = types

const bq_key bq_gguf_out_keys[] = {
    {TYPE("outtype", dense),
     .help =
         "Type of matrices that are not quantized. They are quantized by the type's own rule, and the log "
         "says what it costs. `source`: F32, F16 and BF16 as they are, and F32 where passes or "
         "transforms have changed them. Vectors and routers are always F32."},
    {TYPE("token_embedding_type", embedding),
     .help =
         "The same of the embedding alone. `source`: as `outtype` says. Rows that are no multiples of 256 "
         "become `q8_0` in the place of `q6_K`, and rows that are no multiples of 32 become `f16`."},
    {TYPE("output_tensor_type", output), .help = "The same of the output layer, unless it is the embedding."},
    {"imatrix", BQ_KEY_BOOL, BQ_AT(bq_gguf_options, imatrix), .value = "false",
     .help =
         "Write imatrix.gguf beside the model: of each linear the sums of the squares of its inputs on the "
         "calibration samples, as `llama-quantize --imatrix` reads them."},
    {0}};

/* What the keys say of a matrix; by: the key. */
static const bq_gguf_type *asked_of(const bq_export_job *job, const char *name, bool quantized,
                                    const char **by) {
    const bq_gguf_options *o = job->options;
    bool embedding = strcmp(name, "token_embd.weight") == 0, output = strcmp(name, "output.weight") == 0;
    int own = embedding ? o->embedding : output ? o->output : BQ_GGUF_SOURCE;
    *by = embedding ? "token_embedding_type" : "output_tensor_type";
    if (own == BQ_GGUF_SOURCE && !quantized) own = o->dense;
    return own == BQ_GGUF_SOURCE ? NULL : bq_gguf_type_of((uint32_t)own);
}

/* As llama.cpp falls back. */
static const bq_gguf_type *fitting(const bq_gguf_type *type, int64_t cols) {
    if (cols % type->elements) type = bq_gguf_type_named("Q8_0");
    return cols % type->elements ? bq_gguf_type_named("F16") : type;
}

const bq_gguf_type *bq_gguf_type_of_item(const bq_export_job *job, const bq_export_item *item,
                                         const char *name, const bq_gguf_type **asked) {
    const char *by = NULL, *why, *source = item->t->dtype;
    bool matrix = item->t->dims == 2 && !strstr(name, ".ffn_gate_inp.");
    const bq_gguf_type *key = matrix ? asked_of(job, name, item->quantized, &by) : NULL, *type;
    bq_type plain;
    if (asked) *asked = key;
    if (item->quantized) {
        type = bq_gguf_type_for(&item->q, &why);
        if (!type) bq_export_refuse(item, " cannot be in gguf: it has %s", why);
        if (type && key) bq_export_refuse(item, " is quantized by the recipe: leave out %s", by);
        return key ? NULL : type;
    }
    if (!bq_dtype_float(source, &plain) && !item->replaced)
        return bq_export_refuse(item, " is of type %s, which gguf is not written with", source), NULL;
    if (key) return fitting(key, item->t->shape[1]);
    return bq_gguf_type_named(item->replaced || !matrix ? "F32" : source);
}
