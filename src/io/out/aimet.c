/* SPDX-License-Identifier: Apache-2.0 */
/* AIMET: the weights as F32, and a file of encodings, which say on what grid each of them lies.
 *
 * The weights are w_hat, (code - zero) * scale, not the folded ones: AIMET makes its codes by rounding what
 * it loads, and codes of GPTQ, say, are not the nearest ones of the folded weights.  w_hat / scale is the
 * whole number code - zero but for 2^-23 of it, so rounding to nearest gives our codes in float and in
 * double, and these give w_hat again: AIMET's simulation leaves the weights as they are.
 *
 * The file is called as AIMET's own: model_torch.encodings with names of torch parameters, model.encodings
 * with names of ONNX initializers.  It is written tensor by tensor. */
#include "base/die.h"
#include "io/out/aimet.h"
#include "io/out/dense.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const numbers[] = {"1.0.0", "0.6.1", "2.0.0"};
static const bq_choice versions[] = {
    {"0.6.1", BQ_AIMET_0_6_1}, {"1.0.0", BQ_AIMET_1_0_0}, {"2.0.0", BQ_AIMET_2_0_0}, {NULL, 0}};

#define NAMES_MAX ((size_t)256 << 20) /* bytes of the map */

static const bq_key keys[] = {
    {"version", BQ_KEY_CHOICE, BQ_AT(bq_aimet_options, version), .value = "1.0.0", .choice = versions,
     .help = "Of the encodings file. `load_encodings` of aimet-torch reads 0.6.1. Of keys and values there "
             "are encodings "
             "in the others alone."},
    {"names", BQ_KEY_PATH, BQ_AT(bq_aimet_options, names), .value = "",
     .help =
         "JSON map from names of torch parameters to those of ONNX initializers, as tools/export_onnx.py "
         "makes it. Left out: the file has the names of torch; inputs of a linear are MODULE.input then, in "
         "0.6.1 the input of MODULE."},
    {0}};

static const bq_aimet_options *said(const bq_export_job *job) { return job->options; }

/* ---- the plan ---- */

/* job->own: the map, or NULL. */
static int begin(bq_export_job *job) {
    json_t *names = NULL;
    int code = said(job)->names[0] ? bq_json_read(said(job)->names, NAMES_MAX, &names) : BQ_OK;
    job->own = names;
    return code;
}

static void end(bq_export_job *job) { json_decref(job->own); }

/* The tensor's name in the file, NULL: the map has none.  transposed: it is stored as (columns, rows)
 * there. */
static const char *name_of(const bq_export_job *job, const bq_export_item *item, bool *transposed) {
    const json_t *names = job->own, *entry = names ? json_object_get(names, item->name) : NULL;
    *transposed = json_is_true(json_object_get(entry, "transposed"));
    if (!names) return item->name;
    return json_string_value(json_is_object(entry) ? json_object_get(entry, "name") : entry);
}

static int plan(bq_export_job *job, int i) {
    const bq_export_item *it = &job->item[i];
    const int64_t group = it->q.scheme.group;
    bool transposed;
    if (!it->quantized) return bq_dense_plan(job, i, "F32");
    int code = bq_export_linear_only(it, "aimet");
    if (!code) code = bq_aimet_plan_inputs(job, it);
    if (code) return code;
    if (!bq_element_whole(it->q.scheme.element))
        return bq_export_refuse(it, " has codes of %s, aimet is written with integers: write safetensors",
                                bq_element_name(it->q.scheme.element));
    if (group > 0 && it->q.code.cols % group)
        return bq_export_refuse(it, ": groups of %ld do not divide its %ld columns, as AIMET's blocks must",
                                (long)group, (long)it->q.code.cols);
    if (!name_of(job, it, &transposed))
        return bq_export_refuse(it, " has no name in %s: make the map again for this model",
                                said(job)->names);
    if (group > 0 && job->own && said(job)->version == BQ_AIMET_0_6_1)
        return bq_export_refuse(it, " has groups, which encodings 0.6.1 of an ONNX model cannot say: write "
                                    "version 1.0.0 or 2.0.0");
    return bq_dense_plan(job, i, "F32");
}

