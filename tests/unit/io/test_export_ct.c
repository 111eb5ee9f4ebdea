/* SPDX-License-Identifier: Apache-2.0 */
#include "toy.h"

#include "unpack.h"

/* The key of the format. */
static const struct { int64_t row_group; } fours = {4}, sevens = {7};

/* The tensor <stem of name>.<part>, without its bytes. */
static const bq_tensor *part_of(const bq_weights *w, const char *name, const char *part) {
    char key[300];
    snprintf(key, sizeof key, "%.*s.%s", (int)strlen(name) - 7, name, part);
    return bq_weights_find(w, key);
}

/* How often each scale stands in the file. */
static int64_t repeats(const bq_qtensor *q) {
    return toy_options == &fours && q->scheme.group < 0 && !q->inputs.element ? q->code.cols / 4 : 1;
}

static void check_scales(const bq_weights *w, const char *name, const bq_qtensor *q, const float *scale) {
    float have[20000];
    const bq_tensor *t = part_of(w, name, "weight_scale");
    int64_t times = repeats(q), n = q->scale.rows * q->scale.cols * times;
    assert_true(t && strcmp(t->dtype, "F32") == 0 && t->dims == 2 && t->shape[0] == q->scale.rows);
    assert_true(t->shape[1] == q->scale.cols * times && t->bytes <= sizeof have);
    bq_weights_read_raw(w, t, 0, have, t->bytes);
    for (int64_t i = 0; i < n; i++) assert_true(have[i] == scale[i / times]);
}

/* Packed along a column. */
static void check_zeros(const bq_weights *w, const bq_tensor *t, const bq_qtensor *q, const float *zero) {
    int bits = bq_code_bits(q->scheme), some = 0;
    int64_t rows = q->zero.rows, times = repeats(q), groups = q->zero.cols * times;
    int32_t word[8192];
    assert_string_equal(t->dtype, "I32");
    assert_true(t->dims == 2 && t->shape[0] == bq_pack_words(rows, bits) && t->shape[1] == groups);
    assert_true(t->bytes <= sizeof word);
    bq_weights_read_raw(w, t, 0, word, t->bytes);
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t r = 0; r < rows; r++) {
            int z = unpack_field(word + g, groups, bits, r) - (1 << (bits - 1));
            assert_int_equal(z, (int)zero[(r * groups + g) / times]);
            some += z != 0;
        }
    }
    assert_true(some > 0);
}

/* Codes as they are, beside their scales. */
static int check_int(const bq_weights *w, const char *name, const toy *t, const bq_qtensor *q) {
    static char raw[70000];
    const bq_tensor *a = bq_weights_find(w, name);
    assert_true(a && strcmp(a->dtype, "I8") == 0 && a->bytes <= sizeof raw);
    bq_weights_read_raw(w, a, 0, raw, a->bytes);
    assert_memory_equal(raw, t->code, a->bytes);
    check_scales(w, name, q, t->scale);
    return 2;
}

static int check_packed(const bq_weights *w, const char *name, const toy *t, const bq_qtensor *q) {
    static char raw[70000], code[70000];
    int64_t shape[2], rows = q->code.rows, cols = q->code.cols;
    int bits = bq_code_bits(q->scheme);
    assert_null(bq_weights_find(w, name));
    bq_weights_read_raw(w, part_of(w, name, "weight_shape"), 0, shape, 16);
    assert_true(shape[0] == rows && shape[1] == cols);
    check_scales(w, name, q, t->scale);
    const bq_tensor *zero = part_of(w, name, "weight_zero_point"), *a = part_of(w, name, "weight_packed");
    assert_int_equal(zero != NULL, q->zero.rows > 0);
    if (zero) check_zeros(w, zero, q, t->zero);
    assert_string_equal(a->dtype, "I32");
    assert_true(a->dims == 2 && a->shape[0] == rows && a->shape[1] == bq_pack_words(cols, bits));
    bq_weights_read_raw(w, a, 0, raw, a->bytes);
    unpack_rows(bq_mat_host(raw, rows, a->shape[1], BQ_I32), bits, bq_mat_host(code, rows, cols, BQ_I8));
    assert_memory_equal(code, t->code, (size_t)(rows * cols));
    return 3 + (zero != NULL);
}

