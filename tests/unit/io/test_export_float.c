/* SPDX-License-Identifier: Apache-2.0 */
/* Floats and integers as compressed-tensors itself stores them: from a weight to every byte of the file and
 * to config.json, by blockq's own ops; and the same results as ModelOpt has them. */
#include "halves.h"

#include "kernels/ops.h"

#define MODULE "model.layers.0.self_attn.q_proj"

typedef struct {
    const char *name;
    bq_scheme scheme;
    int activations;
    int64_t rows, cols;
    const char *parts; /* of its file */
} peer_case;

#define FLOAT(element, group, scale, rows)                                                                   \
    { element, group, true, scale, BQ_GRID_ABSMAX, rows, 0 }
#define INT(bits, group, symmetric)                                                                          \
    { bits, group, symmetric, BQ_F32, BQ_GRID_ABSMAX, 1, 0 }
static const peer_case cases[] = {
    {"fp8_channel", FLOAT(BQ_E4M3, -1, BQ_F32, 1), BQ_E4M3, 20, 64, "weight weight_scale"},
    {"fp8_tensor", FLOAT(BQ_E4M3, -1, BQ_F32, -1), 0, 20, 64, "weight weight_scale"},
    {"fp8_block", FLOAT(BQ_E4M3, 32, BQ_F32, 16), 0, 40, 96, "weight weight_scale"},
    {"nvfp4a16", FLOAT(BQ_E2M1, 16, BQ_F8_E4M3, 1), 0, 20, 96,
     "weight_packed weight_scale weight_global_scale"},
    {"mxfp4", FLOAT(BQ_E2M1, 32, BQ_F8_E8M0, 1), 0, 20, 96, "weight_packed weight_scale"},
    {"mxfp6", FLOAT(BQ_E2M3, 32, BQ_F8_E8M0, 1), 0, 20, 96, "weight_packed weight_scale"},
    {"mxfp8", FLOAT(BQ_E4M3, 32, BQ_F8_E8M0, 1), 0, 20, 96, "weight weight_scale"},
    {"int8_channel", INT(8, -1, true), 8, 20, 64, "weight weight_scale"},
    {"int4_g32", INT(4, 32, true), 0, 20, 96, "weight_packed weight_scale weight_shape"},
};
enum { CASES = sizeof cases / sizeof *cases, MOST = 40 * 96 };

static bq_dev dev;

typedef struct {
    const peer_case *c;
    float w[MOST], scale[MOST], what[MOST];
    int8_t code[MOST];
} result;

/* What the pass rtn does, for one linear. */
static void quantize(result *r, bq_scheme *s) {
    int64_t group = s->group > 0 ? s->group : r->c->cols, groups = r->c->cols / group;
    bq_mat w = bq_mat_host(r->w, r->c->rows * groups, group, BQ_F32),
           scale = bq_mat_host(r->scale, w.rows, 1, BQ_F32),
           code = bq_mat_host(r->code, w.rows, group, BQ_I8);
    float most = 0;
    for (int64_t i = 0; i < r->c->rows * r->c->cols; i++) most = fmaxf(most, fabsf(r->w[i]));
    if (s->scale == BQ_F8_E4M3) s->outer = 448 * 6 / most;
    dev.op->range(&dev, w, *s, scale, (bq_mat){0});
    if (bq_scheme_tiled(*s)) dev.op->share_scales(&dev, bq_mat_reshape(scale, groups), *s);
    dev.op->quantize(&dev, w, scale, (bq_mat){0}, *s, code);
    dev.op->dequantize(&dev, code, scale, (bq_mat){0}, *s, bq_mat_host(r->what, w.rows, group, BQ_F32));
}

static bool get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    result *r = ctx;
    if (strcmp(name, MODULE ".weight") != 0) return false;
    bq_scheme s = r->c->scheme;
    if (want_data) quantize(r, &s);
    int64_t groups = s.group > 0 ? r->c->cols / s.group : 1;
    *q = (bq_qtensor){.scheme = s,
                      .inputs =
                          r->c->activations ? bq_rounding_of_tokens(r->c->activations) : (bq_rounding){0},
                      .code = bq_mat_host(want_data ? r->code : NULL, r->c->rows, r->c->cols, BQ_I8),
                      .scale = bq_mat_host(want_data ? r->scale : NULL, r->c->rows, groups, BQ_F32),
                      .zero = bq_mat_host(NULL, 0, groups, BQ_F32)};
    return true;
}

