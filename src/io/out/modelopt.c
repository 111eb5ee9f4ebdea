/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA ModelOpt, as TensorRT-LLM, vLLM and SGLang read it.  All linears have one scheme:
 *
 *   W4A16_NVFP4               weight U8 (two codes a byte), weight_scale F8_E4M3 (rows, cols / 16),
 *                             weight_scale_2 F32 (): the number by which scales are multiplied
 *   FP8_PER_CHANNEL_PER_TOKEN weight F8_E4M3, weight_scale F32 (rows); inputs are FP8, too, a scale a token
 *   FP8_PB_WO                 weight F8_E4M3, weight_scale F32 (tiles, 1, tiles, 1) of 128 x 128
 *   FP8                       weight F8_E4M3, weight_scale F32 (), input_scale F32 ()
 *   NVFP4                     as W4A16_NVFP4, and input_scale F32 (): the number by which scales of groups
 *                             of inputs are multiplied */
#include "io/out/floats.h"

#include "base/die.h"

#include <string.h>

#define WEIGHT ".weight"

enum { AS_IS, CODES, SCALES, SMALL, OUTER };

typedef struct {
    const char *name;
    int element;
    bq_type scale; /* BQ_F32 stands for BQ_BF16 and BQ_F16, too */
    int64_t group, rows;
    bq_rounding inputs;
    bool fixed;
} algorithm;

static const algorithm algorithms[] = {
    {"W4A16_NVFP4", BQ_E2M1, BQ_F8_E4M3, 16, 1, {0}, false},
    {"FP8_PER_CHANNEL_PER_TOKEN", BQ_E4M3, BQ_F32, -1, 1, {BQ_E4M3, true, .group = -1}, false},
    {"FP8_PB_WO", BQ_E4M3, BQ_F32, 128, 128, {0}, false},
    {"FP8", BQ_E4M3, BQ_F32, -1, -1, {BQ_E4M3, true, true, .group = -1}, true},
    {"NVFP4", BQ_E2M1, BQ_F8_E4M3, 16, 1, {BQ_E2M1, true, .group = 16, .scale = BQ_F8_E4M3}, true},
};

static const algorithm *algorithm_of(const bq_qtensor *q) {
    const bq_scheme s = q->scheme;
    bq_type scale = bq_scheme_small(s) ? s.scale : BQ_F32;
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++) {
        const algorithm *a = &algorithms[i];
        if (a->element == s.element && bq_rounding_equal(a->inputs, q->inputs) && a->fixed == q->fixed &&
            a->scale == scale && a->group == s.group && a->rows == (bq_scheme_tiled(s) ? s.rows : 1))
            return a;
    }
    return NULL;
}

/* That of the quantized items. */
static const algorithm *of_job(const bq_export_job *job) {
    int i = 0;
    while (!job->item[i].quantized) i++;
    return algorithm_of(&job->item[i].q);
}

