/* compressed-tensors.
 *
 * Where inputs are rounded, too: format int-quantized; weight I8 (the codes), weight_scale F32; 8 bits,
 * symmetric, one scale a row.
 *
 * Else: format pack-quantized; weight_packed I32 (the codes as they are given, never computed again),
 * weight_scale F32, weight_shape I64, and in asymmetric schemes weight_zero_point I32; 4 or 8 bits, one
 * scale a row or a group that divides the columns.
 *
 * Only weights of linears can be quantized.  Each scheme is one of config_groups. */
#include "base/die.h"
#include "io/out/format.h"
#include "io/out/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION     "0.18.0" /* of the package: the first with today's layout for every number of bits */
#define WEIGHT      ".weight"
#define SCHEMES_MAX 16

enum { SHAPE = BQ_EXPORT_BARE, AS_IS, PACKED, CODES, SCALE, ZERO };

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    const bq_qtensor *q = &it->q;
    const bq_scheme s = q->scheme;
    int64_t rows = q->code.rows, cols = q->code.cols;
    int bits = bq_code_bits(s);
    size_t cut = strlen(WEIGHT);
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
    if (s.element != BQ_INT4 && s.element != BQ_INT8)
        return bq_export_refuse(it, " has %d bits, compressed-tensors is written with 4 or 8", bits);
    if (q->activations && (q->activations != 8 || s.element != BQ_INT8 || s.group > 0 || !s.symmetric))
        return bq_export_refuse(it, ": with quantized activations compressed-tensors is written for 8 and 8 "
                                    "bits, symmetric, one scale a row");
    if (s.group > 0 && cols % s.group)
        return bq_export_refuse(it, ": groups of %ld do not divide its %ld columns", (long)s.group,
                                (long)cols);
    if (q->activations) {
        bq_export_add(job, item, CODES, 0, "", "I8", 2, (int64_t[]){rows, cols});
        bq_export_add(job, item, SCALE, cut, ".weight_scale", "F32", 2, (int64_t[]){rows, 1});
        return BQ_OK;
    }
    bq_export_add(job, item, PACKED, cut, ".weight_packed", "I32", 2,
                  (int64_t[]){rows, bq_pack_words(cols, bits)});
    bq_export_add(job, item, SCALE, cut, ".weight_scale", "F32", 2, (int64_t[]){rows, q->scale.cols});
    if (q->zero.rows)
        bq_export_add(job, item, ZERO, cut, ".weight_zero_point", "I32", 2,
                      (int64_t[]){bq_pack_words(rows, bits), q->zero.cols});
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

static void put_zeros(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t fields = 32 / bits, at_once = (int64_t)(BQ_EXPORT_BUFFER / 4) / q->zero.cols * fields;
    BQ_CHECK(q->zero.data && at_once > 0, "export: a result without zero points, or rows too long");
    for (int64_t first = 0, n; first < q->zero.rows; first += n) {
        n = q->zero.rows - first < at_once ? q->zero.rows - first : at_once;
        bq_mat word = bq_mat_host(job->buffer, bq_pack_words(n, bits), q->zero.cols, BQ_I32);
        bq_pack_zeros(bq_mat_rows(q->zero, first, n), bits, word);
        bq_export_put_rows(word, w);
    }
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    switch (out->part) {
    case AS_IS: bq_export_put_raw(job, job->item[out->item].t, w); break;
    case PACKED: put_packed(job, q, w); break;
    case CODES: bq_export_put_rows(q->code, w); break;
    case SCALE: bq_export_put_rows(q->scale, w); break;
    case ZERO: put_zeros(job, q, w); break;
    case SHAPE: bq_writer_put(w, (int64_t[]){q->code.rows, q->code.cols}, 16); break;
    }
}

/* Split "model.layers.12.mlp.up_proj.weight" into head "model.layers.", block 12 and tail "mlp.up_proj" (a
 * module's name has no ".weight").  Any other name: block -1, and tail is the module's whole name. */
static int split(const char *name, char head[256], char tail[256]) {
    const char *layers = strstr(name, "layers.");
    int block = -1, used = 0, n = (int)(strlen(name) - strlen(WEIGHT));
    head[0] = 0;
    if (layers && sscanf(layers, "layers.%d.%n", &block, &used) == 1 && used) {
        int start = (int)(layers - name);
        snprintf(head, 256, "%.*s", start + 7, name);
        snprintf(tail, 256, "%.*s", n - start - used, layers + used);
        return block;
    }
    snprintf(tail, 256, "%.*s", n, name);
    return -1;
}

/* A target (regular expression) for all linears that differ from item i in their block alone and have its
 * scheme; NULL if an earlier item had it.  If all quantized linears of this kind have the scheme, it
 * matches every block. */
