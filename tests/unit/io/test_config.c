/* SPDX-License-Identifier: Apache-2.0 */
#include "config_edit.h"

#include "io/in/weights.h"

#include <math.h>

/* config.json as the models' publishers wrote them, without the keys that nobody reads. */
static const char smollm2[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":0,"
    "\"hidden_act\":\"silu\",\"hidden_size\":576,\"intermediate_size\":1536,\"is_llama_config\":true,"
    "\"max_position_embeddings\":8192,\"model_type\":\"llama\",\"num_attention_heads\":9,\"num_hidden_"
    "layers\":30,"
    "\"num_key_value_heads\":3,\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_interleaved\":false,"
    "\"rope_scaling\":null,\"rope_theta\":100000,\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\","
    "\"vocab_size\":49152}";
static const char llama31[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"hidden_act\":\"silu\","
    "\"hidden_size\":4096,\"intermediate_size\":14336,\"max_position_embeddings\":131072,\"mlp_bias\":false,"
    "\"model_type\":\"llama\",\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
    "\"rms_norm_eps\":1e-05,\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4."
    "0,"
    "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"},\"rope_theta\":500000.0,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"vocab_size\":128256}";
static const char llama32[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"dtype\":\"bfloat16\",\"head_dim\":64,"
    "\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":8192,\"max_position_embeddings\":"
    "131072,"
    "\"model_type\":\"llama\",\"num_attention_heads\":32,\"num_hidden_layers\":16,\"num_key_value_heads\":8,"
    "\"rms_norm_eps\":1e-05,\"rope_parameters\":{\"factor\":32.0,\"high_freq_factor\":4.0,\"low_freq_"
    "factor\":1.0,"
    "\"original_max_position_embeddings\":8192,\"rope_theta\":500000.0,\"rope_type\":\"llama3\"},"
    "\"tie_word_embeddings\":true,\"vocab_size\":128256}";

#define SHORT                                                                                                \
    "1.0,1.0199999809265137,1.0299999713897705,1.0299999713897705,1.0499999523162842,1.0499999523162842,"    \
    "1.0499999523162842,1.0499999523162842,1.0499999523162842,1.0699999332427979,1.0999999046325684,"        \
    "1.1099998950958252,1.1599998474121094,1.1599998474121094,1.1699998378753662,1.2899998426437378,"        \
    "1.339999794960022,1.679999828338623,1.7899998426437378,1.8199998140335083,1.8499997854232788,"          \
    "1.8799997568130493,1.9099997282028198,1.9399996995925903,1.9899996519088745,2.0199997425079346,"        \
    "2.0199997425079346,2.0199997425079346,2.0199997425079346,2.0199997425079346,2.0199997425079346,"        \
    "2.0299997329711914,2.0299997329711914,2.0299997329711914,2.0299997329711914,2.0299997329711914,"        \
    "2.0299997329711914,2.0299997329711914,2.0299997329711914,2.0299997329711914,2.0799996852874756,"        \
    "2.0899996757507324,2.189999580383301,2.2199995517730713,2.5899994373321533,2.729999542236328,"          \
    "2.749999523162842,2.8399994373321533"
#define LONG                                                                                                 \
    "1.0800000429153442,1.1100000143051147,1.1399999856948853,1.340000033378601,1.5899999141693115,"         \
    "1.600000023841858,1.6200000047683716,2.620000123977661,3.2300000190734863,3.2300000190734863,"          \
    "4.789999961853027,7.400000095367432,7.700000286102295,9.09000015258789,12.199999809265137,"             \
    "17.670000076293945,24.46000099182129,28.57000160217285,30.420001983642578,30.840002059936523,"          \
    "32.590003967285156,32.93000411987305,42.320003509521484,44.96000289916992,50.340003967285156,"          \
    "50.45000457763672,57.55000305175781,57.93000411987305,58.21000289916992,60.1400032043457,"              \
    "62.61000442504883,62.62000274658203,62.71000289916992,63.1400032043457,63.1400032043457,"               \
    "63.77000427246094,63.93000411987305,63.96000289916992,63.970001220703125,64.02999877929688,"            \
    "64.06999969482422,64.08000183105469,64.12000274658203,64.41000366210938,64.4800033569336,"              \
    "64.51000213623047,64.52999877929688,64.83999633789062"
#define PHI(scaling, more)                                                                                   \
    "{\"architectures\":[\"Phi3ForCausalLM\"],\"hidden_act\":\"silu\",\"hidden_size\":3072,"                 \
    "\"intermediate_size\":8192,\"max_position_embeddings\":131072,\"model_type\":\"phi3\",\"num_attention_" \
    "heads\":32,"                                                                                            \
    "\"num_hidden_layers\":32,\"num_key_value_heads\":32,\"original_max_position_embeddings\":4096,"         \
    "\"rms_norm_eps\":1e-05,\"tie_word_embeddings\":false,\"vocab_size\":32064," more scaling "}"
static const char phi35[] =
    PHI("\"rope_scaling\":{\"long_factor\":[" LONG "],\"short_factor\":[" SHORT "],\"type\":\"longrope\"}",
        "\"rope_theta\":10000.0,\"sliding_window\":262144,");
static const char phi35_v5[] =
    PHI("\"rope_parameters\":{\"long_factor\":[" LONG "],\"short_factor\":[" SHORT
        "],\"rope_type\":\"longrope\",\"rope_theta\":10000.0,\"partial_rotary_factor\":1.0,"
        "\"original_max_position_embeddings\":131072}",
        "\"sliding_window\":262144,");

static void published_models(void **state) {
    (void)state;
    bq_model m;
    assert_int_equal(parse(smollm2, &m), BQ_OK);
    assert_true(m.family == bq_family_find("llama") && m.hidden == 576 && m.inter == 1536 && m.blocks == 30 &&
                m.heads == 9);
    assert_true(m.kv_heads == 3 && m.head_dim == 64 && m.vocab == 49152 && m.eps == 1e-5 &&
                m.max_position == 8192);
    assert_true(m.tied && !m.attention_bias && !m.mlp_bias && m.window == 0);
    assert_true(m.rope.kind == BQ_ROPE_DEFAULT && m.rope.theta == 1e5 && m.rope.dim == 64 &&
                m.rope.attention == 1);
    assert_int_equal(parse(llama31, &m), BQ_OK);
    assert_true(m.hidden == 4096 && m.inter == 14336 && m.blocks == 32 && m.heads == 32 && m.kv_heads == 8);
    assert_true(m.head_dim == 128 && !m.tied && m.max_position == 131072);
    assert_true(m.rope.kind == BQ_ROPE_LLAMA3 && m.rope.theta == 5e5 && m.rope.factor == 8 &&
                m.rope.low == 1);
    assert_true(m.rope.high == 4 && m.rope.original == 8192 && m.rope.attention == 1 && m.rope.dim == 128);
    assert_int_equal(parse(llama32, &m), BQ_OK);
    assert_true(m.rope.kind == BQ_ROPE_LLAMA3 && m.rope.theta == 5e5 && m.rope.factor == 32 && m.tied &&
                m.head_dim == 64);
    for (int v5 = 0; v5 < 2; v5++) { /* the inner original length of v5 says nothing */
        assert_int_equal(parse(v5 ? phi35_v5 : phi35, &m), BQ_OK);
        assert_true(m.family == bq_family_find("phi3") && m.head_dim == 96 && m.kv_heads == 32 &&
                    m.window == 262144 && !m.tied);
        assert_true(m.rope.kind == BQ_ROPE_LONG && m.rope.dim == 96 && m.rope.original == 4096 &&
                    m.rope.factor == 32);
        assert_true(fabs(m.rope.attention - 1.19023807) < 5e-9 && m.rope.theta == 1e4);
        assert_true(m.rope.short_factor[0] == 1 && m.rope.short_factor[47] == 2.8399994373321533);
        assert_true(m.rope.long_factor[0] == 1.0800000429153442 &&
                    m.rope.long_factor[47] == 64.83999633789062);
        assert_true(m.rope.short_factor[48] == 0);
    }
}

/* The configurations transformers 5.23 saved beside the golden models. */
static void golden_models(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bq_rope_kind kind;
        int64_t head_dim, dim;
        double original, factor;
    } golden[] = {
        {"llama_default", BQ_ROPE_DEFAULT, 14, 14, 0, 1}, {"llama_llama3", BQ_ROPE_LLAMA3, 16, 16, 64, 8},
        {"llama_bias", BQ_ROPE_DEFAULT, 10, 10, 0, 1},    {"phi3_short", BQ_ROPE_LONG, 12, 12, 64, 32},
        {"phi3_long", BQ_ROPE_LONG, 12, 12, 32, 32},      {"phi3_partial", BQ_ROPE_LONG, 16, 12, 64, 8},
        {"qwen2", BQ_ROPE_DEFAULT, 12, 12, 0, 1},
    };
    for (int i = 0; i < (int)(sizeof golden / sizeof *golden); i++) {
        char path[600];
        bq_weights *w;
        bq_model m;
        snprintf(path, sizeof path, "%s/model_%s.safetensors", BQ_VECTORS, golden[i].name);
        assert_int_equal(bq_weights_open(&w, path), BQ_OK);
        assert_int_equal(parse(bq_weights_metadata(w, "config"), &m), BQ_OK);
        bq_weights_close(w);
        assert_true(m.rope.kind == golden[i].kind && m.head_dim == golden[i].head_dim &&
                    m.rope.dim == golden[i].dim);
        assert_true(m.rope.original == golden[i].original);
        assert_true(m.rope.factor == golden[i].factor);
        assert_true(m.attention_bias == (i == 2) && m.mlp_bias == (i == 2));
    }
}

static void defaults_and_aliases(void **state) {
    (void)state;
    bq_model m;
    assert_int_equal(parse_edited(llama31, "num_key_value_heads", NULL, &m), BQ_OK);
    assert_true(m.kv_heads == 32);
    assert_int_equal(parse_edited(llama31, "head_dim", "null", &m), BQ_OK);
    assert_true(m.head_dim == 128);
    assert_int_equal(parse_edited(llama31, "head_dim", "80", &m), BQ_OK);
    assert_true(m.head_dim == 80 && m.rope.dim == 80);
    assert_int_equal(parse_edited(llama31, "rope_theta", NULL, &m), BQ_OK);
    assert_true(m.rope.theta == 1e4);
    assert_int_equal(parse_edited(llama31, "tie_word_embeddings", NULL, &m), BQ_OK);
    assert_true(!m.tied);
    assert_int_equal(parse_edited(llama31, "model_type", NULL, &m), BQ_OK);
    assert_true(m.family == bq_family_find("llama"));
    assert_int_equal(parse_edited(llama31, "architectures", NULL, &m), BQ_OK);
    assert_int_equal(parse_edited(llama31, "attention_bias", "true", &m), BQ_OK);
    assert_true(m.attention_bias && !m.mlp_bias);
    assert_int_equal(parse_edited(llama31, "sliding_window", "17", &m), BQ_OK);
    assert_true(m.window == 0);
    assert_int_equal(parse_edited(llama31, "max_position_embeddings", NULL, &m), BQ_OK);
    assert_true(m.max_position == 2048);
    assert_int_equal(parse_edited(smollm2, "rope_scaling", "{\"type\":\"linear\",\"factor\":4}", &m), BQ_OK);
    assert_true(m.rope.kind == BQ_ROPE_LINEAR && m.rope.factor == 4 && m.rope.attention == 1);
    assert_int_equal(
        parse_edited(smollm2, "rope_scaling", "{\"rope_type\":\"default\",\"rope_theta\":7.0}", &m), BQ_OK);
    assert_true(m.rope.kind == BQ_ROPE_DEFAULT && m.rope.theta == 7);
    assert_int_equal(parse_edited(phi35, "sliding_window", "null", &m), BQ_OK);
    assert_true(m.window == 0);
    assert_int_equal(parse_edited(phi35, "sliding_window", "2047", &m), BQ_OK);
    assert_true(m.window == 2047);
    assert_int_equal(parse_edited(phi35, "original_max_position_embeddings", NULL, &m), BQ_OK);
    assert_true(m.rope.original == 4096);
    assert_int_equal(parse_edited(phi35_v5, "original_max_position_embeddings", NULL, &m), BQ_OK);
    assert_true(m.rope.original == 4096);
    assert_int_equal(parse_edited(phi35, "rope_scaling", "null", &m), BQ_OK);
    assert_true(m.rope.kind == BQ_ROPE_DEFAULT && m.rope.attention == 1);
    assert_int_equal(parse_edited(phi35, "max_position_embeddings", "4096", &m), BQ_OK);
    assert_true(m.rope.attention == 1);
}

static void longrope_variants(void **state) {
    (void)state;
    bq_model m;
    static const char *const names[] = {"su", "yarn", "longrope"};
    char scaling[300];
    const char *three = "\"short_factor\":[1,2,3],\"long_factor\":[4,5,6]";
    const char *tiny = PHI("\"x\":0", "\"head_dim\":8,\"partial_rotary_factor\":0.75,");
    for (int i = 0; i < 3; i++) {
        snprintf(scaling, sizeof scaling, "{\"type\":\"%s\",%s}", names[i], three);
        assert_int_equal(parse_edited(tiny, "rope_scaling", scaling, &m), BQ_OK);
        assert_true(m.rope.kind == BQ_ROPE_LONG && m.rope.dim == 6 && m.rope.long_factor[2] == 6);
    }
    snprintf(scaling, sizeof scaling, "{\"rope_type\":\"longrope\",\"factor\":16,%s}", three);
    assert_int_equal(parse_edited(tiny, "rope_scaling", scaling, &m), BQ_OK);
    assert_true(m.rope.factor == 16 && fabs(m.rope.attention - sqrt(1 + log(16) / log(4096))) < 1e-15);
    snprintf(scaling, sizeof scaling, "{\"rope_type\":\"longrope\",\"attention_factor\":1.25,%s}", three);
    assert_int_equal(parse_edited(tiny, "rope_scaling", scaling, &m), BQ_OK);
    assert_true(m.rope.attention == 1.25);
    snprintf(scaling, sizeof scaling, "{\"rope_type\":\"longrope\",\"partial_rotary_factor\":0.5,%s}", three);
    assert_refused(parse_edited(tiny, "rope_scaling", scaling, &m), "list of 2 numbers");
    snprintf(scaling, sizeof scaling,
             "{\"rope_type\":\"longrope\",\"short_factor\":[1,0,3],\"long_factor\":[4,5,6]}");
    assert_refused(parse_edited(tiny, "rope_scaling", scaling, &m), "rope_scaling.short_factor");
    snprintf(scaling, sizeof scaling, "{\"rope_type\":\"longrope\",\"short_factor\":[1,2,3]}");
    assert_refused(parse_edited(tiny, "rope_scaling", scaling, &m), "long_factor: is missing");
}

static const struct {
    const char *key, *value, *needle;
} refused[] = {
    {"model_type", "\"mamba\"", "known are llama"},
    {"model_type", "\"phi3\"", "known are llama"}, /* with Llama's architecture */
    {"model_type", "7", "model_type"},
    {"architectures", "[\"LlamaForSequenceClassification\"]", "known are llama"},
    {"quantization_config", "{\"quant_method\":\"gptq\"}", "start from the unquantized"},
    {"hidden_act", "\"gelu\"", "hidden_act: only silu is supported for llama"},
    {"rope_interleaved", "true", "rope_interleaved: only false"},
    {"hidden_size", NULL, "hidden_size: is missing"},
    {"hidden_size", "0", "hidden_size"},
    {"hidden_size", "-4096", "hidden_size"},
    {"hidden_size", "4095", "multiple of num_attention_heads"},
    {"hidden_size", "4611686018427387904", "hidden_size"},
    {"hidden_size", "4096.5", "not an integer"},
    {"hidden_size", "\"4096\"", "not an integer"},
    {"intermediate_size", "0", "intermediate_size"},
    {"vocab_size", "99999999999", "vocab_size"},
    {"num_hidden_layers", "0", "num_hidden_layers"},
    {"num_hidden_layers", "1e9", "num_hidden_layers"},
    {"num_attention_heads", "0", "num_attention_heads"},
    {"num_key_value_heads", "5", "does not divide"},
    {"num_key_value_heads", "33", "num_key_value_heads"},
    {"num_key_value_heads", "0", "num_key_value_heads"},
    {"head_dim", "127", "odd"},
    {"head_dim", "0", "head_dim"},
    {"head_dim", "1000000", "head_dim"},
    {"head_dim", "516", "rotary channels"},
    {"max_position_embeddings", "0", "max_position"},
    {"rms_norm_eps", NULL, "rms_norm_eps: is missing"},
    {"rms_norm_eps", "0", "rms_norm_eps"},
    {"rms_norm_eps", "-1e-5", "rms_norm_eps"},
    {"rms_norm_eps", "1e999", "not valid JSON"},
    {"tie_word_embeddings", "1", "neither true nor false"},
    {"rope_theta", "0", "rope_theta"},
    {"rope_theta", "\"x\"", "rope_theta"},
    {"partial_rotary_factor", "0.5", "only 1 is supported for llama"},
    {"rope_scaling", "[]", "rope_scaling: is not an object"},
    {"rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}",
     "rope_scaling.rope_type: 'dynamic' is not known for llama"},
    {"rope_scaling", "{\"type\":\"longrope\"}", "'longrope' is not known for llama"},
    {"rope_scaling", "{\"factor\":2}", "rope_type: is missing"},
    {"rope_scaling", "{\"type\":\"linear\"}", "rope_scaling.factor: is missing"},
    {"rope_scaling", "{\"type\":\"linear\",\"factor\":0}", "rope_scaling.factor"},
    {"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}", "low_freq_factor: is missing"},
    {"rope_scaling",
     "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":8192}",
     "high_freq_factor: 4 is not above"},
    {"rope_parameters", "3", "rope_parameters"},
};

