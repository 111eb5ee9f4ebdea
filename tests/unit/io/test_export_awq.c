/* SPDX-License-Identifier: Apache-2.0 */
/* The format awq: the word that AutoAWQ makes of 0 ... 7; codes of auto-round, whose weights AWQ's rule gives
 * back; whole directories, read back field by field; what is refused. */
#include "halves.h"

enum { ROWS = 64, COLS = 96, PARTS = 3 };

/* A field of the words that hold n = 0, 1, ...: bit by bit, by AutoAWQ's order to unpack. */
static int field(const int32_t *words, int64_t n) {
    static const int place[] = {0, 4, 1, 5, 2, 6, 3, 7};
    int value = 0;
    for (int i = 0; i < 4; i++) value |= (int)((uint32_t)words[n / 8] >> (4 * place[n % 8] + i) & 1) << i;
    return value;
}

/* ---- auto-round's codes ---- */

typedef struct {
    int8_t code[ROWS * COLS];
    float scale[ROWS * PARTS], zero[ROWS * PARTS];
    bool symmetric;
} peer;

static bool peer_get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    peer *p = ctx;
    if (!strstr(name, "up_proj")) return false;
    *q =
        (bq_qtensor){.scheme = {4, 32, p->symmetric, BQ_F16, BQ_GRID_AIMET, 1, 0},
                     .code = bq_mat_host(want_data ? p->code : NULL, ROWS, COLS, BQ_I8),
                     .scale = bq_mat_host(want_data ? p->scale : NULL, ROWS, PARTS, BQ_F32),
                     .zero = bq_mat_host(want_data ? p->zero : NULL, p->symmetric ? 0 : ROWS, PARTS, BQ_F32)};
    return true;
}

static void *peer_load(const bq_weights *w, const char *stem, const char *part) {
    char key[100];
    const bq_tensor *t;
    snprintf(key, sizeof key, "%s/%s", stem, part);
    return load(w, key, &t);
}

/* The values that the written tensors stand for are those of the peer's own layer, which is of F16. */
static void peer_values(const char *stem, bool symmetric) {
    static peer p;
    bq_weights *golden, *w;
    const char *dir = temp_path("peer"), *name = "model.layers.0.mlp.up_proj.weight";
    char out[512];
    snprintf(out, sizeof out, "%s", temp_path("peer_awq"));
    assert_int_equal(bq_dir_make(dir), 0);
    st_save(in(dir, "model.safetensors"),
            "{\"model.layers.0.mlp.up_proj.weight\":{\"dtype\":\"I8\",\"shape\":[64,96],\"data_offsets\":[0,"
            "6144]}}",
            ROWS * COLS);
    text_in(dir, "config.json", "{}");
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_pack.safetensors"), BQ_OK);
    uint8_t *q = peer_load(golden, stem, "q"), *z = peer_load(golden, stem, "z");
    uint16_t *scales = peer_load(golden, stem, "scales"), *dequant = peer_load(golden, stem, "dequant_t");
    p.symmetric = symmetric;
    for (int k = 0; k < ROWS * COLS; k++) p.code[k] = (int8_t)(q[k] - 8);
    for (int k = 0; k < ROWS * PARTS; k++) {
        p.zero[k] = (float)z[k] - 8;
        p.scale[k % ROWS * PARTS + k / ROWS] = bq_from_f16(scales[k]);
    }
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    assert_int_equal(export_as("awq", w, out, (bq_qsource){.ctx = &p, .get = peer_get}, TOY_SHARD, 1), BQ_OK);
    bq_weights_close(w);
    assert_int_equal(stored_open(&w, out), BQ_OK);
    int32_t *code = part_of(w, name, "qweight", "I32", COLS, ROWS / 8);
    int32_t *zero = part_of(w, name, "qzeros", "I32", PARTS, ROWS / 8);
    uint16_t *scale = part_of(w, name, "scales", "F16", PARTS, ROWS);
    assert_memory_equal(scale, scales, 2 * ROWS * PARTS);
    for (int64_t k = 0; k < COLS; k++) {
        for (int64_t n = 0; n < ROWS; n++) {
            int64_t g = k / 32;
            int c = field(code + k * (ROWS / 8), n) - field(zero + g * (ROWS / 8), n);
            float have = (float)c * bq_from_f16(scale[g * ROWS + n]),
                  want = bq_from_f16(dequant[k * ROWS + n]);
            assert_int_equal(field(code + k * (ROWS / 8), n), q[n * COLS + k]);
            assert_true(bq_to_f16(have) == bq_to_f16(want));
        }
    }
    void *all[] = {q, z, scales, dequant, code, zero, scale};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    bq_weights_close(w);
    bq_weights_close(golden);
}