/* A model of one linear with the case's weight, and its export in a format; the caller frees r. */
static result *export_case(const peer_case *c, const char *format, bq_weights *golden, char out[512]) {
    char key[100], src[512];
    result *r = calloc(1, sizeof *r);
    const bq_tensor *t;
    bq_weights *w;
    assert_non_null(r);
    r->c = c;
    snprintf(key, sizeof key, "%s/weight", c->name);
    float *weight = load(golden, key, &t);
    memcpy(r->w, weight, (size_t)(c->rows * c->cols) * 4);
    free(weight);
    snprintf(src, sizeof src, "%s", temp_path("source"));
    snprintf(out, 512, "%s", temp_path(format));
    assert_int_equal(bq_dir_make(src), 0);
    text_in(src, "config.json", "{}");
    bq_writer *to = bq_writer_plan();
    bq_writer_add(to, MODULE ".weight", "F32", 2, (int64_t[]){c->rows, c->cols});
    bq_writer_open(to, in(src, "model.safetensors"));
    bq_writer_put(to, r->w, (size_t)(c->rows * c->cols) * 4);
    bq_writer_close(to);
    assert_int_equal(bq_weights_open(&w, src), BQ_OK);
    assert_int_equal(export_as(format, w, out, (bq_qsource){.ctx = r, .get = get}, TOY_SHARD, 1), BQ_OK);
    bq_weights_close(w);
    return r;
}

static void every_byte_is_the_peers(void **state) {
    (void)state;
    bq_weights *golden, *w;
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_ct_float.safetensors"), BQ_OK);
    for (int i = 0; i < CASES; i++) {
        char out[512], key[100], parts[100], *more = NULL;
        result *r = export_case(&cases[i], "compressed-tensors", golden, out);
        assert_int_equal(stored_open(&w, out), BQ_OK);
        snprintf(parts, sizeof parts, "%s", cases[i].parts);
        for (char *part = strtok_r(parts, " ", &more); part; part = strtok_r(NULL, " ", &more)) {
            const bq_tensor *a, *b;
            snprintf(key, sizeof key, MODULE ".%s", part);
            char *have = load(w, key, &a);
            snprintf(key, sizeof key, "%s/file/lin.%s", cases[i].name, part);
            char *want = load(golden, key, &b);
            assert_int_equal(a->bytes, b->bytes);
            if (memcmp(have, want, a->bytes) != 0) fail_msg("%s: %s differs", cases[i].name, part);
            assert_int_equal(a->dims, b->dims);
            free(have);
            free(want);
        }
        bq_weights_close(w);
        free(r);
    }
    bq_weights_close(golden);
}

/* Of its weights' arguments config.json says what the peer's says. */
static void configurations_are_the_peers(void **state) {
    (void)state;
    bq_weights *golden;
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_ct_float.safetensors"), BQ_OK);
    for (int i = 0; i < CASES; i++) {
        char out[512], key[100];
        result *r = export_case(&cases[i], "compressed-tensors", golden, out);
        json_t *have = json_load_file(in(out, "config.json"), 0, NULL);
        snprintf(key, sizeof key, "config/%s", cases[i].name);
        json_t *want = json_loads(bq_weights_metadata(golden, key), 0, NULL), *a, *b;
        json_t *mine = json_object_get(json_object_get(have, "quantization_config"), "config_groups");
        json_t *theirs = json_object_get(json_object_get(want, "quantization_config"), "config_groups");
        mine = json_object_get(mine, "group_0"), theirs = json_object_get(theirs, "group_0");
        a = json_object_get(mine, "weights"), b = json_object_get(theirs, "weights");
        if (!json_equal(a, b)) fail_msg("%s: weights differ", cases[i].name);
        assert_true(json_equal(json_object_get(mine, "format"), json_object_get(theirs, "format")));
        a = json_object_get(mine, "input_activations"), b = json_object_get(theirs, "input_activations");
        if (cases[i].activations && !json_equal(a, b)) fail_msg("%s: inputs differ", cases[i].name);
        json_decref(have);
        json_decref(want);
        free(r);
    }
    bq_weights_close(golden);
}