static void bad_values_are_refused(void **state) {
    (void)state;
    bq_model m;
    char *base = edited(llama31, "rope_scaling", "null");
    assert_int_equal(parse(base, &m), BQ_OK);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (refused[i].value && strcmp(refused[i].value, "1e999") == 0) {
            assert_refused(parse("{\"model_type\":\"llama\",\"rms_norm_eps\":1e999}", &m), refused[i].needle);
        } else
            assert_refused(parse_edited(base, refused[i].key, refused[i].value, &m), refused[i].needle);
    }
    free(base);
    assert_refused(parse("{}", &m), "known are llama");
    assert_refused(parse_edited(phi35, "rope_scaling", "{\"type\":\"linear\",\"factor\":2}", &m),
                   "not known for phi3");
    assert_refused(parse_edited(phi35, "sliding_window", "0", &m), "sliding_window");
    assert_refused(parse_edited(phi35, "original_max_position_embeddings", "1", &m), "original_max");
    assert_refused(parse_edited(phi35, "partial_rotary_factor", "0.01", &m), "rotary channels");
    assert_refused(parse_edited(phi35, "partial_rotary_factor", "1.5", &m), "partial_rotary_factor");
}

static void directories(void **state) {
    (void)state;
    bq_model m;
    st_save(temp_path("model.safetensors"), "{}", 0);
    assert_refused(config_read(temp_dir, &m), "config.json' is not there");
    text_save(temp_path("config.json"), smollm2);
    assert_int_equal(config_read(temp_dir, &m), BQ_OK);
    assert_int_equal(config_read(temp_path("model.safetensors"), &m), BQ_OK); /* beside a file */
    assert_true(bq_weights_known(temp_path("model.safetensors")));
    assert_false(bq_weights_known(temp_path("config.json")) || bq_weights_known(temp_path("no.safetensors")));
    text_save(temp_path("config.json"), "{\"model_type\":\n\"llama\",,}");
    assert_refused(config_read(temp_dir, &m), "config.json:2");
}