static int check(const bq_export_job *job, const bq_export_item *item) {
    if (!bq_export_is_linear(item))
        return bq_export_refuse(item, " is not the weight of a linear: modelopt cannot hold it quantized");
    if (item->q.pre.rows)
        return bq_export_refuse(item, ": its inputs are multiplied by factors of their own (smoothquant "
                                      "without fuse): modelopt has no place for these, write safetensors");
    if (!algorithm_of(&item->q))
        return bq_export_refuse(
            item,
            " is %s in groups of %ld: modelopt is written for bits e2m1 with group 16 "
            "and scale e4m3, and for bits e4m3 with group 128 and rows 128, or with "
            "activations e4m3, which a token has a scale of; with rows -1 they are measured "
            "per tensor: write compressed-tensors",
            bq_element_name(item->q.scheme.element), (long)item->q.scheme.group);
    if (of_job(job) != algorithm_of(&item->q))
        return bq_export_refuse(item, " has another scheme than linears before it: modelopt is written with "
                                      "one for all, write compressed-tensors");
    return bq_float_check(item);
}

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    const bq_qtensor *q = &it->q;
    int64_t rows = q->code.rows, cols = q->code.cols, tiles = bq_float_scale_rows(q), groups = q->scale.cols;
    size_t cut = strlen(WEIGHT);
    bool fused = strstr(it->name, ".qkv_proj.");
    bq_export_plan_cache(job, item, fused ? "qkv_proj.k_scale" : "k_proj.k_scale",
                         fused ? "qkv_proj.v_scale" : "v_proj.v_scale");
    if (!it->quantized) {
        bq_export_add(job, item, AS_IS, 0, "", it->t->dtype, it->t->dims, it->t->shape);
        return BQ_OK;
    }
    int rc = check(job, it);
    if (rc) return rc;
    bool small = q->scheme.scale == BQ_F8_E4M3, tensor = q->scheme.rows < 0,
         tiled = bq_scheme_tiled(q->scheme) && !tensor;
    bq_export_plan_inputs(job, item, 0, ".input_scale", BQ_EXPORT_INPUT_STEP);
    bq_export_add(job, item, CODES, 0, "", small ? "U8" : "F8_E4M3", 2,
                  (int64_t[]){rows, bq_float_row_bytes(cols, bq_code_bits(q->scheme))});
    if (small) {
        bq_export_add(job, item, SMALL, cut, ".weight_scale", "F8_E4M3", 2, (int64_t[]){rows, groups});
        bq_export_add(job, item, OUTER, cut, ".weight_scale_2", "F32", 0, NULL);
    } else if (tiled) {
        bq_export_add(job, item, SCALES, cut, ".weight_scale", "F32", 4, (int64_t[]){tiles, 1, groups, 1});
    } else {
        bq_export_add(job, item, SCALES, cut, ".weight_scale", "F32", !tensor, &rows);
    }
    return BQ_OK;
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    switch (out->part) {
    case AS_IS: bq_export_put_raw(job, job->item[out->item].t, w); break;
    case CODES: bq_float_put_codes(job, q, w); break;
    case SCALES: bq_float_put_scales(q, w); break;
    case SMALL: bq_float_put_small(job, q, w); break;
    case BQ_EXPORT_KEYS:
    case BQ_EXPORT_VALUES: bq_export_put_cache(job, out, w); break;
    case BQ_EXPORT_INPUT_SCALE:
    case BQ_EXPORT_INPUT_STEP: bq_export_put_inputs(job, out, w); break;
    case OUTER: bq_writer_put(w, &(float){bq_outer_times(q->scheme)}, sizeof(float)); break;
    }
}

/* Loaders find in config.json what ModelOpt itself writes to hf_quant_config.json. */
static void edit(const bq_export_job *job, json_t *config) {
    const algorithm *a = of_job(job);
    json_t *q = json_pack("{s:s, s:s, s:o, s:o, s:{s:s}}", "quant_method", "modelopt", "quant_algo", a->name,
                          "kv_cache_scheme", bq_export_cache_scheme(job), "ignore", bq_export_kept(job),
                          "producer", "name", "blockq");
    BQ_CHECK(q && json_object_set_new(config, "quantization_config", q) == 0,
             "no memory for a configuration");
    if (a->group > 0) json_object_set_new(q, "group_size", json_integer(a->group));
}

static bool caches(const bq_export_job *job) {
    return job->source.heads == 1 && job->source.cached.element == BQ_E4M3;
}

const bq_format bq_format_modelopt = {
    .name = "modelopt",
    .help = "NVFP4 weights (W4A16) and FP8, as TensorRT-LLM, vLLM and SGLang read NVIDIA's ModelOpt.",
    .loads = BQ_LOADS_VLLM "- SGLang: `python -m sglang.launch_server --model-path MODEL`\n",
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .quantized = true,
    .cache = caches,
};
