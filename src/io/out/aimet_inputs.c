/* SPDX-License-Identifier: Apache-2.0 */
/* Encodings of activations: one grid for the inputs of a linear, one for the keys and one for the values of a
 * block, measured on the samples. */
#include "io/out/aimet.h"

#include "base/die.h"

#include <string.h>

static const bq_aimet_options *said(const bq_export_job *job) { return job->options; }

static bool fits(bq_rounding r) { return r.whole && r.group <= 0 && bq_rounding_whole(r); }

/* The ONNX tensor that a linear reads, in the map; NULL: it has none. */
static const char *input_of(const bq_export_job *job, const bq_export_item *item) {
    return json_string_value(json_object_get(json_object_get(job->own, item->name), "input"));
}

int bq_aimet_plan_inputs(const bq_export_job *job, const bq_export_item *item) {
    if (!item->q.inputs.element) return BQ_OK;
    if (!item->q.fixed || !fits(item->q.inputs))
        return bq_export_refuse(
            item,
            ": its inputs are rounded to %s, and aimet has integers with one measured scale for "
            "a linear: set per tensor and dynamic false in bits.activations, or write "
            "compressed-tensors",
            bq_rounding_name(item->q.inputs));
    if (job->own && !input_of(job, item))
        return bq_export_refuse(item, " has no input in %s: make the map again for this model",
                                said(job)->names);
    return BQ_OK;
}

bool bq_aimet_caches(const bq_export_job *job) {
    return said(job)->version != BQ_AIMET_0_6_1 && job->source.heads == 1 && fits(job->source.cached);
}

int bq_aimet_inputs_bits(const bq_export_job *job) {
    for (int i = 0; i < job->items; i++)
        if (job->item[i].quantized && job->item[i].q.inputs.element)
            return bq_rounding_bits(job->item[i].q.inputs);
    return 16;
}

/* ---- a grid ---- */

/* offset: of the codes 0 ... 2^bits - 1. */
static void put_0_6_1(bq_aimet_text *t, bq_rounding r, float scale, int offset) {
    const int bits = bq_rounding_bits(r);
    bq_aimet_put(t, "{\"bitwidth\": %d, \"dtype\": \"int\", \"is_symmetric\": \"%s\", \"min\": ", bits,
                 r.even ? "True" : "False");
    bq_aimet_real(t, (double)(scale * (float)offset));
    bq_aimet_put(t, ", \"max\": ");
    bq_aimet_real(t, (double)(scale * (float)(offset + (1 << bits) - 1)));
    bq_aimet_put(t, ", \"offset\": %d, \"scale\": ", offset);
    bq_aimet_real(t, (double)scale);
    bq_aimet_put(t, "}");
}

/* The encoding of a tensor. */
static void put_encoding(bq_aimet_text *t, const char *name, bq_rounding r, bq_ends_grid grid) {
    const int bits = bq_rounding_bits(r), offset = -(1 << bits) / 2 - (int)grid.zero;
    if (said(t->job)->version == BQ_AIMET_0_6_1 && !t->job->own) { /* of a module */
        bq_aimet_name(t, name);
        bq_aimet_put(t, ": {\"input\": {\"0\": ");
        put_0_6_1(t, r, grid.scale, offset);
        bq_aimet_put(t, "}}");
        return;
    }
    if (said(t->job)->version == BQ_AIMET_0_6_1) {
        bq_aimet_name(t, name);
        bq_aimet_put(t, ": [");
        put_0_6_1(t, r, grid.scale, offset);
        bq_aimet_put(t, "]");
        return;
    }
    const bool first = said(t->job)->version == BQ_AIMET_1_0_0;
    bq_aimet_put(t, "{\"name\": ");
    bq_aimet_name(t, name);
    if (first)
        bq_aimet_put(
            t, ", \"enc_type\": \"PER_TENSOR\", \"dtype\": \"INT\", \"bw\": %d, \"is_sym\": %s, \"scale\": [",
            bits, r.even ? "true" : "false");
    else
        bq_aimet_put(t, ", \"output_dtype\": \"%sint%d\", \"y_scale\": ", r.even ? "" : "u", bits);
    bq_aimet_real(t, (double)grid.scale);
    if (first) bq_aimet_put(t, "], \"offset\": [%d]", offset);
    if (!first && !r.even) bq_aimet_put(t, ", \"y_zero_point\": %d", -offset);
    bq_aimet_put(t, "}");
}

static void begin(bq_aimet_text *t, int *count) { bq_aimet_put(t, "%s\n    ", (*count)++ ? "," : ""); }

/* Of an item; in ONNX linears share a tensor, which has one encoding.  seen: those that are there. */
static void put_item(bq_aimet_text *t, const bq_export_item *item, json_t *seen, int *count) {
    static const char weight[] = ".weight";
    char name[1024];
    const char *own = t->job->own ? input_of(t->job, item) : NULL;
    const bool module = said(t->job)->version == BQ_AIMET_0_6_1;
    snprintf(name, sizeof name, "%.*s%s", (int)(strlen(item->name) - (sizeof weight - 1)), item->name,
             module ? "" : ".input");
    if (own && json_object_get(seen, own)) return;
    if (own) json_object_set_new(seen, own, json_true());
    begin(t, count);
    put_encoding(t, own ? own : name, item->q.inputs, bq_export_grid(t->job, item));
}

/* Keys and values of block i, as they go into the graph and as they come out. */
static void put_cache(bq_aimet_text *t, int i, const float *scale, int *count) {
    static const char *const names[] = {"past_key_%d_in", "past_key_%d_out", "past_value_%d_in",
                                        "past_value_%d_out"};
    for (int k = 0; k < 4; k++) {
        char name[64];
        snprintf(name, sizeof name, names[k], i);
        begin(t, count);
        put_encoding(t, name, t->job->source.cached, (bq_ends_grid){scale[k / 2], 0});
    }
}

int bq_aimet_inputs(bq_aimet_text *t) {
    const bq_qsource *source = &t->job->source;
    json_t *seen = json_object();
    int count = 0, block = 0;
    for (int i = 0; i < t->job->items; i++) {
        const bq_export_item *item = &t->job->item[i];
        if (item->quantized && item->q.inputs.element) put_item(t, item, seen, &count);
    }
    for (int i = 0; i < t->job->items && source->cache; i++) {
        const float *scale;
        if (source->cache(source->ctx, t->job->item[i].name, &scale)) put_cache(t, block++, scale, &count);
    }
    json_decref(seen);
    return count;
}