static void peers(void **state) {
    (void)state;
    peer_values("gptq4_sym_64x96_g32", true);
    peer_values("gptq4_asym_64x96_g32", false);
}

/* ---- directories ---- */

static void check_linear(const bq_weights *w, const char *name, const toy *t, const bq_qtensor *q) {
    int64_t rows = q->code.rows, cols = q->code.cols, groups = q->scale.cols;
    int32_t *code = part_of(w, name, "qweight", "I32", cols, rows / 8);
    int32_t *zero = part_of(w, name, "qzeros", "I32", groups, rows / 8);
    uint16_t *scale = part_of(w, name, "scales", "F16", groups, rows);
    for (int64_t n = 0; n < rows; n++) {
        for (int64_t k = 0; k < cols; k++)
            assert_int_equal(field(code + k * (rows / 8), n) - 8, t->code[n * cols + k]);
        for (int64_t g = 0; g < groups; g++) {
            int want = q->zero.rows ? (int)t->zero[n * groups + g] : 0;
            assert_int_equal(field(zero + g * (rows / 8), n) - 8, want);
            assert_true(bq_from_f16(scale[g * rows + n]) == t->scale[n * groups + g]);
        }
    }
    free(code);
    free(zero);
    free(scale);
}

/* Everything in out is as the rules say; how many tensors are not quantized. */
static int check_awq(const char *out, const toy_rule *rule) {
    bq_weights *w, *from;
    assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
    assert_int_equal(stored_open(&w, out), BQ_OK);
    toy t = {.src = from, .rule = rule};
    int plain = 0, linears = 0;
    for (int i = 0; i < bq_weights_count(from); i++) {
        const bq_tensor *b = bq_weights_at(from, i), *a = bq_weights_find(w, b->name);
        bq_qtensor q;
        if (half_get(&t, b->name, true, &q)) {
            assert_null(a);
            check_linear(w, b->name, &t, &q);
            linears++;
        } else {
            assert_non_null(a);
            assert_string_equal(a->dtype, toy_dense(&t, b->name, 0, (bq_mat){0}) ? "F32" : b->dtype);
            plain++;
        }
    }
    assert_int_equal(plain + 3 * linears, bq_weights_count(w));
    toy_free(&t);
    bq_weights_close(w);
    bq_weights_close(from);
    return plain;
}

static void check_config(const char *out, const char *group, const char *kept_as_floats) {
    char want[1000];
    json_t *config = config_of(out), *from = config_of(src_dir);
    snprintf(
        want, sizeof want,
        "{\"quant_method\":\"awq\",\"zero_point\":true,\"group_size\":%s,\"bits\":4,\"version\":\"gemm\","
        "\"modules_to_not_convert\":%s}",
        group, kept_as_floats);
    same_json(json_object_get(config, "quantization_config"), want);
    json_object_del(config, "quantization_config");
    assert_true(json_equal(config, from));
    json_decref(config);
    json_decref(from);
}

static const toy_rule a4g8[] = {{"lm_head", 0, 0}, {"_proj.weight", -4, 8}, {NULL, 0, 0}};
static const toy_rule s4g16[] = {{"lm_head", 0, 0}, {"_proj.weight", 4, 16}, {NULL, 0, 0}};
static const toy_rule a4[] = {{"lm_head", 0, 0}, {"_proj.weight", -4, 0}, {NULL, 0, 0}};

static void directories(void **state) {
    (void)state;
    static const toy_rule *const rules[] = {a4g8, s4g16, a4, w4};
    static const char *const group[] = {"8", "16", "-1", "-1"};
    char one[512], many[512];
    snprintf(one, sizeof one, "%s", temp_path("one"));
    snprintf(many, sizeof many, "%s", temp_path("many"));
    make_source("model_llama_llama3", "BF16");
    for (int i = 0; i < 4; i++) {
        int gets;
        assert_int_equal(export_half("awq", one, rules[i], TOY_SHARD, 1, &gets), BQ_OK);
        assert_int_equal(gets, 28); /* codes and zero points; behind all that is wider, scales */
        assert_int_equal(check_awq(one, rules[i]), 6);
        check_config(one, group[i], "null");
        for (int parts = 1; parts <= 4; parts += 3) {
            assert_int_equal(export_half("awq", many, rules[i], 12000, parts, NULL), BQ_OK);
            assert_int_equal(check_awq(many, rules[i]), 6);
            assert_same_file(in(one, "config.json"), in(many, "config.json"));
        }
    }
    make_source("model_phi3_short", "F32");
    assert_int_equal(export_half("awq", one, a4g8, TOY_SHARD, 1, NULL), BQ_OK);
    assert_int_equal(check_awq(one, a4g8), 7);
    check_config(one, "8", "null");
    make_source("model_qwen2", "F32"); /* biases */
    assert_int_equal(export_half("awq", one, a4g8, TOY_SHARD, 1, NULL), BQ_OK);
    check_awq(one, a4g8);
    static const toy_rule dense_only[] = {
        {"lm_head", 0, 0}, {"experts", 0, 0}, {"_proj.weight", -4, 8}, {NULL, 0, 0}};
    make_source("model_qwen3_moe", "F32"); /* experts of 36 rows, which words do not hold */
    assert_int_equal(export_half("awq", one, dense_only, TOY_SHARD, 1, NULL), BQ_OK);
    check_awq(one, dense_only);
    json_t *config = config_of(one),
           *list = json_object_get(json_object_get(config, "quantization_config"), "modules_to_not_convert");
    assert_string_equal(json_string_value(json_array_get(list, 0)), "model.layers.0.mlp.experts.0.down_proj");
    assert_int_equal(json_array_size(list), 13); /* the router, too */
    json_decref(config);
}