static void check_ct(const char *out, const toy_rule *rule) {
    bq_weights *w, *from;
    assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
    assert_int_equal(stored_open(&w, out), BQ_OK);
    toy t = {.src = from, .rule = rule};
    int tensors = 0;
    for (int i = 0; i < bq_weights_count(from); i++) {
        const bq_tensor *b = bq_weights_at(from, i), *a = bq_weights_find(w, b->name);
        static char raw[70000], want[70000];
        bq_qtensor q = {0};
        if (toy_get(&t, b->name, true, &q)) {
            tensors += q.inputs.element ? check_int(w, b->name, &t, &q) : check_packed(w, b->name, &t, &q);
            continue;
        }
        bq_mat to = bq_mat_host(want, b->dims == 2 ? b->shape[0] : 1, b->shape[b->dims - 1], BQ_F32);
        assert_non_null(a);
        bq_weights_read_raw(w, a, 0, raw, a->bytes);
        bool is = toy_dense(&t, b->name, 0, to);
        if (!is) bq_weights_read_raw(from, b, 0, want, b->bytes);
        assert_string_equal(a->dtype, is ? "F32" : b->dtype);
        assert_memory_equal(raw, want, a->bytes);
        tensors++;
    }
    assert_int_equal(tensors, bq_weights_count(w));
    toy_free(&t);
    bq_weights_close(w);
    bq_weights_close(from);
}

/* What compressed-tensors 0.20.1 itself writes into config.json. */
#define ARGUMENTS(bits, symmetric, strategy, group, dynamic)                                                 \
    "{\"dynamic\":" dynamic ",\"group_size\":" group ",\"num_bits\":" bits ",\"strategy\":\"" strategy       \
    "\",\"symmetric\":" symmetric ",\"type\":\"int\"}"
#define WEIGHTS(bits, strategy, group) ARGUMENTS(bits, "true", strategy, group, "false")
#define SHIFTED(bits, strategy, group) ARGUMENTS(bits, "false", strategy, group, "false")
#define TOKEN                          ARGUMENTS("8", "true", "token", "null", "true")
#define CONFIG(format, inputs)                                                                               \
    "{\"config_groups\":{\"group_0\":{\"format\":\"" format "\",\"input_activations\":" inputs               \
    ",\"output_activations\":null,\"targets\":[\"Linear\"],\"weights\":%s}},\"format\":\"" format            \
    "\",\"global_compression_ratio\":null,\"ignore\":[\"lm_head\"],\"kv_cache_scheme\":null,"                \
    "\"moe_sparsity_config\":null,\"quant_method\":\"compressed-tensors\","                                  \
    "\"quantization_status\":\"compressed\",\"sparsity_config\":{},\"transform_config\":{},"                 \
    "\"version\":\"0.20.1\"}"

/* One scheme for all linears but the head; bits and group as toy_rule has them. */
typedef struct {
    int bits;
    int64_t group;
    const char *weights;
} one_scheme;

static void check_scheme(const one_scheme *s) {
    const toy_rule rule[] = {{"lm_head", 0, 0}, {"_proj.weight", s->bits, s->group}, {NULL, 0, 0}};
    char out[512], many[512], want[1500];
    int gets;
    snprintf(out, sizeof out, "%s", temp_path("ct"));
    snprintf(many, sizeof many, "%s", temp_path("ct2"));
    assert_int_equal(export_to(out, rule, true, 0, &gets), BQ_OK);
    assert_int_equal(gets, s->bits > 16 ? 28 : 14); /* codes and scales of one question, if of one width */
    check_ct(out, rule);
    json_t *config = config_of(out);
    if (s->bits > 16)
        snprintf(want, sizeof want, CONFIG("int-quantized", TOKEN), s->weights);
    else
        snprintf(want, sizeof want, CONFIG("pack-quantized", "null"), s->weights);
    same_json(json_object_get(config, "quantization_config"), want);
    json_decref(config);
    assert_int_equal(export_to(many, rule, true, 20000, NULL), BQ_OK);
    check_ct(many, rule);
    assert_same_file(in(out, "config.json"), in(many, "config.json"));
}

