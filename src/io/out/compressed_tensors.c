/* SPDX-License-Identifier: Apache-2.0 */
/* compressed-tensors, as version 0.20.1 of the package writes and reads it.
 *
 * Where inputs are rounded, too: format int-quantized; weight I8 (the codes), weight_scale F32.  Inputs of at
 * most 8 bits, and only symmetric weights.  Where the inputs' scale is measured: input_scale F32,
 * input_zero_point I8; of NVFP4 input_global_scale F32.
 *
 * Else: format pack-quantized; weight_packed I32 (the codes as they are given, never computed again),
 * weight_scale F32, weight_shape I64, and in asymmetric schemes weight_zero_point I32.
 *
 * Integers have 2 to 8 bits, and one scale a row or a group that divides the columns.  Floats are the forms
 * of the table below.  The package reads all of this; docs/formats.md says what engines read.  Only weights
 * of linears can be quantized.  Each scheme is one of config_groups. */
#include "base/die.h"
#include "io/out/floats.h"
#include "io/out/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION     "0.20.1" /* of the package; before 0.18.0 words of 3, 5, 6 and 7 bits were others */
#define WEIGHT      ".weight"
#define SCHEMES_MAX 32 /* more than a recipe can have */

enum { SHAPE = BQ_EXPORT_BARE, AS_IS, PACKED, CODES, SCALE, ZERO, FLOATS, SMALL, OUTER };

/* Floats.  suffix, type: of the codes' tensor; small: the type of scales that are a byte, and scale_dtype
 * what the configuration calls it. */
typedef struct {
    const char *format, *suffix, *type, *small, *scale_dtype;
    int element;
    bq_type scale; /* BQ_F32 stands for BQ_BF16 and BQ_F16, too */
    int64_t group; /* 0: any; then also tiles */
} form;

static const form forms[] = {
    {"float-quantized", ".weight", "F8_E4M3", NULL, NULL, BQ_E4M3, BQ_F32, 0},
    {"nvfp4-pack-quantized", ".weight_packed", "U8", "F8_E4M3", "torch.float8_e4m3fn", BQ_E2M1, BQ_F8_E4M3,
     16},
    {"mxfp4-pack-quantized", ".weight_packed", "U8", "U8", "torch.uint8", BQ_E2M1, BQ_F8_E8M0, 32},
    {"mxfp6-pack-quantized", ".weight_packed", "U8", "U8", "torch.uint8", BQ_E2M3, BQ_F8_E8M0, 32},
    {"mxfp8-quantized", ".weight", "F8_E4M3", "U8", "torch.uint8", BQ_E4M3, BQ_F8_E8M0, 32},
};

/* NULL: it is of integers, or of floats that the package has no form for. */
static const form *form_of(bq_scheme s) {
    bq_type scale = bq_scheme_small(s) ? s.scale : BQ_F32;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (forms[i].element == s.element && forms[i].scale == scale &&
            (!forms[i].group || forms[i].group == s.group))
            return &forms[i];
    return NULL;
}

typedef struct {
    int64_t row_group;
} options;

static const bq_key keys[] = {
    {"row_group", BQ_KEY_GROUP, BQ_AT(options, row_group), .value = "-1", .max = 1 << 20,
     .help =
         "-1: one scale a row is one number in the file. Else it stands in each group of so many columns, "
         "for readers that want groups (llama.cpp's converter, which has one size of groups for all "
         "linears). The values are the same, the file is larger. Not with `bits.activations` 8."},
    {0}};

/* Columns of a group in the file; -1: one scale a row. */
static int64_t group_of(const bq_export_job *job, const bq_qtensor *q) {
    const options *o = job->options;
    if (q->scheme.group > 0 || q->inputs.element || o->row_group <= 0 || form_of(q->scheme))
        return q->scheme.group;
    return o->row_group;
}

/* How often a scale and a zero point stand in the file. */
static int64_t repeats(const bq_export_job *job, const bq_qtensor *q) {
    int64_t group = group_of(job, q);
    return group > 0 ? q->code.cols / group / q->scale.cols : 1;
}