static void edit(const bq_export_job *job, json_t *config) {
    (void)job;
    bq_dense_edit(config, "F32");
}

/* ---- a tensor ---- */

/* Its grid.  more > 0: LPBQ, the scales of a row are multiples, 1 ... 2^more, of one unit. */
typedef struct {
    const bq_qtensor *q;
    const char *name;
    bool transposed;
    int bits, more;
    int64_t row; /* whose unit it is */
    double unit;
} grid;

static float scale_at(const grid *g, int64_t r, int64_t c) {
    return *(const float *)bq_mat_at(g->q->scale, r, c);
}

static void find_unit(grid *g, int64_t r) {
    float largest = 0;
    if (g->row == r) return;
    for (int64_t c = 0; c < g->q->scale.cols; c++) largest = fmaxf(largest, scale_at(g, r, c));
    g->row = r, g->unit = ldexp((double)largest, -g->more);
}

/* Are all scales whole multiples of units that are floats?  Exact: a unit of 24 digits times 2^6 at most. */
static bool is_lpbq(grid *g) {
    g->row = -1;
    for (int64_t r = 0; r < g->q->scale.rows; r++) {
        find_unit(g, r);
        if ((double)(float)g->unit != g->unit) return false;
        for (int64_t c = 0; c < g->q->scale.cols; c++) {
            const double k = rint((double)scale_at(g, r, c) / g->unit);
            if (k < 1 || k * g->unit != (double)scale_at(g, r, c)) return false;
        }
    }
    return true;
}

/* The fewest bits more with which they are.  2.0.0 has as many more as codes have, and 0.6.1 has none. */
static int find_more(grid *g, bq_aimet_version v) {
    const bool may = v != BQ_AIMET_0_6_1 && g->q->scale.cols > 1 && g->q->scheme.symmetric;
    const int most = 8 - g->bits;
    for (g->more = v == BQ_AIMET_2_0_0 ? g->bits : 1; may && g->more <= most; g->more++) {
        if (is_lpbq(g)) return g->more;
        if (v == BQ_AIMET_2_0_0) break;
    }
    return 0;
}

/* What lists consist of: scales; of LPBQ units and multiples; of 0.6.1 and 1.0.0 offsets to codes from 0 on;
 * of 2.0.0 zero points of unsigned codes. */
typedef enum { SCALE, UNIT, MULTIPLE, OFFSET, ZERO_POINT } field;

static int offset_at(const grid *g, int64_t r, int64_t c) {
    if (g->more) return -(1 << (g->bits + g->more - 1));
    const float zero = g->q->zero.rows ? *(const float *)bq_mat_at(g->q->zero, r, c) : 0;
    return (int)(bq_qmin(g->q->scheme) - zero);
}

static void put_value(bq_aimet_text *t, grid *g, field f, int64_t r, int64_t c) {
    if (f == UNIT || f == MULTIPLE) find_unit(g, r);
    if (f == SCALE || f == UNIT)
        bq_aimet_real(t, f == UNIT ? g->unit : (double)scale_at(g, r, c));
    else if (f == MULTIPLE)
        bq_aimet_put(t, "%d", (int)((double)scale_at(g, r, c) / g->unit));
    else
        bq_aimet_put(t, "%d", f == OFFSET ? offset_at(g, r, c) : -offset_at(g, r, c));
}