static void ct_holds_codes(void **state) {
    (void)state;
    static const one_scheme schemes[] = {
        {4, 0, WEIGHTS("4", "channel", "null")},  {4, 4, WEIGHTS("4", "group", "4")},
        {8, 4, WEIGHTS("8", "group", "4")},       {2, 4, WEIGHTS("2", "group", "4")},
        {3, 0, WEIGHTS("3", "channel", "null")},  {5, 4, WEIGHTS("5", "group", "4")},
        {6, 0, WEIGHTS("6", "channel", "null")},  {7, 0, WEIGHTS("7", "channel", "null")},
        {-2, 4, SHIFTED("2", "group", "4")},      {-3, 4, SHIFTED("3", "group", "4")},
        {-4, 4, SHIFTED("4", "group", "4")},      {-4, 0, SHIFTED("4", "channel", "null")},
        {-5, 0, SHIFTED("5", "channel", "null")}, {-6, 4, SHIFTED("6", "group", "4")},
        {-7, 4, SHIFTED("7", "group", "4")},      {-8, 4, SHIFTED("8", "group", "4")},
        {24, 0, WEIGHTS("8", "channel", "null")}, {20, 4, WEIGHTS("4", "group", "4")},
        {20, 0, WEIGHTS("4", "channel", "null")},
    };
    make_source("model_llama_default", "BF16");
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) check_scheme(&schemes[i]);
}

/* A row's scale in each group of four columns. */
static void ct_repeats_scales(void **state) {
    (void)state;
    static const one_scheme schemes[] = {
        {4, 0, WEIGHTS("4", "group", "4")},
        {-3, 0, SHIFTED("3", "group", "4")},
        {-4, 8, SHIFTED("4", "group", "8")}, /* has groups already */
        {24, 0, WEIGHTS("8", "channel", "null")},
    };
    make_source("model_qwen2", "BF16");
    toy_options = &fours;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) check_scheme(&schemes[i]);
    toy_options = toy_no_options;
}

static void ct_groups_schemes(void **state) {
    (void)state;
    char out[512];
    snprintf(out, sizeof out, "%s", temp_path("ctm"));
    make_source("model_llama_default", "BF16");
    assert_int_equal(export_to(out, a8, true, 0, NULL), BQ_OK);
    check_ct(out, a8);
    json_t *two = config_of(out),
           *of = json_object_get(json_object_get(two, "quantization_config"), "config_groups");
    assert_int_equal(json_object_size(of), 2); /* alike but for the zero points */
    same_json(json_object_get(json_object_get(of, "group_0"), "weights"), SHIFTED("8", "channel", "null"));
    same_json(json_object_get(json_object_get(of, "group_1"), "weights"), WEIGHTS("8", "channel", "null"));
    json_decref(two);
    assert_int_equal(export_to(out, mixed, true, 0, NULL), BQ_OK);
    check_ct(out, mixed);
    json_t *config = config_of(out), *q = json_object_get(config, "quantization_config");
    same_json(json_object_get(q, "ignore"),
              "[\"model.layers.0.self_attn.k_proj\",\"model.layers.0.self_attn.o_proj\","
              "\"model.layers.1.self_attn.k_proj\"]");
    json_t *groups = json_object_get(q, "config_groups");
    assert_int_equal(json_object_size(groups), 3);
    same_json(json_object_get(json_object_get(groups, "group_0"), "targets"), "[\"lm_head\"]");
    same_json(json_object_get(json_object_get(groups, "group_0"), "weights"),
              WEIGHTS("8", "channel", "null"));
    same_json(json_object_get(json_object_get(groups, "group_1"), "targets"),
              "[\"model.layers.0.mlp.down_proj\",\"re:^model\\\\.layers\\\\.\\\\d+"
              "\\\\.mlp\\\\.gate_proj$\","
              "\"re:^model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.up_proj$\",\"re:^model\\\\.layers\\\\.\\\\d+"
              "\\\\.self_attn\\\\.q_proj$\","
              "\"re:^model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\.v_proj$\",\"re:^model\\\\.layers\\\\."
              "\\\\d+\\\\.self_attn\\\\.o_proj$\"]");
    same_json(json_object_get(json_object_get(groups, "group_1"), "weights"), WEIGHTS("4", "group", "4"));
    same_json(json_object_get(json_object_get(groups, "group_2"), "targets"),
              "[\"model.layers.1.mlp.down_proj\"]");
    json_decref(config);
}