/* Has the package a form for inputs rounded so beside weights of floats? */
static bool inputs_of_floats(const bq_qtensor *q) {
    const bq_rounding in = q->inputs;
    if (in.scale == BQ_F32)
        return in.element == BQ_E4M3 && q->scheme.element == BQ_E4M3 && !form_of(q->scheme)->small;
    return in.element == q->scheme.element && in.scale == q->scheme.scale && in.group == q->scheme.group &&
           q->fixed == (in.scale == BQ_F8_E4M3);
}

static int plan_floats(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    const bq_qtensor *q = &it->q;
    const form *f = form_of(q->scheme);
    int64_t rows = q->code.rows, bytes = bq_float_row_bytes(q->code.cols, bq_code_bits(q->scheme));
    size_t cut = strlen(WEIGHT);
    if (!f)
        return bq_export_refuse(it,
                                " is of %s in groups of %ld: compressed-tensors has e4m3 (scale f32), e2m1 "
                                "(e4m3 and group 16, or e8m0 and 32), e2m3 and e4m3 (e8m0 and 32): write "
                                "safetensors",
                                bq_element_name(q->scheme.element), (long)q->scheme.group);
    if (q->inputs.element && !inputs_of_floats(q))
        return bq_export_refuse(
            it, ": with inputs rounded, floats are written for the same element on both sides, "
                "e4m3 with scale f32, or the same group and scale; and for NVFP4 with dynamic "
                "false");
    int rc = bq_float_check(it);
    if (rc) return rc;
    bool tensor = q->scheme.rows < 0;
    bq_export_add(job, item, FLOATS, cut, f->suffix, f->type, 2, (int64_t[]){rows, bytes});
    bq_export_add(job, item, f->small ? SMALL : SCALE, cut, ".weight_scale", f->small ? f->small : "F32",
                  tensor ? 1 : 2, (int64_t[]){bq_float_scale_rows(q), q->scale.cols});
    if (q->scheme.scale == BQ_F8_E4M3)
        bq_export_add(job, item, OUTER, cut, ".weight_global_scale", "F32", 1, (int64_t[]){1});
    bq_export_plan_inputs(job, item, 1, ".input_global_scale", BQ_EXPORT_INPUT_FACTOR);
    return BQ_OK;
}

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    const bq_qtensor *q = &it->q;
    const bq_scheme s = q->scheme;
    int64_t rows = q->code.rows, cols = q->code.cols;
    int bits = bq_code_bits(s);
    size_t cut = strlen(WEIGHT);
    bq_export_plan_cache(job, item, "k_scale", "v_scale");
    if (!it->quantized) {
        bq_export_add(job, item, AS_IS, 0, "", it->t->dtype, it->t->dims, it->t->shape);
        return BQ_OK;
    }
    if (!bq_export_is_linear(it))
        return bq_export_refuse(
            it, " is not the weight of a Linear: compressed-tensors cannot hold it quantized: write "
                "safetensors or gguf, or set bits.embedding.bits=16");
    if (q->pre.rows)
        return bq_export_refuse(it,
                                ": its inputs are multiplied by factors of their own (smoothquant without "
                                "fuse): compressed-tensors has no place for these, write safetensors");
    if (!bq_element_whole(s.element)) return plan_floats(job, item);
    if (bits == 1) return bq_export_refuse(it, " has codes of 1 bit: write safetensors or gguf");
    if (q->inputs.element &&
        (!bq_rounding_whole(q->inputs) || bq_rounding_bits(q->inputs) > 8 || !s.symmetric))
        return bq_export_refuse(it, ": where inputs are rounded, too, compressed-tensors is written for "
                                    "integer inputs of at most 8 bits and symmetric weights");
    int64_t group = group_of(job, q), groups = group > 0 ? cols / group : 1;
    if (group > 0 && cols % group)
        return bq_export_refuse(it, ": groups of %ld do not divide its %ld columns", (long)group, (long)cols);
    if (q->inputs.element) {
        bq_export_plan_inputs(job, item, 1, NULL, 0);
        bq_export_add(job, item, CODES, 0, "", "I8", 2, (int64_t[]){rows, cols});
        bq_export_add(job, item, SCALE, cut, ".weight_scale", "F32", 2, (int64_t[]){rows, groups});
        return BQ_OK;
    }
    bq_export_add(job, item, PACKED, cut, ".weight_packed", "I32", 2,
                  (int64_t[]){rows, bq_pack_words(cols, bits)});
    bq_export_add(job, item, SCALE, cut, ".weight_scale", "F32", 2, (int64_t[]){rows, groups});
    if (q->zero.rows)
        bq_export_add(job, item, ZERO, cut, ".weight_zero_point", "I32", 2,
                      (int64_t[]){bq_pack_words(rows, bits), groups});
    bq_export_add(job, item, SHAPE, cut, ".weight_shape", "I64", 1, (int64_t[]){2});
    return BQ_OK;
}