/* The values of ModelOpt's tensors, by the rules of that package. */
static void modelopt_has_the_values(void **state) {
    (void)state;
    static const peer_case own[] = {
        {"nvfp4a16", FLOAT(BQ_E2M1, 16, BQ_F8_E4M3, 1), 0, 20, 96, NULL},
        {"fp8_channel", FLOAT(BQ_E4M3, -1, BQ_BF16, 1), BQ_E4M3, 20, 64, NULL},
    };
    static const float fp4[] = {0, .5f, 1, 1.5f, 2, 3, 4, 6};
    bq_weights *golden, *w;
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_ct_float.safetensors"), BQ_OK);
    for (int i = 0; i < 2; i++) {
        char out[512];
        const bq_tensor *t;
        result *r = export_case(&own[i], "modelopt", golden, out);
        assert_int_equal(stored_open(&w, out), BQ_OK);
        uint8_t *code = load(w, MODULE ".weight", &t), *small = NULL;
        assert_string_equal(t->dtype, i ? "F8_E4M3" : "U8");
        float *scale = load(w, MODULE ".weight_scale", &t), *outer = NULL;
        assert_int_equal(t->dims, i ? 1 : 2);
        if (!i) small = (uint8_t *)scale, outer = load(w, MODULE ".weight_scale_2", &t);
        for (int k = 0; k < own[i].rows * own[i].cols; k++) {
            int row = k / (int)own[i].cols, nibble = code[k / 2] >> (4 * (k % 2)) & 15;
            float have = i ? bq_from_e4m3(code[k]) * scale[row]
                           : fp4[nibble & 7] * (nibble & 8 ? -1 : 1) * (bq_from_e4m3(small[k / 16]) * *outer);
            assert_true(fabsf(have - r->what[k]) <= 3e-7f * fabsf(r->what[k]));
        }
        json_t *config = json_load_file(in(out, "config.json"), 0, NULL),
               *q = json_object_get(config, "quantization_config");
        assert_string_equal(json_string_value(json_object_get(q, "quant_algo")),
                            i ? "FP8_PER_CHANNEL_PER_TOKEN" : "W4A16_NVFP4");
        json_decref(config);
        free(code), free(scale), free(outer);
        bq_weights_close(w);
        free(r);
    }
    bq_weights_close(golden);
}

/* q_proj has scales of F32, k_proj powers of two; else their schemes are the same. */
static bool get_two(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    static const bq_scheme scheme[] = {FLOAT(BQ_E4M3, 32, BQ_F32, 1), FLOAT(BQ_E4M3, 32, BQ_F8_E8M0, 1)};
    static float scale[4] = {1, 1, 1, 1};
    static int8_t code[2 * 64];
    (void)ctx, (void)want_data;
    *q = (bq_qtensor){.scheme = scheme[strstr(name, "k_proj") != NULL],
                      .code = bq_mat_host(code, 2, 64, BQ_I8),
                      .scale = bq_mat_host(scale, 2, 2, BQ_F32)};
    return true;
}

static void types_of_scales_make_groups(void **state) {
    (void)state;
    char src[512], out[512];
    bq_weights *w;
    snprintf(src, sizeof src, "%s", temp_path("two"));
    snprintf(out, sizeof out, "%s", temp_path("two_out"));
    assert_int_equal(bq_dir_make(src), 0);
    text_in(src, "config.json", "{}");
    bq_writer *to = bq_writer_plan();
    bq_writer_add(to, "model.layers.0.self_attn.k_proj.weight", "F32", 2, (int64_t[]){2, 64});
    bq_writer_add(to, MODULE ".weight", "F32", 2, (int64_t[]){2, 64});
    bq_writer_open(to, in(src, "model.safetensors"));
    for (int i = 0; i < 2; i++) bq_writer_put(to, (float[2 * 64]){0}, 2 * 64 * 4);
    bq_writer_close(to);
    assert_int_equal(bq_weights_open(&w, src), BQ_OK);
    assert_int_equal(
        export_as("compressed-tensors", w, out, (bq_qsource){.ctx = NULL, .get = get_two}, TOY_SHARD, 1),
        BQ_OK);
    bq_weights_close(w);
    json_t *config = json_load_file(in(out, "config.json"), 0, NULL),
           *q = json_object_get(config, "quantization_config"), *groups = json_object_get(q, "config_groups");
    const char *format[2] = {"mxfp8-quantized", "float-quantized"};
    assert_string_equal(json_string_value(json_object_get(q, "format")), "mixed-precision");
    assert_int_equal(json_object_size(groups), 2);
    for (int i = 0; i < 2; i++) {
        const json_t *group = json_object_get(groups, i ? "group_1" : "group_0");
        assert_string_equal(json_string_value(json_object_get(group, "format")), format[i]);
    }
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_of_scales_make_groups),
        cmocka_unit_test(every_byte_is_the_peers),
        cmocka_unit_test(configurations_are_the_peers),
        cmocka_unit_test(modelopt_has_the_values),
    };
    if (bq_dev_open(&dev, "cpu", 1, 0)) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