/* One expression for all experts of all blocks; routers are not quantized. */
static void ct_names_experts(void **state) {
    (void)state;
    static const toy_rule w2[] = {{"lm_head", 0, 0}, {".w2.", 3, 0},         {".w1.", 4, 4},
                                  {".w3.", 4, 4},    {"_proj.weight", 4, 4}, {NULL, 0, 0}},
                          down[] = {{"lm_head", 0, 0},
                                    {"mlp.gate.", 0, 0},
                                    {"down_proj", 3, 0},
                                    {"_proj.weight", 4, 4},
                                    {NULL, 0, 0}};
#define LAYER               "re:^model\\\\.layers\\\\.\\\\d+\\\\."
#define EXPERT(mlp, linear) "\"" LAYER mlp "\\\\.experts\\\\.\\\\d+\\\\." linear "$\""
#define ATTN(linear)        "\"" LAYER "self_attn\\\\." linear "$\""
    static const struct {
        const char *model, *ignore, *of_three, *of_four;
        const toy_rule *rule;
    } cases[] = {
        {"model_mixtral",
         "[\"lm_head\",\"model.layers.0.block_sparse_moe.gate\",\"model.layers.1.block_sparse_moe.gate\"]",
         "[" EXPERT("block_sparse_moe", "w2") "]",
         "[" EXPERT("block_sparse_moe", "w1") "," EXPERT("block_sparse_moe", "w3") "," ATTN(
             "k_proj") "," ATTN("o_proj") "," ATTN("q_proj") "," ATTN("v_proj") "]",
         w2},
        {"model_qwen3_moe", "[\"model.layers.0.mlp.gate\",\"lm_head\"]",
         "[" EXPERT("mlp", "down_proj") ",\"" LAYER "mlp\\\\.down_proj$\"]",
         "[" EXPERT("mlp", "gate_proj") "," EXPERT("mlp", "up_proj") "," ATTN("k_proj") "," ATTN(
             "o_proj") "," ATTN("q_proj") "," ATTN("v_proj") ",\"" LAYER "mlp\\\\.gate_proj$\",\"" LAYER
                                                             "mlp\\\\.up_proj$\"]",
         down},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[512];
        snprintf(out, sizeof out, "%s", temp_path("cte"));
        make_source(cases[i].model, "BF16");
        assert_int_equal(export_to(out, cases[i].rule, true, 0, NULL), BQ_OK);
        check_ct(out, cases[i].rule);
        json_t *config = config_of(out), *q = json_object_get(config, "quantization_config"), *group;
        const char *name;
        same_json(json_object_get(q, "ignore"), cases[i].ignore);
        assert_int_equal(json_object_size(json_object_get(q, "config_groups")), 2);
        json_object_foreach(json_object_get(q, "config_groups"), name, group) {
            json_int_t bits =
                json_integer_value(json_object_get(json_object_get(group, "weights"), "num_bits"));
            same_json(json_object_get(group, "targets"), bits == 3 ? cases[i].of_three : cases[i].of_four);
        }
        json_decref(config);
    }
}