static void put_packed(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t words = bq_pack_words(q->code.cols, bits), at_once = (int64_t)(BQ_EXPORT_BUFFER / 4) / words;
    BQ_CHECK(q->code.data && at_once > 0, "export: a result without data, or rows too long");
    for (int64_t first = 0, n; first < q->code.rows; first += n) {
        n = q->code.rows - first < at_once ? q->code.rows - first : at_once;
        bq_mat word = bq_mat_host(job->buffer, n, words, BQ_I32);
        bq_pack_rows(bq_mat_rows(q->code, first, n), bits, word);
        bq_export_put_rows(word, w);
    }
}

/* Rows of numbers of 4 bytes, each number so often. */
static void put_repeated(bq_mat m, int64_t times, bq_writer *w) {
    for (int64_t i = 0; i < m.rows * m.cols && times > 1; i++)
        for (int64_t k = 0; k < times; k++) bq_writer_put(w, bq_mat_at(m, i / m.cols, i % m.cols), 4);
    if (times == 1) bq_export_put_rows(m, w);
}

static void put_zeros(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t at_once = (int64_t)(BQ_EXPORT_BUFFER / 4) / q->zero.cols / bits * 32; /* rows of whole words */
    BQ_CHECK(q->zero.data && at_once > 0, "export: a result without zero points, or rows too long");
    for (int64_t first = 0, n; first < q->zero.rows; first += n) {
        n = q->zero.rows - first < at_once ? q->zero.rows - first : at_once;
        bq_mat word = bq_mat_host(job->buffer, bq_pack_words(n, bits), q->zero.cols, BQ_I32);
        bq_pack_zeros(bq_mat_rows(q->zero, first, n), bits, word);
        put_repeated(word, repeats(job, q), w);
    }
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    switch (out->part) {
    case AS_IS: bq_export_put_raw(job, job->item[out->item].t, w); break;
    case PACKED: put_packed(job, q, w); break;
    case CODES: bq_export_put_rows(q->code, w); break;
    case SCALE:
        if (form_of(q->scheme))
            bq_float_put_scales(q, w);
        else
            put_repeated(q->scale, repeats(job, q), w);
        break;
    case FLOATS: bq_float_put_codes(job, q, w); break;
    case SMALL: bq_float_put_small(job, q, w); break;
    case OUTER: bq_writer_put(w, &(float){bq_outer_over(q->scheme)}, sizeof(float)); break;
    case ZERO: put_zeros(job, q, w); break;
    case BQ_EXPORT_KEYS:
    case BQ_EXPORT_VALUES: bq_export_put_cache(job, out, w); break;
    case BQ_EXPORT_INPUT_SCALE:
    case BQ_EXPORT_INPUT_ZERO:
    case BQ_EXPORT_INPUT_FACTOR: bq_export_put_inputs(job, out, w); break;
    case SHAPE: bq_writer_put(w, (int64_t[]){q->code.rows, q->code.cols}, 16); break;
    }
}

/* The same for all blocks and experts: a regular expression in which numbers are "\d+"; the name itself if
 * it has no number.  The caller frees it. */