/* `, "key": [...]`, by rows.  nested: a list of lists, in the layout of the file. */
static void put_list(bq_aimet_text *t, grid *g, const char *key, field f, bool nested) {
    const int64_t groups = f == UNIT || (f == OFFSET && g->more) ? 1 : g->q->scale.cols,
                  rows = g->q->scale.rows;
    const bool turn = nested && g->transposed;
    g->row = -1;
    bq_aimet_put(t, ", \"%s\": [", key);
    for (int64_t i = 0; i < (turn ? groups : rows); i++) {
        bq_aimet_put(t, "%s%s", i ? ", " : "", nested ? "[" : "");
        for (int64_t k = 0; k < (turn ? rows : groups); k++) {
            if (k) bq_aimet_put(t, ", ");
            put_value(t, g, f, turn ? k : i, turn ? i : k);
        }
        if (nested) bq_aimet_put(t, "]");
    }
    bq_aimet_put(t, "]");
}

/* An object for each row, or each group of each row. */
static void put_0_6_1(bq_aimet_text *t, grid *g) {
    const char *truth = g->q->scheme.symmetric ? "True" : "False";
    bq_aimet_name(t, g->name);
    bq_aimet_put(t, ": [");
    for (int64_t r = 0; r < g->q->scale.rows; r++)
        for (int64_t c = 0; c < g->q->scale.cols; c++) {
            const float scale = scale_at(g, r, c);
            const int offset = offset_at(g, r, c);
            bq_aimet_put(t, "%s{\"bitwidth\": %d, \"dtype\": \"int\", \"is_symmetric\": \"%s\", \"min\": ",
                         r || c ? ",\n      " : "", g->bits, truth);
            bq_aimet_real(t, (double)(scale * (float)offset));
            bq_aimet_put(t, ", \"max\": ");
            bq_aimet_real(t, (double)(scale * (float)(offset + (1 << g->bits) - 1)));
            bq_aimet_put(t, ", \"offset\": %d, \"scale\": ", offset);
            bq_aimet_real(t, (double)scale);
            bq_aimet_put(t, "}");
        }
    bq_aimet_put(t, "]");
}

static void put_1_0_0(bq_aimet_text *t, grid *g) {
    const bool blocks = g->q->scale.cols > 1;
    bq_aimet_put(t, "{\"name\": ");
    bq_aimet_name(t, g->name);
    bq_aimet_put(t, ", \"enc_type\": \"%s\", \"dtype\": \"INT\", \"bw\": %d, \"is_sym\": %s",
                 g->more  ? "LPBQ"
                 : blocks ? "PER_BLOCK"
                          : "PER_CHANNEL",
                 g->bits + g->more, g->q->scheme.symmetric ? "true" : "false");
    if (g->more) bq_aimet_put(t, ", \"compressed_bw\": %d", g->bits);
    if (blocks) bq_aimet_put(t, ", \"block_size\": %ld", (long)g->q->scheme.group);
    put_list(t, g, "scale", g->more ? UNIT : SCALE, false);
    put_list(t, g, "offset", OFFSET, false);
    if (g->more) put_list(t, g, "per_block_int_scale", MULTIPLE, false);
    bq_aimet_put(t, "}");
}

/* axis: that of the rows, or that of the columns where there are blocks. */
static void put_2_0_0(bq_aimet_text *t, grid *g) {
    const bool blocks = g->q->scale.cols > 1;
    bq_aimet_put(t, "{\"name\": ");
    bq_aimet_name(t, g->name);
    bq_aimet_put(t, ", \"output_dtype\": \"%sint%d\", \"axis\": %d", g->q->scheme.symmetric ? "" : "u",
                 g->bits, blocks != g->transposed);
    if (blocks) bq_aimet_put(t, ", \"block_size\": %ld", (long)g->q->scheme.group);
    if (g->more) {
        put_list(t, g, "per_block_int_scale", MULTIPLE, true);
        put_list(t, g, "per_channel_float_scale", UNIT, true);
    } else {
        put_list(t, g, "y_scale", SCALE, blocks);
        if (!g->q->scheme.symmetric) put_list(t, g, "y_zero_point", ZERO_POINT, blocks);
    }
    bq_aimet_put(t, "}");
}

