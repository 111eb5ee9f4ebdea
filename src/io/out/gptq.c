/* SPDX-License-Identifier: Apache-2.0 */
/* GPTQ, version 1 or 2.  A quantized linear (rows, cols) with G groups becomes
 *
 *   qweight  I32 (cols * bits / 32, rows)  codes, packed along cols
 *   qzeros   I32 (G, rows * bits / 32)     zero points, packed along rows; version 1: less one
 *   scales   F16 (G, rows)
 *   g_idx    I32 (cols)                    column c belongs to group c / group
 *
 * with 2, 3, 4 or 8 bits and one scale a row or a group.  Version 1 only has symmetric schemes: GPTQModel
 * refuses zero points in such files of other writers.  The stored code is the signed one plus 2^(bits - 1),
 * and so is the stored zero point, which is 2^(bits - 1) in symmetric schemes.  Scales must be F16 values
 * already: to round them here would change the weights. */
#include "base/die.h"
#include "base/num.h"
#include "io/out/format.h"
#include "io/out/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT  ".weight"
#define AT_ONCE 16 /* words of a row that are packed at a time, so that whole cache lines of codes are read */

enum { FILL = BQ_EXPORT_BARE, AS_IS, CODES, ZEROS, SCALES, GROUPS };

typedef struct {
    int version;
} options;

static const bq_key keys[] = {
    {"version", BQ_KEY_INT, BQ_AT(options, version), .value = "1", .min = 1, .max = 2,
     .help = "1: every reader of GPTQ knows it. A file has each zero point less one. Only symmetric schemes "
             "are written. 2 (`gptq_v2`): GPTQModel, vLLM and llama.cpp's converter know it. A file has zero "
             "points as they are. Schemes with zero points are written, too."},
    {0}};

static bool second(const bq_export_job *job) { return ((const options *)job->options)->version == 2; }

/* BQ_OK, or BQ_DATA after one message if the format cannot hold the item. */
static int check(const bq_export_job *job, const bq_export_item *item) {
    const bq_qtensor *q = &item->q;
    const bq_scheme s = q->scheme;
    int64_t rows = q->code.rows, cols = q->code.cols;
    int bits = bq_code_bits(s), fill = bits == 3 ? 32 : 32 / bits; /* the fewest codes of whole words */
    int rc = bq_export_weights_only(item, "gptq");
    if (rc) return rc;
    if (s.element != BQ_INT2 && s.element != BQ_INT3 && s.element != BQ_INT4 && s.element != BQ_INT8)
        return bq_export_refuse(item, " is of %s, gptq has integers of 2, 3, 4 and 8 bits: write safetensors",
                                bq_element_name(s.element));
    if (!s.symmetric && !second(job))
        return bq_export_refuse(item,
                                " has zero points, and gptq of version 1 is written for symmetric codes "
                                "only: set the output's version=2, or bits.decoder.symmetric=true");
    if ((rc = bq_export_f16_scales(item, "gptq"))) return rc;
    if (rows % fill || cols % fill)
        return bq_export_refuse(item,
                                " is (%ld, %ld): gptq packs %d bits in multiples of %d along both, write "
                                "safetensors or compressed-tensors",
                                (long)rows, (long)cols, bits, fill);
    if (s.group > 0 && cols % s.group)
        return bq_export_refuse(item, ": groups of %ld do not divide its %ld columns: write safetensors",
                                (long)s.group, (long)cols);
    return BQ_OK;
}

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    if (!it->quantized) {
        bq_export_add(job, item, AS_IS, 0, "", it->t->dtype, it->t->dims, it->t->shape);
        return BQ_OK;
    }
    const bq_qtensor *q = &it->q;
    int64_t rows = q->code.rows, cols = q->code.cols, groups = q->scale.cols;
    size_t cut = strlen(WEIGHT);
    int rc = check(job, it), bits = bq_code_bits(q->scheme);
    if (rc) return rc;
    bq_export_add(job, item, CODES, cut, ".qweight", "I32", 2, (int64_t[]){bq_pack_words(cols, bits), rows});
    bq_export_add(job, item, q->zero.rows ? ZEROS : FILL, cut, ".qzeros", "I32", 2,
                  (int64_t[]){groups, bq_pack_words(rows, bits)});
    bq_export_add(job, item, SCALES, cut, ".scales", "F16", 2, (int64_t[]){groups, rows});
    bq_export_add(job, item, GROUPS, cut, ".g_idx", "I32", 1, (int64_t[]){cols});
    return BQ_OK;
}

static void put_codes(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t rows = q->code.rows, words = bq_pack_words(q->code.cols, bits);
    int64_t room = (int64_t)(BQ_EXPORT_BUFFER / 4) / rows, at_once = room < AT_ONCE ? room : AT_ONCE;
    BQ_CHECK(q->code.data && q->scale.data, "export: a result without data");
    uint32_t *word = bq_export_room(job, rows, 4);
    for (int64_t first = 0, m; first < words; first += m) {
        m = words - first < at_once ? words - first : at_once;
        for (int64_t n = 0; n < rows; n++)
            for (int64_t r = 0; r < m; r++)
                word[r * rows + n] = bq_pack_word(bq_mat_at(q->code, n, 0), q->code.cols, bits, first + r);
        bq_writer_put(w, word, (size_t)(m * rows) * 4);
    }
}

