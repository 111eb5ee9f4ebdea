/* compressed-tensors.  Where inputs are rounded too: int-quantized, weight (the codes, I8) and weight_scale
 * F32; 8 bits, symmetric, one scale a row.  Else pack-quantized: weight_packed (codes as given, never
 * computed again), weight_scale F32, weight_shape, and of asymmetric schemes weight_zero_point; 4 or 8 bits,
 * one scale a row or a group, cols % group = 0.  Only weights of a Linear can be quantized.  Several schemes
 * become several config_groups. */
#include "base/die.h"
#include "io/out/format.h"
#include "io/out/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION     "0.18.0" /* of the format: the first whose layout is fixed for all bits */
#define WEIGHT      ".weight"
#define SCHEMES_MAX 16

enum { SHAPE = BQ_EXPORT_BARE, AS_IS, PACKED, CODES, SCALE, ZERO };

/* ---- tensors ---- */

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    const bq_qtensor *q = &it->q;
    int64_t rows = q->code.rows, cols = q->code.cols;
    size_t cut = strlen(WEIGHT);
    if (!it->quantized) {
        bq_export_add(job, item, AS_IS, 0, "", it->t->dtype, it->t->dims, it->t->shape);
        return BQ_OK;
    }
    if (!bq_export_is_linear(it)) {
        return bq_refuse(
            BQ_DATA,
            "export: '%s' is not the weight of a Linear: compressed-tensors cannot hold it quantized",
            it->name);
    }
    if (q->pre.rows)
        return bq_refuse(BQ_DATA,
                         "export: '%s': its inputs are multiplied by factors of their own (smoothquant "
                         "without fuse): compressed-tensors has no place for these, write safetensors",
                         it->name);
    if (q->bits != 4 && q->bits != 8) {
        return bq_refuse(BQ_DATA, "export: '%s' has %d bits, compressed-tensors is written with 4 or 8",
                         it->name, q->bits);
    }
    if (q->activations && (q->activations != 8 || q->bits != 8 || q->scale.cols != 1 || q->zero.rows))
        return bq_refuse(BQ_DATA,
                         "export: '%s': with quantized activations compressed-tensors is written for 8 and 8 "
                         "bits, symmetric, one scale a row",
                         it->name);
    if (q->group > 0 && q->group < cols && cols % q->group) {
        return bq_refuse(BQ_DATA, "export: '%s': groups of %lld do not divide its %lld columns", it->name,
                         (long long)q->group, (long long)cols);
    }
    if (q->activations) {
        bq_export_add(job, item, CODES, 0, "", "I8", 2, (int64_t[]){rows, cols});
        bq_export_add(job, item, SCALE, cut, ".weight_scale", "F32", 2, (int64_t[]){rows, 1});
        return BQ_OK;
    }
    bq_export_add(job, item, PACKED, cut, ".weight_packed", "I32", 2,
                  (int64_t[]){rows, bq_pack_words(cols, q->bits)});
    bq_export_add(job, item, SCALE, cut, ".weight_scale", "F32", 2, (int64_t[]){rows, q->scale.cols});
    if (q->zero.rows)
        bq_export_add(job, item, ZERO, cut, ".weight_zero_point", "I32", 2,
                      (int64_t[]){bq_pack_words(rows, q->bits), q->zero.cols});
    bq_export_add(job, item, SHAPE, cut, ".weight_shape", "I64", 1, (int64_t[]){2});
    return BQ_OK;
}

static void put_packed(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int64_t words = bq_pack_words(q->code.cols, q->bits), at_once = (int64_t)(BQ_EXPORT_BUFFER / 4) / words;
    BQ_CHECK(q->code.data && at_once > 0, "export: a result without data, or rows too long");
    for (int64_t first = 0, n; first < q->code.rows; first += n) {
        n = q->code.rows - first < at_once ? q->code.rows - first : at_once;
        bq_mat word = bq_mat_host(job->buffer, n, words, BQ_I32);
        bq_pack_rows(bq_mat_rows(q->code, first, n), q->bits, word);
        bq_export_put_rows(word, w);
    }
}