/* Linears that stay floats are named. */
static void kept_floats(void **state) {
    (void)state;
    static const toy_rule rules[] = {
        {"lm_head", 0, 0}, {"1.self_attn.k_proj", 0, 0}, {"_proj.weight", 4, 8}, {NULL, 0, 0}};
    make_source("model_llama_llama3", "F32");
    assert_int_equal(export_half("awq", temp_path("kept"), rules, 20000, 2, NULL), BQ_OK);
    assert_int_equal(check_awq(temp_path("kept"), rules), 7);
    check_config(temp_path("kept"), "8", "[\"model.layers.1.self_attn.k_proj\"]");
}

/* AutoAWQ's word of 0 ... 7 is 0x75316420. */
static void order(void **state) {
    (void)state;
    int32_t word = 0x75316420;
    for (int n = 0; n < 8; n++) assert_int_equal(field(&word, n), n);
}

/* ---- refusals ---- */

static int wrong(bq_qtensor q) {
    q.scheme.scale = BQ_F16;
    return export_wrong("awq", q);
}

static void refusals(void **state) {
    (void)state;
    make_source("model_llama_llama3", "F32"); /* down_proj is (48, 112) */
    bq_mat code = bq_mat_host(NULL, 48, 112, BQ_I8), one = bq_mat_host(NULL, 48, 1, BQ_F32),
           pre = bq_mat_host(NULL, 1, 112, BQ_F32);
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(3, -1, true)}),
                   "down_proj.weight' is of int3, awq has int4");
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(8, -1, true)}),
                   "is of int8, awq has int4");
    assert_refused(export_wrong("awq", (bq_qtensor){.code = code, .scale = one, W(4, -1, true)}),
                   "set bits.decoder.scale=f16");
    assert_refused(
        wrong((bq_qtensor){.code = code, .scale = one, W(8, -1, true), .inputs = bq_rounding_of_tokens(8)}),
        "rounded to int8, which awq cannot say");
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(4, -1, true), .pre = pre}),
                   "awq has no place for these");
    assert_refused(
        wrong((bq_qtensor){.code = code, .scale = bq_mat_host(NULL, 48, 3, BQ_F32), W(4, 40, true)}),
        "groups of 40 do not divide its 112 columns");
    static const toy_rule embedding[] = {{"embed_tokens", 4, 0}, {NULL, 0, 0}},
                          two[] = {{"down_proj", 4, 8}, {"_proj.weight", 4, 16}, {NULL, 0, 0}},
                          signs[] = {{"down_proj", 4, 8}, {"_proj.weight", -4, 8}, {NULL, 0, 0}},
                          none[] = {{"_proj.weight", 1, 0}, {NULL, 0, 0}},
                          head[] = {{"lm_head", 4, 0}, {NULL, 0, 0}};
    assert_refused(export_half("awq", temp_path("wrong"), embedding, 1, 1, NULL),
                   "not the weight of a linear");
    assert_refused(export_half("awq", temp_path("wrong"), two, 1, 1, NULL),
                   "gate_proj.weight' has another scheme than 'model.layers.0.mlp.down_proj.weight'");
    assert_refused(export_half("awq", temp_path("wrong"), signs, 1, 1, NULL), "has another scheme");
    assert_refused(export_half("awq", temp_path("wrong"), none, 1, 1, NULL), "nothing is quantized");
    assert_refused(export_half("awq", temp_path("wrong"), head, 1, 1, NULL), "is the head");
    assert_false(file_there(temp_path("wrong"))); /* all of it before anything is written */
    make_source("model_llama_bias", "F32");       /* rows that are no multiple of 8 */
    assert_refused(export_half("awq", temp_path("wrong"), w4, 1, 1, NULL),
                   "awq packs rows in multiples of 8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order),       cmocka_unit_test(peers),    cmocka_unit_test(directories),
        cmocka_unit_test(kept_floats), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
