/* SPDX-License-Identifier: Apache-2.0 */
/* What several formats of quantized linears share: refusals, scales of F16, names for config.json. */
#include "base/die.h"
#include "base/num.h"
#include "io/out/format.h"

#include <string.h>

int bq_export_linear_only(const bq_export_item *item, const char *format) {
    if (!bq_export_is_linear(item))
        return bq_export_refuse(item,
                                " is not the weight of a linear: %s cannot hold it quantized: write "
                                "safetensors or gguf, or set bits.embedding.bits=16",
                                format);
    if (item->q.pre.rows)
        return bq_export_refuse(item,
                                ": its inputs are multiplied by factors of their own (smoothquant "
                                "without fuse): %s has no place for these, write safetensors",
                                format);
    return BQ_OK;
}

int bq_export_weights_only(const bq_export_item *item, const char *format) {
    int code = bq_export_linear_only(item, format);
    if (code || !item->q.inputs.element) return code;
    return bq_export_refuse(item,
                            ": its inputs are rounded to %s, which %s cannot say: write "
                            "compressed-tensors, or set bits.activations=16",
                            bq_rounding_name(item->q.inputs), format);
}

int bq_export_f16_scales(const bq_export_item *item, const char *format) {
    if (item->q.scheme.scale == BQ_F16) return BQ_OK;
    return bq_export_refuse(item,
                            " has scales of another type than f16, the only one that %s has: set "
                            "bits.%s.scale=f16, or scale where bits.auto.schemes or the file of "
                            "bits.schemes has it, or write compressed-tensors",
                            format, strcmp(item->name, "lm_head.weight") == 0 ? "lm_head" : "decoder");
}

void *bq_export_room(const bq_export_job *job, int64_t count, size_t size) {
    BQ_CHECK((size_t)count <= BQ_EXPORT_BUFFER / size, "export: a row of %lld values", (long long)count);
    return job->buffer;
}

void bq_export_plan_cache(bq_export_job *job, int item, const char *keys, const char *values) {
    const char *name = job->item[item].name, *end = strstr(name, "qkv_proj.weight");
    const int64_t heads = job->source.heads, shape[] = {heads, 1, 1};
    if (!heads || !job->source.cache || !job->source.cache(job->source.ctx, name, NULL)) return;
    size_t cut = strlen(end ? end : "k_proj.weight");
    bq_export_add(job, item, BQ_EXPORT_KEYS, cut, keys, "F32", heads > 1 ? 3 : 1, shape);
    bq_export_add(job, item, BQ_EXPORT_VALUES, cut, values, "F32", heads > 1 ? 3 : 1, shape);
}

void bq_export_put_cache(const bq_export_job *job, const bq_export_out *out, bq_writer *w) {
    const float *scale = NULL;
    const int64_t heads = job->source.heads;
    job->source.cache(job->source.ctx, job->item[out->item].name, &scale);
    bq_writer_put(w, scale + (out->part == BQ_EXPORT_VALUES ? heads : 0), (size_t)heads * sizeof *scale);
}

bq_ends_grid bq_export_grid(const bq_export_job *job, const bq_export_item *item) {
    BQ_CHECK(job->source.grid, "export: nobody has measured the inputs of '%s'", item->name);
    return job->source.grid(job->source.ctx, item->name);
}

void bq_export_plan_inputs(bq_export_job *job, int item, int dims, const char *factor, int part) {
    const bq_qtensor *q = &job->item[item].q;
    const int64_t one[] = {1};
    const size_t cut = strlen(".weight");
    if (!q->fixed) return;
    if (!q->inputs.whole) bq_export_add(job, item, part, cut, factor, "F32", dims, one);
    if (q->inputs.whole)
        bq_export_add(job, item, BQ_EXPORT_INPUT_SCALE, cut, ".input_scale", "F32", dims, one);
    if (q->inputs.whole && !q->inputs.even)
        bq_export_add(job, item, BQ_EXPORT_INPUT_ZERO, cut, ".input_zero_point", "I8", dims, one);
}

void bq_export_put_inputs(const bq_export_job *job, const bq_export_out *out, bq_writer *w) {
    const bq_ends_grid grid = bq_export_grid(job, &job->item[out->item]);
    const float one = out->part == BQ_EXPORT_INPUT_STEP ? 1 / grid.scale : grid.scale;
    const int8_t zero = (int8_t)grid.zero;
    if (out->part == BQ_EXPORT_INPUT_ZERO)
        bq_writer_put(w, &zero, 1);
    else
        bq_writer_put(w, &one, sizeof one);
}

void bq_export_put_f16(bq_export_job *job, bq_mat scale, bq_writer *w) {
    uint16_t *row = bq_export_room(job, scale.rows, 2);
    for (int64_t g = 0; g < scale.cols; g++) {
        for (int64_t n = 0; n < scale.rows; n++) {
            float x = *(const float *)bq_mat_at(scale, n, g);
            row[n] = bq_to_f16(x);
            BQ_CHECK(bq_from_f16(row[n]) == x, "export: the scale %.9g is no f16 value", (double)x);
        }
        bq_writer_put(w, row, (size_t)scale.rows * 2);
    }
}

json_t *bq_export_module(const bq_export_item *item) {
    static const char weight[] = ".weight";
    return json_stringn(item->name, strlen(item->name) - (sizeof weight - 1));
}

json_t *bq_export_kept(const bq_export_job *job) {
    json_t *list = json_array();
    bool head = false;
    for (int i = 0; i < job->items; i++) {
        const bq_export_item *item = &job->item[i];
        head = head || strcmp(item->name, "lm_head.weight") == 0;
        if (bq_export_is_linear(item) && !item->quantized)
            json_array_append_new(list, bq_export_module(item));
    }
    if (!head) json_array_append_new(list, json_string("lm_head"));
    return list;
}

void bq_qtensor_values(const bq_qtensor *q, int64_t r, int64_t first, int64_t count, float *to) {
    const bq_element e = bq_element_of(q->scheme.element);
    int64_t group = q->scheme.group > 0 ? q->scheme.group : q->code.cols;
    const int8_t *code = bq_mat_at(q->code, r, 0);
    const float *scale = bq_mat_at(q->scale, r, 0);
    const float *zero = q->zero.rows ? bq_mat_at(q->zero, r, 0) : NULL;
    const float *pre = q->pre.rows ? q->pre.data : NULL;
    const bool offset = bq_scheme_offset(q->scheme);
    for (int64_t c = first; c < first + count; c++) {
        const float x = bq_element_value(e, code[c]), z = zero ? zero[c / group] : 0, by = scale[c / group];
        to[c - first] = (offset ? x * by + z : (x - z) * by) * (pre ? pre[c] : 1);
    }
}