static char *kind_of(const bq_export_item *item) {
    const char *part = item->name, *end = part + strlen(part) - strlen(WEIGHT);
    char *kind = NULL;
    size_t bytes;
    bool numbered = strpbrk(part, "0123456789");
    FILE *to = open_memstream(&kind, &bytes);
    BQ_CHECK(to, "no memory for a target");
    if (!numbered) fwrite(part, 1, (size_t)(end - part), to), part = end;
    if (numbered) fputs("re:^", to);
    for (; part < end; part++) {
        size_t n = strcspn(part, ".");
        if (strspn(part, "0123456789") == n)
            fputs("\\d+", to);
        else
            bq_export_escape(to, part, n);
        part += n;
        fputs(part < end ? "\\." : "$", to);
    }
    BQ_CHECK(fclose(to) == 0, "no memory for a target");
    return kind;
}

/* The strategy: which numbers share a scale. */
static const char *strategy_of(bq_scheme s, int64_t group) {
    if (bq_scheme_tiled(s) && !bq_element_whole(s.element)) return s.rows < 0 ? "tensor" : "block";
    return s.scale == BQ_F8_E4M3 ? "tensor_group" : group > 0 ? "group" : "channel";
}

/* The arguments for weights: what they are rounded to. */
static json_t *weight_arguments(bq_scheme s, int64_t group) {
    const form *f = form_of(s);
    bool tiles = s.rows > 1 && !bq_element_whole(s.element);
    json_t *block = tiles ? json_pack("[I, I]", (json_int_t)s.rows, (json_int_t)group) : NULL;
    return json_pack("{s:i, s:s, s:b, s:s, s:o, s:b, s:s*, s:o*}", "num_bits", bq_code_bits(s), "type",
                     bq_element_whole(s.element) ? "int" : "float", "symmetric", s.symmetric, "strategy",
                     strategy_of(s, group), "group_size",
                     group > 0 && !tiles ? json_integer(group) : json_null(), "dynamic", false, "scale_dtype",
                     f ? f->scale_dtype : NULL, "block_structure", block);
}

/* The same for inputs.  "local": the scales of groups come from the inputs at hand, their factor does not. */
static json_t *input_arguments(const bq_qtensor *q) {
    const bq_rounding in = q->inputs;
    const bool groups = in.group > 0, two = in.scale == BQ_F8_E4M3;
    const form *f = in.scale == BQ_F32 ? NULL : form_of(q->scheme);
    return json_pack("{s:i, s:s, s:b, s:s, s:o, s:o, s:s*}", "num_bits", bq_rounding_bits(in), "type",
                     bq_rounding_whole(in) ? "int" : "float", "symmetric", in.even, "strategy",
                     in.whole ? "tensor"
                     : two    ? "tensor_group"
                     : groups ? "group"
                              : "token",
                     "group_size", groups ? json_integer(in.group) : json_null(), "dynamic",
                     two ? json_string("local") : json_boolean(!q->fixed), "scale_dtype",
                     f ? f->scale_dtype : NULL);
}

static const char *format_of(const bq_qtensor *q) {
    const form *f = form_of(q->scheme);
    return f ? f->format : q->inputs.element ? "int-quantized" : "pack-quantized";
}

static json_t *group_config(const bq_export_job *job, const bq_qtensor *q, json_t *targets) {
    json_t *weights = weight_arguments(q->scheme, group_of(job, q));
    json_t *inputs = q->inputs.element ? input_arguments(q) : json_null();
    return json_pack("{s:o, s:s, s:o, s:n, s:o}", "targets", targets, "format", format_of(q),
                     "input_activations", inputs, "output_activations", "weights", weights);
}

/* The format of the whole model: that of all groups, or "mixed-precision". */
static const char *common_format(const bq_export_job *job) {
    const char *one = NULL;
    for (int i = 0; i < job->items; i++) {
        if (!job->item[i].quantized) continue;
        const char *format = format_of(&job->item[i].q);
        if (one && strcmp(one, format) != 0) return "mixed-precision";
        one = format;
    }
    return one;
}