static void put_tensor(bq_aimet_text *t, const bq_export_item *item) {
    static void (*const by_version[])(bq_aimet_text *, grid *) = {put_1_0_0, put_0_6_1, put_2_0_0};
    bq_qtensor q;
    grid g = {.q = &q, .bits = bq_code_bits(item->q.scheme)};
    bq_export_hold(t->job, item, &q);
    BQ_CHECK(q.scale.data && (q.zero.data || !q.zero.rows), "export: a result without data");
    for (int64_t i = 0; i < q.scale.rows * q.scale.cols; i++) {
        const float scale = scale_at(&g, i / q.scale.cols, i % q.scale.cols);
        BQ_CHECK(isfinite(scale) && scale > 0, "export: '%s' has a scale of %g", item->name, (double)scale);
    }
    g.name = name_of(t->job, item, &g.transposed);
    g.more = find_more(&g, said(t->job)->version);
    by_version[said(t->job)->version](t, &g);
}

/* ---- the file ---- */

/* The bits that most tensors have. */
static int common_bits(const bq_export_job *job) {
    int count[9] = {0}, best = 0;
    for (int i = 0; i < job->items; i++)
        if (job->item[i].quantized) count[bq_code_bits(job->item[i].q.scheme)]++;
    for (int bits = 1; bits < 9; bits++) best = count[bits] > count[best] ? bits : best;
    return best;
}

static void finish(bq_export_job *job) {
    const bq_aimet_version v = said(job)->version;
    bq_aimet_text t;
    const char *none = v == BQ_AIMET_0_6_1 ? "{}" : "[]";
    bq_aimet_open(&t, job);
    bq_aimet_put(&t,
                 "{\n  \"version\": \"%s\",\n  \"producer\": {\"package\": \"%s\", \"version\": \"0.1\"},\n",
                 numbers[v], BQ_WRITER_PRODUCER);
    bq_aimet_put(&t, v == BQ_AIMET_2_0_0 ? "  \"encodings\": [" : "  \"activation_encodings\": %c", none[0]);
    int tensors = bq_aimet_inputs(&t);
    if (v != BQ_AIMET_2_0_0) {
        bq_aimet_put(&t, "%s%c,\n  \"param_encodings\": %c", tensors ? "\n  " : "", none[1], none[0]);
        tensors = 0;
    }
    for (int i = 0; i < job->items; i++) {
        if (!job->item[i].quantized) continue;
        bq_aimet_put(&t, "%s\n    ", tensors++ ? "," : "");
        put_tensor(&t, &job->item[i]);
    }
    bq_aimet_put(&t, "\n  %c", none[1]);
    if (v != BQ_AIMET_2_0_0)
        bq_aimet_put(
            &t,
            ",\n  \"quantizer_args\": {\"activation_bitwidth\": %d, \"dtype\": \"int\", \"is_symmetric\": "
            "true, "
            "\"param_bitwidth\": %d, \"per_channel_quantization\": true, "
            "\"quant_scheme\": \"post_training_tf\"},\n  \"excluded_layers\": []",
            bq_aimet_inputs_bits(job), common_bits(job));
    bq_aimet_put(&t, "\n}\n");
    bq_aimet_close(&t);
}

const bq_format bq_format_aimet = {
    .name = "aimet",
    .help = "quantized values as F32, and their encodings as AIMET reads them.",
    .loads =
        BQ_LOADS_TRANSFORMERS("") "- AIMET: the encodings into a `QuantizationSimModel` of that model, by "
                                  "`load_encodings`\n",
    .scope = {"outputs.N, format: aimet",
              "Quantized values as F32, and AIMET's encodings: of the weights; of the inputs of linears, "
              "where `bits.activations` has integers per tensor that are measured; and of keys and values, "
              "where `bits.kv` has such.",
              keys, BQ_FORMAT_OPTIONS_OF(bq_aimet_options)},
    .plan = plan,
    .write = bq_dense_write,
    .edit = edit,
    .quantized = true,
    .replaced = true,
    .begin = begin,
    .end = end,
    .finish = finish,
    .cache = bq_aimet_caches,
};