/* A key that changes results changes the hash; one that does not, or that says the default, leaves it. */
static void hashes(void **state) {
    (void)state;
    static const struct {
        const char *from, *key, *value;
    } edit[] = {
        {llama31, "hidden_size", "2048"},
        {llama31, "intermediate_size", "14337"},
        {llama31, "vocab_size", "9"},
        {llama31, "num_hidden_layers", "31"},
        {llama31, "num_attention_heads", "16"},
        {llama31, "num_key_value_heads", "16"},
        {llama31, "head_dim", "64"},
        {llama31, "rms_norm_eps", "1e-6"},
        {llama31, "tie_word_embeddings", "true"},
        {llama31, "rope_theta", "1e4"},
        {llama31, "rope_scaling", "null"},
        {llama31, "rope_scaling", "{\"type\":\"linear\",\"factor\":8}"},
        {llama31, "attention_bias", "true"},
        {llama31, "mlp_bias", "true"},
        {phi35, "sliding_window", "null"},
        {PHI("\"x\":0", ""), "partial_rotary_factor", "0.5"},
        {phi35, "max_position_embeddings", "4096"}, /* by attention's factor */
        {phi35, "original_max_position_embeddings", "4097"},
        /* those below change nothing */
        {llama31, "head_dim", "128"},
        {llama31, "max_position_embeddings", "9"},
        {llama31, "torch_dtype", "\"float32\""},
        {llama31, "mlp_bias", NULL},
        {llama31, "rope_interleaved", "false"},
        {phi35, "partial_rotary_factor", "1"},
        {phi35, "original_max_position_embeddings", NULL},
    };
    enum { CHANGES = 18 };
    for (size_t i = 0; i < sizeof edit / sizeof *edit; i++) {
        if (hash_moves(edit[i].from, edit[i].key, edit[i].value) != (i < CHANGES))
            fail_msg("%s", edit[i].key);
    }
    assert_true(hash_of(phi35) == hash_of(phi35_v5));
    char *list = edited(phi35, "x", NULL), *digit = strstr(list, "64.8399");
    assert_non_null(digit);
    digit[3] = '7';
    assert_true(hash_of(list) != hash_of(phi35));
    free(list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_models),
        cmocka_unit_test(golden_models),
        cmocka_unit_test(defaults_and_aliases),
        cmocka_unit_test(longrope_variants),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(directories),
        cmocka_unit_test(hashes),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