/* Every group has its own format. */
static void ct_mixes_formats(void **state) {
    (void)state;
    static const char *const format[] = {"\"int-quantized\"", "\"pack-quantized\"", "\"pack-quantized\""},
                             *const input[] = {TOKEN, "null", "null"};
    char out[512], name[16];
    snprintf(out, sizeof out, "%s", temp_path("cta"));
    make_source("model_llama_default", "F32");
    assert_int_equal(export_to(out, part8, true, 20000, NULL), BQ_OK);
    check_ct(out, part8);
    json_t *config = config_of(out), *q = json_object_get(config, "quantization_config"),
           *groups = json_object_get(q, "config_groups");
    same_json(json_object_get(q, "format"), "\"mixed-precision\"");
    assert_int_equal(json_object_size(groups), 3);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "group_%d", i);
        json_t *group = json_object_get(groups, name);
        same_json(json_object_get(group, "format"), format[i]);
        same_json(json_object_get(group, "input_activations"), input[i]);
    }
    json_decref(config);
}

/* ---- refusals ---- */

static int wrong(bq_qtensor q, bool ct) { return export_wrong(ct ? "compressed-tensors" : "safetensors", q); }

static void bad_results_are_refused(void **state) {
    (void)state;
    make_source("model_llama_default", "F32"); /* down_proj is (56, 100) */
    bq_mat code = bq_mat_host(NULL, 56, 100, BQ_I8), one = bq_mat_host(NULL, 56, 1, BQ_F32),
           three = bq_mat_host(NULL, 56, 3, BQ_F32);
    bq_mat flipped = bq_mat_host(NULL, 100, 56, BQ_I8);
    for (int ct = 0; ct < 2; ct++) {
        assert_refused(wrong((bq_qtensor){.code = flipped, .scale = one, W(4, -1, true)}, ct),
                       "result is (100, 56)");
        assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(9, -1, true)}, ct), "9 bits");
        assert_refused(wrong((bq_qtensor){.code = code, .scale = one, .zero = three, W(4, -1, false)}, ct),
                       "zero points (56, 3) F32, wanted (56, 1)");
        assert_refused(wrong((bq_qtensor){.code = code, .scale = three, W(4, -1, true)}, ct),
                       "scales (56, 3)");
        assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(4, 40, true)}, ct), "wanted (56, 3)");
        assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(4, -1, true), .pre = one}, ct),
                       "factors (56, 1) F32, wanted (1, 100)");
    }
    bq_mat pre = bq_mat_host(NULL, 1, 100, BQ_F32);
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(4, -1, true), .pre = pre}, true),
                   "has no place for these");
    assert_refused(
        wrong(
            (bq_qtensor){
                .code = code, .scale = one, W(8, -1, true), .pre = pre, .inputs = bq_rounding_of_tokens(8)},
            false),
        "which no plain checkpoint says");
    assert_refused(wrong((bq_qtensor){.code = code, .scale = three, W(4, 40, true)}, true), "groups of 40");
    toy_options = &sevens;
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(4, -1, true)}, true),
                   "groups of 7 do not divide its 100 columns");
    toy_options = toy_no_options;
    const bq_qtensor inputs[] = {
        {.code = code, .scale = one, W(8, -1, true), .inputs = bq_rounding_of_tokens(BQ_INT16)},
        {.code = code, .scale = one, .zero = one, W(8, -1, false), .inputs = bq_rounding_of_tokens(8)}};
    for (int i = 0; i < 2; i++) assert_refused(wrong(inputs[i], true), "where inputs are rounded, too");
    static const toy_rule embedding[] = {{"embed_tokens", 8, 0}, {NULL, 0, 0}},
                          norm[] = {{"model.norm", 8, 0}, {NULL, 0, 0}};
    static const toy_rule none[] = {{"_proj.weight", 1, 0}, {NULL, 0, 0}};
    assert_refused(export_to(temp_path("wrong"), embedding, true, 0, NULL), "not the weight of a Linear");
    assert_refused(export_to(temp_path("wrong"), norm, true, 0, NULL), "not the weight of a Linear");
    assert_refused(export_to(temp_path("wrong"), none, true, 0, NULL), "nothing is quantized");
    assert_false(file_there(temp_path("wrong"))); /* all of it before anything is written */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ct_holds_codes),    cmocka_unit_test(ct_repeats_scales),
        cmocka_unit_test(ct_groups_schemes), cmocka_unit_test(ct_names_experts),
        cmocka_unit_test(ct_mixes_formats),  cmocka_unit_test(bad_results_are_refused),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