/* The zero points of symmetric schemes: all are that of the code 0, or less one that of -1. */
static void put_fill(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t words = bq_pack_words(q->code.rows, bits);
    uint32_t *row = bq_export_room(job, words, 4);
    int8_t code[32];
    memset(code, second(job) ? 0 : -1, sizeof code);
    for (int64_t i = 0; i < words; i++) row[i] = bq_pack_word(code, 32, bits, i % bits);
    for (int64_t g = 0; g < q->scale.cols; g++) bq_writer_put(w, row, (size_t)words * 4);
}

static void put_zeros(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t words = bq_pack_words(q->zero.rows, bits);
    BQ_CHECK(q->zero.data, "export: a result without zero points");
    bq_mat row = bq_mat_host(bq_export_room(job, words, 4), words, 1, BQ_I32);
    for (int64_t g = 0; g < q->zero.cols; g++) {
        bq_pack_zeros(bq_mat_cols(q->zero, g, 1), bits, row);
        bq_writer_put(w, row.data, (size_t)words * 4);
    }
}

static void put_groups(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int64_t cols = q->code.cols, group = cols / q->scale.cols;
    int32_t *row = bq_export_room(job, cols, 4);
    for (int64_t c = 0; c < cols; c++) row[c] = (int32_t)(c / group);
    bq_writer_put(w, row, (size_t)cols * 4);
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    switch (out->part) {
    case AS_IS: bq_export_put_raw(job, job->item[out->item].t, w); break;
    case CODES: put_codes(job, q, w); break;
    case SCALES: bq_export_put_f16(job, q->scale, w); break;
    case FILL: put_fill(job, q, w); break;
    case ZEROS: put_zeros(job, q, w); break;
    case GROUPS: put_groups(job, q, w); break;
    }
}

/* The scheme that most linears have; the first if several do. */
static const bq_qtensor *common(const bq_export_job *job) {
    const bq_qtensor *best = NULL;
    int most = 0;
    for (int i = 0; i < job->items; i++) {
        int count = 0;
        for (int k = i; k < job->items && job->item[i].quantized; k++)
            count += job->item[k].quantized && bq_export_same(&job->item[i].q, &job->item[k].q);
        if (count > most) most = count, best = &job->item[i].q;
    }
    return best;
}

/* An entry for one linear, by its name: it has another scheme than most, or is not quantized. */
static void add_exception(json_t *dynamic, const bq_export_item *item, const bq_qtensor *most) {
    char *key = NULL;
    size_t bytes, n = strlen(item->name) - strlen(WEIGHT);
    FILE *to = open_memstream(&key, &bytes);
    BQ_CHECK(to, "no memory for a name");
    fputs(item->quantized ? "+:^" : "-:^", to);
    bq_export_escape(to, item->name, n);
    fputc('$', to);
    BQ_CHECK(fclose(to) == 0, "no memory for a name");
    json_t *value = item->quantized ? json_pack("{s:i, s:I}", "bits", bq_code_bits(item->q.scheme),
                                                "group_size", (json_int_t)item->q.scheme.group)
                                    : json_object();
    bool sym = item->q.scheme.symmetric, usual = most->scheme.symmetric;
    if (item->quantized && sym != usual) json_object_set_new(value, "sym", json_boolean(sym));
    BQ_CHECK(json_object_set_new(dynamic, key, value) == 0, "no memory for a configuration");
    free(key);
}

/* true_sequential, static_groups and damp_percent say how AutoGPTQ makes codes.  Other writers have them,
 * too; readers do not use them. */
static void edit(const bq_export_job *job, json_t *config) {
    const bq_qtensor *most = common(job);
    const char *format = second(job) ? "gptq_v2" : "gptq";
    json_t *dynamic = json_object();
    bool head = false;
    for (int i = 0; i < job->items; i++) {
        const bq_export_item *item = &job->item[i];
        bool is_head = strcmp(item->name, "lm_head.weight") == 0;
        head = head || (is_head && item->quantized);
        if (item->quantized ? !bq_export_same(&item->q, most) : bq_export_is_linear(item) && !is_head)
            add_exception(dynamic, item, most);
    }
    json_t *q =
        json_pack("{s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:f, s:{s:[s]}}", "bits",
                  bq_code_bits(most->scheme), "group_size", (json_int_t)most->scheme.group, "desc_act", false,
                  "sym", most->scheme.symmetric, "lm_head", head, "quant_method", "gptq", "method", "gptq",
                  "checkpoint_format", format, "format", format, "pack_dtype", "int32", "true_sequential",
                  true, "static_groups", false, "damp_percent", 0.01, "meta", "quantizer", "blockq:0.1");
    BQ_CHECK(q, "no memory for a configuration");
    if (json_object_size(dynamic))
        json_object_set_new(q, "dynamic", dynamic);
    else
        json_decref(dynamic);
    BQ_CHECK(json_object_set_new(config, "quantization_config", q) == 0, "no memory for a configuration");
}

const bq_format bq_format_gptq = {
    .name = "gptq",
    .help = "GPTQ, codes with F16 scales, as GPTQModel, vLLM and SGLang read them.",
    .loads = BQ_LOADS_VLLM BQ_LOADS_TRANSFORMERS(" with GPTQModel"),
    .scope = {"outputs.N, format: gptq", "GPTQ has two versions, which differ in how zero points are stored.",
              keys, BQ_FORMAT_OPTIONS_OF(options)},
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .quantized = true,
};