/* The schemes in use, and how many; kinds: the number of the scheme that all of a kind have, or -1. */
static int schemes_of(const bq_export_job *job, const bq_qtensor *found[SCHEMES_MAX], json_t *kinds) {
    int schemes = 0;
    for (int i = 0; i < job->items; i++) {
        int k = 0;
        if (!job->item[i].quantized) continue;
        while (k < schemes && !bq_export_same(found[k], &job->item[i].q)) k++;
        BQ_CHECK(k < SCHEMES_MAX, "export: more than %d schemes", SCHEMES_MAX);
        if (k == schemes) found[schemes++] = &job->item[i].q;
        char *kind = kind_of(&job->item[i]);
        const json_t *other = json_object_get(kinds, kind);
        json_object_set_new(kinds, kind, json_integer(other && json_integer_value(other) != k ? -1 : k));
        free(kind);
    }
    return schemes;
}

/* The linears of scheme k: kinds of which all have it, and single ones. */
static json_t *targets_of(const bq_export_job *job, const bq_qtensor *scheme, int k, const json_t *kinds) {
    json_t *targets = json_array(), *seen = json_object();
    for (int i = 0; i < job->items; i++) {
        const bq_export_item *item = &job->item[i];
        if (!item->quantized || !bq_export_same(&item->q, scheme)) continue;
        char *kind = kind_of(item);
        bool all = json_integer_value(json_object_get(kinds, kind)) == k;
        if (!all) json_array_append_new(targets, bq_export_module(item));
        if (all && !json_object_get(seen, kind)) json_array_append_new(targets, json_string(kind));
        json_object_set_new(seen, kind, json_true());
        free(kind);
    }
    json_decref(seen);
    return targets;
}

/* Each scheme in use becomes a group.  If there is only one, its target is "Linear", because other linears
 * are in the ignore list; but a head is named, as in vLLM its class is another one. */
static json_t *groups_config(const bq_export_job *job) {
    const bq_qtensor *found[SCHEMES_MAX];
    json_t *groups = json_object(), *kinds = json_object();
    int schemes = schemes_of(job, found, kinds);
    for (int k = 0; k < schemes; k++) {
        char name[32];
        bool all = schemes == 1 && !json_object_get(kinds, "lm_head");
        json_t *targets = all ? json_pack("[s]", "Linear") : targets_of(job, found[k], k, kinds);
        snprintf(name, sizeof name, "group_%d", k);
        json_object_set_new(groups, name, group_config(job, found[k], targets));
    }
    json_decref(kinds);
    return groups;
}

json_t *bq_export_cache_scheme(const bq_export_job *job) {
    const bq_qsource *q = &job->source;
    if (!q->cache) return json_null();
    return json_pack("{s:i, s:s, s:b, s:s, s:n, s:b}", "num_bits", bq_rounding_bits(q->cached), "type",
                     bq_rounding_whole(q->cached) ? "int" : "float", "symmetric", true, "strategy",
                     q->heads > 1 ? "attn_head" : "tensor", "group_size", "dynamic", false);
}

/* The package has measured scales alone. */
static bool caches(const bq_export_job *job) {
    return job->source.heads && job->source.cached.element != BQ_E5M2;
}

static void edit(const bq_export_job *job, json_t *config) {
    json_t *q =
        json_pack("{s:s, s:s, s:s, s:s, s:n, s:o, s:o, s:n, s:{}, s:{}, s:o}", "quant_method",
                  "compressed-tensors", "version", VERSION, "format", common_format(job),
                  "quantization_status", "compressed", "global_compression_ratio", "ignore",
                  bq_export_kept(job), "kv_cache_scheme", bq_export_cache_scheme(job), "moe_sparsity_config",
                  "sparsity_config", "transform_config", "config_groups", groups_config(job));
    BQ_CHECK(q && json_object_set_new(config, "quantization_config", q) == 0,
             "no memory for a configuration");
}

const bq_format bq_format_compressed_tensors = {
    .name = "compressed-tensors",
    .help = "packed codes and scales, as vLLM and transformers read them.",
    .loads = BQ_LOADS_VLLM BQ_LOADS_TRANSFORMERS(" with the package compressed-tensors"),
    .scope = {"outputs.N, format: compressed-tensors", "Codes as they are, in the words of the package.",
              keys, BQ_FORMAT_OPTIONS_OF(options)},
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .quantized = true,
    .cache = caches,
};
