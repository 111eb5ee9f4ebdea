/* GPTQ v1.  A quantized linear (rows, cols) with G groups becomes
 *
 *   qweight  I32 (cols * bits / 32, rows)  codes, packed along cols
 *   qzeros   I32 (G, rows * bits / 32)     zero points less one, as v1 stores them, packed along rows
 *   scales   F16 (G, rows)
 *   g_idx    I32 (cols)                    column c belongs to group c / group
 *
 * with 2, 3, 4 or 8 bits and one scale a row or a group.  Only symmetric schemes: GPTQModel refuses zero
 * points in v1 files of other writers.  The stored code is the signed one plus 2^(bits - 1), so that is the
 * zero point of all.  Scales must be F16 values already: to round them here would change the weights. */
#include "base/die.h"
#include "base/num.h"
#include "io/out/format.h"
#include "io/out/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT  ".weight"
#define AT_ONCE 16 /* words of a row that are packed at a time, so that whole cache lines of codes are read */

enum { ZEROS = BQ_EXPORT_BARE, AS_IS, CODES, SCALES, GROUPS };

/* BQ_OK, or BQ_DATA after one message if the format cannot hold the item. */
static int check(const bq_export_item *item) {
    const bq_qtensor *q = &item->q;
    const bq_scheme s = q->scheme;
    int64_t rows = q->code.rows, cols = q->code.cols;
    int bits = bq_code_bits(s), fill = bits == 3 ? 32 : 32 / bits; /* the fewest codes of whole words */
    int rc = bq_export_weights_only(item, "gptq");
    if (rc) return rc;
    if (s.element != BQ_INT2 && s.element != BQ_INT3 && s.element != BQ_INT4 && s.element != BQ_INT8)
        return bq_export_refuse(item, " has %d bits, gptq has 2, 3, 4 and 8: write safetensors", bits);
    if (!s.symmetric)
        return bq_export_refuse(item, " has zero points, and gptq is written for symmetric codes only: write "
                                      "compressed-tensors, or set bits.decoder.symmetric=true");
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
    int rc = check(it), bits = bq_code_bits(q->scheme);
    if (rc) return rc;
    bq_export_add(job, item, CODES, cut, ".qweight", "I32", 2, (int64_t[]){bq_pack_words(cols, bits), rows});
    bq_export_add(job, item, ZEROS, cut, ".qzeros", "I32", 2, (int64_t[]){groups, bq_pack_words(rows, bits)});
    bq_export_add(job, item, SCALES, cut, ".scales", "F16", 2, (int64_t[]){groups, rows});
    bq_export_add(job, item, GROUPS, cut, ".g_idx", "I32", 1, (int64_t[]){cols});
    return BQ_OK;
}

/* Word r of a row.  The row is one stream of bits: code c is in bits c * bits up to (c + 1) * bits.  With 3
 * bits a code may begin in the word before. */
static uint32_t word_of(const int8_t *code, int bits, int64_t r) {
    int offset = 1 << (bits - 1);
    uint32_t word = 0;
    for (int64_t c = 32 * r / bits; c * bits < 32 * (r + 1); c++) {
        int field = code[c] + offset, at = (int)(c * bits - 32 * r);
        BQ_CHECK(field >= 0 && field < 2 * offset, "code %d does not fit %d bits", code[c], bits);
        word |= at < 0 ? (uint32_t)field >> -at : (uint32_t)field << at;
    }
    return word;
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
                word[r * rows + n] = word_of(bq_mat_at(q->code, n, 0), bits, first + r);
        bq_writer_put(w, word, (size_t)(m * rows) * 4);
    }
}

/* All zero points are 2^(bits - 1).  Less one, that is the stored form of code -1. */
static void put_zeros(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t words = bq_pack_words(q->code.rows, bits);
    uint32_t *row = bq_export_room(job, words, 4);
    int8_t less_one[32];
    memset(less_one, -1, sizeof less_one);
    for (int64_t i = 0; i < words; i++) row[i] = word_of(less_one, bits, i % bits);
    for (int64_t g = 0; g < q->scale.cols; g++) bq_writer_put(w, row, (size_t)words * 4);
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

/* An entry for one linear, by its name: it has another scheme, or is not quantized. */
static void add_exception(json_t *dynamic, const bq_export_item *item) {
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
    BQ_CHECK(json_object_set_new(dynamic, key, value) == 0, "no memory for a configuration");
    free(key);
}

/* true_sequential, static_groups and damp_percent say how AutoGPTQ makes codes.  Other writers have them,
 * too; readers do not use them. */
static void edit(const bq_export_job *job, json_t *config) {
    const bq_qtensor *most = common(job);
    json_t *dynamic = json_object();
    bool head = false;
    for (int i = 0; i < job->items; i++) {
        const bq_export_item *item = &job->item[i];
        bool is_head = strcmp(item->name, "lm_head.weight") == 0;
        head = head || (is_head && item->quantized);
        if (item->quantized ? !bq_export_same(&item->q, most) : bq_export_is_linear(item) && !is_head)
            add_exception(dynamic, item);
    }
    json_t *q =
        json_pack("{s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:f, s:{s:[s]}}", "bits",
                  bq_code_bits(most->scheme), "group_size", (json_int_t)most->scheme.group, "desc_act", false,
                  "sym", true, "lm_head", head, "quant_method", "gptq", "method", "gptq", "checkpoint_format",
                  "gptq", "format", "gptq", "pack_dtype", "int32", "true_sequential", true, "static_groups",
                  false, "damp_percent", 0.01, "meta", "quantizer", "blockq:0.1");
    BQ_CHECK(q, "no memory for a configuration");
    if (json_object_size(dynamic))
        json_object_set_new(q, "dynamic", dynamic);
    else
        json_decref(dynamic);
    BQ_CHECK(json_object_set_new(config, "quantization_config", q) == 0, "no memory for a configuration");
}

const bq_format bq_format_gptq = {
    .name = "gptq",
    .help = "GPTQ v1, symmetric codes with F16 scales, as GPTQModel, vLLM and SGLang read them.",
    .loads = BQ_LOADS_VLLM BQ_LOADS_TRANSFORMERS(" with GPTQModel"),
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .quantized = true,
};