static void put_zeros(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int64_t fields = 32 / q->bits, at_once = (int64_t)(BQ_EXPORT_BUFFER / 4) / q->zero.cols * fields;
    BQ_CHECK(q->zero.data && at_once > 0, "export: a result without zero points, or rows too long");
    for (int64_t first = 0, n; first < q->zero.rows; first += n) {
        n = q->zero.rows - first < at_once ? q->zero.rows - first : at_once;
        bq_mat word = bq_mat_host(job->buffer, bq_pack_words(n, q->bits), q->zero.cols, BQ_I32);
        bq_pack_zeros(bq_mat_rows(q->zero, first, n), q->bits, word);
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

/* ---- quantization_config ---- */

typedef struct {
    int bits;
    int64_t group; /* 0: channel */
    bool symmetric;
    int activations;
} scheme;

static scheme scheme_of(const bq_export_item *item) {
    const bq_qtensor *q = &item->q;
    return (scheme){q->bits, q->group > 0 && q->group < q->code.cols ? q->group : 0, q->zero.rows == 0,
                    q->activations};
}

static bool same(scheme a, scheme b) {
    return a.bits == b.bits && a.group == b.group && a.symmetric == b.symmetric &&
           a.activations == b.activations;
}

/* "model.layers.12.mlp.up_proj.weight" as head "model.layers.", block 12 and tail "mlp.up_proj" (module name,
 * no
 * ".weight"); block -1 and the whole module name as tail for all others. */
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

static void put_escaped(FILE *to, const char *text) {
    for (; *text; text++) fprintf(to, *text == '.' ? "\\." : "%c", *text);
}

/* One target for all modules that differ from item i by block alone and have its scheme; NULL when an earlier
 * item has said it.  Where every quantized one of them has that scheme, blocks are not listed. */
static json_t *target(const bq_export_job *job, int i) {
    char head[256], tail[256], other_head[256], other_tail[256], *text = NULL;
    size_t bytes;
    scheme mine = scheme_of(&job->item[i]);
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
        if (!same(scheme_of(item), mine))
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
    put_escaped(to, head);
    fprintf(to, all ? "\\d+\\." : "(%s)\\.", list);
    put_escaped(to, tail);
    fputc('$', to);
    BQ_CHECK(fclose(to) == 0, "no memory for a target");
    json_t *out = first ? json_string(text) : NULL;
    free(list);
    free(text);
    return out;
}

/* What a tensor is rounded to. */
static json_t *arguments(int bits, bool symmetric, const char *strategy, int64_t group, bool dynamic) {
    return json_pack("{s:i, s:s, s:b, s:s, s:o, s:n, s:b, s:n, s:n, s:s?, s:s?, s:{}}", "num_bits", bits,
                     "type", "int", "symmetric", symmetric, "strategy", strategy, "group_size",
                     group ? json_integer(group) : json_null(), "block_structure", "dynamic", dynamic,
                     "actorder", "scale_dtype", "zp_dtype", symmetric ? NULL : "torch.int8", "observer",
                     dynamic ? NULL : "minmax", "observer_kwargs");
}

static const char *format_of(scheme s) { return s.activations ? "int-quantized" : "pack-quantized"; }

static json_t *group_config(scheme s, json_t *targets) {
    json_t *weights = arguments(s.bits, s.symmetric, s.group ? "group" : "channel", s.group, false);
    json_t *inputs = s.activations ? arguments(s.activations, true, "token", 0, true) : json_null();
    return json_pack("{s:o, s:s, s:o, s:n, s:o}", "targets", targets, "format", format_of(s),
                     "input_activations", inputs, "output_activations", "weights", weights);
}

/* The format of the whole: that of all groups, or none in particular. */
static const char *common_format(const bq_export_job *job) {
    const char *one = NULL;
    for (int i = 0; i < job->items; i++) {
        if (!job->item[i].quantized) continue;
        const char *format = format_of(scheme_of(&job->item[i]));
        if (one && strcmp(one, format) != 0) return "mixed-precision";
        one = format;
    }
    return one;
}

/* Every scheme in use becomes a group; a single one can say "Linear", as the rest is ignored by name. */
static json_t *groups_config(const bq_export_job *job) {
    scheme found[SCHEMES_MAX];
    int schemes = 0;
    for (int i = 0; i < job->items; i++) {
        int k = 0;
        if (!job->item[i].quantized) continue;
        while (k < schemes && !same(found[k], scheme_of(&job->item[i]))) k++;
        BQ_CHECK(k < SCHEMES_MAX, "export: more than %d schemes", SCHEMES_MAX);
        if (k == schemes) found[schemes++] = scheme_of(&job->item[i]);
    }
    json_t *groups = json_object();
    for (int k = 0; k < schemes; k++) {
        json_t *targets = json_array();
        char name[32];
        if (schemes == 1) json_array_append_new(targets, json_string("Linear"));
        for (int i = 0; i < job->items && schemes > 1; i++) {
            const bq_export_item *item = &job->item[i];
            json_t *t = item->quantized && same(scheme_of(item), found[k]) ? target(job, i) : NULL;
            if (t) json_array_append_new(targets, t);
        }
        snprintf(name, sizeof name, "group_%d", k);
        json_object_set_new(groups, name, group_config(found[k], targets));
    }
    return groups;
}

/* A tied head is a Linear without a tensor of its own. */
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