static json_t *target(const bq_export_job *job, int i) {
    char head[256], tail[256], other_head[256], other_tail[256], *text = NULL;
    size_t bytes;
    if (split(job->item[i].name, head, tail) < 0) return json_string(tail);
    FILE *blocks = open_memstream(&text, &bytes);
    BQ_CHECK(blocks, "no memory for a target");
    bool all = true, first = true;
    int count = 0;
    for (int k = 0; k < job->items; k++) {
        const bq_export_item *item = &job->item[k];
        if (!item->quantized) continue;
        int block = split(item->name, other_head, other_tail);
        if (block < 0 || strcmp(head, other_head) != 0 || strcmp(tail, other_tail) != 0) continue;
        if (!bq_export_same(&item->q, &job->item[i].q))
            all = false;
        else {
            first = first && k >= i;
            fprintf(blocks, "%s%d", count++ ? "|" : "", block);
        }
    }
    BQ_CHECK(fclose(blocks) == 0, "no memory for a target");
    char *list = text;
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(to, "no memory for a target");
    fputs("re:^", to);
    bq_export_escape(to, head, strlen(head));
    fprintf(to, all ? "\\d+\\." : "(%s)\\.", list);
    bq_export_escape(to, tail, strlen(tail));
    fputc('$', to);
    BQ_CHECK(fclose(to) == 0, "no memory for a target");
    json_t *out = first ? json_string(text) : NULL;
    free(list);
    free(text);
    return out;
}

/* The arguments for one tensor: what it is rounded to; dynamic: inputs, whose scales engines compute. */
static json_t *arguments(bq_scheme s, bool dynamic) {
    const char *strategy = s.group > 0 ? "group" : "channel";
    return json_pack("{s:i, s:s, s:b, s:s, s:o, s:n, s:b, s:n, s:n, s:s?, s:s?, s:{}}", "num_bits",
                     bq_code_bits(s), "type", "int", "symmetric", s.symmetric, "strategy",
                     dynamic ? "token" : strategy, "group_size",
                     s.group > 0 ? json_integer(s.group) : json_null(), "block_structure", "dynamic", dynamic,
                     "actorder", "scale_dtype", "zp_dtype", s.symmetric ? NULL : "torch.int8", "observer",
                     dynamic ? NULL : "minmax", "observer_kwargs");
}

static const char *format_of(const bq_qtensor *q) {
    return q->activations ? "int-quantized" : "pack-quantized";
}

static json_t *group_config(const bq_qtensor *q, json_t *targets) {
    json_t *weights = arguments(q->scheme, false);
    json_t *inputs = q->activations ? arguments(bq_scheme_of_tokens(q->activations), true) : json_null();
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

/* Each scheme in use becomes a group.  If there is only one, its target is "Linear", because other linears
 * are in the ignore list; but a head is named, as in vLLM its class is another one. */
static json_t *groups_config(const bq_export_job *job) {
    const bq_qtensor *found[SCHEMES_MAX];
    int schemes = 0;
    bool head = false;
    for (int i = 0; i < job->items; i++) {
        int k = 0;
        if (!job->item[i].quantized) continue;
        head |= strcmp(job->item[i].name, "lm_head.weight") == 0;
        while (k < schemes && !bq_export_same(found[k], &job->item[i].q)) k++;
        BQ_CHECK(k < SCHEMES_MAX, "export: more than %d schemes", SCHEMES_MAX);
        if (k == schemes) found[schemes++] = &job->item[i].q;
    }
    json_t *groups = json_object();
    for (int k = 0; k < schemes; k++) {
        json_t *targets = json_array();
        char name[32];
        bool all = schemes == 1 && !head;
        if (all) json_array_append_new(targets, json_string("Linear"));
        for (int i = 0; i < job->items && !all; i++) {
            const bq_export_item *item = &job->item[i];
            json_t *t = item->quantized && bq_export_same(&item->q, found[k]) ? target(job, i) : NULL;
            if (t) json_array_append_new(targets, t);
        }
        snprintf(name, sizeof name, "group_%d", k);
        json_object_set_new(groups, name, group_config(found[k], targets));
    }
    return groups;
}

/* All linears that are not quantized.  A tied head is a linear, too, but has no tensor. */
static json_t *ignore_list(const bq_export_job *job) {
    json_t *ignore = json_array();
    bool head = false;
    char module[256];
    for (int i = 0; i < job->items; i++) {
        const bq_export_item *item = &job->item[i];
        head = head || strcmp(item->name, "lm_head.weight") == 0;
        if (!bq_export_is_linear(item) || item->quantized) continue;
        snprintf(module, sizeof module, "%.*s", (int)(strlen(item->name) - strlen(WEIGHT)), item->name);
        json_array_append_new(ignore, json_string(module));
    }
    if (!head) json_array_append_new(ignore, json_string("lm_head"));
    return ignore;
}

static void edit(const bq_export_job *job, json_t *config) {
    json_t *q = json_pack("{s:s, s:s, s:s, s:s, s:n, s:o, s:n, s:{}, s:{}, s:o}", "quant_method",
                          "compressed-tensors", "version", VERSION, "format", common_format(job),
                          "quantization_status", "compressed", "global_compression_ratio", "ignore",
                          ignore_list(job), "kv_cache_scheme", "sparsity_config", "transform_config",
                          "config_groups", groups_config(job));
    BQ_CHECK(q && json_object_set_new(config, "quantization_config", q) == 0,
             "no memory for a configuration");
}

const bq_format bq_format_compressed_tensors = {
    .name = "compressed-tensors",
    .help = "packed codes and scales, as vLLM and transformers read them.",
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .quantized = true,
};
