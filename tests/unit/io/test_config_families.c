/* SPDX-License-Identifier: Apache-2.0 */
/* config.json of each family: its defaults, which blocks have a window, ropes in both schemas, nested
 * configs, what is refused, and what the hash is made of. */
#include "config_edit.h"

#include <math.h>

#define SIZES                                                                                                \
    "\"hidden_size\":64,\"intermediate_size\":96,\"vocab_size\":97,\"num_hidden_layers\":6,"                 \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06"
#define MODEL(type, more) "{\"model_type\":\"" type "\"," SIZES more "}"
#define NESTED(type, more)                                                                                   \
    "{\"model_type\":\"" type "\",\"text_config\":{\"model_type\":\"" type "_text\"," SIZES more "}}"
#define CAPS ",\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0"

static const char llama[] = MODEL("llama", ""), qwen2[] = MODEL("qwen2", ""), qwen3[] = MODEL("qwen3", ""),
                  mistral[] = MODEL("mistral", ""), olmo2[] = MODEL("olmo2", ""),
                  gemma2[] = MODEL("gemma2", CAPS), gemma3[] = MODEL("gemma3_text", ""),
                  qwen25vl[] = MODEL("qwen2_5_vl", ""), qwen25vl_nested[] = NESTED("qwen2_5_vl", ""),
                  qwen3vl[] = NESTED("qwen3_vl", ""), phi3[] = MODEL("phi3", "");

/* What a family has where config.json says no more than sizes.  local: theta of blocks with a window, where
 * these have a rope of their own. */
static void defaults(void **state) {
    (void)state;
    static const struct {
        const char *text, *type;
        double theta, local, scalar, attention_cap, logit_cap;
        int64_t head_dim, window, positions;
        bool tied;
    } want[] = {
        {llama, "llama", 1e4, 0, 0, 0, 0, 16, 0, 2048, false},
        {qwen2, "qwen2", 1e4, 0, 0, 0, 0, 16, 0, 32768, false},
        {qwen3, "qwen3", 1e4, 0, 0, 0, 0, 16, 0, 32768, false},
        {mistral, "mistral", 1e4, 0, 0, 0, 0, 16, 4096, 131072, false},
        {olmo2, "olmo2", 1e4, 0, 0, 0, 0, 16, 0, 2048, false},
        {gemma2, "gemma2", 1e4, 0, 256, 50, 30, 256, 4096, 8192, true},
        {gemma3, "gemma3_text", 1e6, 1e4, 256, 0, 0, 256, 4096, 131072, true},
        {qwen25vl, "qwen2_5_vl", 1e6, 0, 0, 0, 0, 16, 0, 32768, false},
        {qwen25vl_nested, "qwen2_5_vl", 1e6, 0, 0, 0, 0, 16, 0, 32768, false},
        {qwen3vl, "qwen3_vl", 5e5, 0, 0, 0, 0, 16, 0, 128000, false},
        {phi3, "phi3", 1e4, 0, 0, 0, 0, 16, 0, 4096, false},
    };
    bool seen[32] = {false};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        bq_model m;
        assert_int_equal(parse(want[i].text, &m), BQ_OK);
        const bq_rope *rope = want[i].local ? &m.full_rope : &m.rope;
        if (m.family != bq_family_find(want[i].type) || rope->theta != want[i].theta ||
            (want[i].local && m.rope.theta != want[i].local) || m.query_scalar != want[i].scalar ||
            m.attention_cap != want[i].attention_cap || m.logit_cap != want[i].logit_cap ||
            m.head_dim != want[i].head_dim || m.window != want[i].window ||
            m.max_position != want[i].positions || m.tied != want[i].tied || m.attention_bias)
            fail_msg("%s", want[i].type);
        assert_true(!m.full_rope.dim == !want[i].local && rope->dim == m.head_dim &&
                    m.rope.dim == m.head_dim);
        seen[m.family] = true;
    }
    const char *const experts[] = {"mixtral",    "qwen2_moe", "qwen3_moe",
                                   "glm4_moe",   "gpt_oss", /* test_config_experts.c */
                                   "deepseek_v3"};          /* test_config_latent.c */
    for (int i = 0; i < 6; i++) seen[bq_family_find(experts[i])] = true;
    for (int i = 0; bq_family_at(i); i++)
        if (!seen[i]) fail_msg("%s: no defaults here", bq_family_at(i)->type);
}

/* ---- windows ---- */

/* Blocks as letters: w with a window, f without. */
static void blocks(const char *text, const char *key, const char *value, const char *want) {
    bq_model m;
    char have[8] = "";
    assert_int_equal(parse_edited(text, key, value, &m), BQ_OK);
    for (int b = 0; b < m.blocks; b++) have[b] = m.window && !m.full[b] ? 'w' : 'f';
    if (strcmp(have, want)) fail_msg("%s %s: %s, expected %s", key, value ? value : "", have, want);
}

#define S      "\"sliding_attention\""
#define F      "\"full_attention\""
#define LISTED "[" F "," S "," S "," F "," S "," F "]"

static void windows(void **state) {
    (void)state;
    blocks(mistral, "x", "0", "wwwwww");
    blocks(mistral, "sliding_window", "null", "ffffff");
    blocks(mistral, "layer_types", LISTED, "wwwwww"); /* Mistral has them all */
    blocks(phi3, "sliding_window", "7", "wwwwww");
    static const char *const from[] = {MODEL("qwen2", ",\"use_sliding_window\":true"),
                                       MODEL("qwen3", ",\"use_sliding_window\":true"),
                                       MODEL("qwen2_5_vl", ",\"use_sliding_window\":true"),
                                       MODEL("qwen2", ""),
                                       MODEL("qwen3", ""),
                                       MODEL("qwen2_5_vl", "")};
    for (int i = 0; i < 6; i++) { /* those of the second half say that there is no window */
        blocks(from[i], "x", "0", "ffffff");
        blocks(from[i], "max_window_layers", "0", i < 3 ? "wwwwww" : "ffffff");
        blocks(from[i], "max_window_layers", "4", i < 3 ? "ffffww" : "ffffff");
        blocks(from[i], "layer_types", LISTED, i < 3 ? "fwwfwf" : "ffffff");
        blocks(from[i], "sliding_window", "null", "ffffff");
    }
    char *many = edited(from[0], "num_hidden_layers", "30"), *vl = edited(from[2], "num_hidden_layers", "81");
    bq_model m;
    assert_int_equal(parse(many, &m), BQ_OK); /* without max_window_layers: 28 */
    assert_true(m.window == 4096 && m.full[27] && !m.full[28] && !m.full[29]);
    assert_int_equal(parse(vl, &m), BQ_OK); /* 80 */
    assert_true(m.full[79] && !m.full[80]);
    free(many), free(vl);
    blocks(gemma2, "x", "0", "wfwfwf");
    blocks(gemma2, "layer_types", LISTED, "fwwfwf");
    blocks(gemma3, "x", "0", "wwwwwf");
    blocks(gemma3, "sliding_window_pattern", "3", "wwfwwf");
    blocks(gemma3, "sliding_window_pattern", "1", "ffffff");
    blocks(gemma3, "layer_types", LISTED, "fwwfwf");
    blocks(qwen3vl, "layer_types", LISTED, "ffffff");
    blocks(llama, "layer_types", LISTED, "ffffff");
    blocks(olmo2, "sliding_window", "7", "ffffff");
}

/* ---- ropes ---- */

/* The two ropes of Gemma-3 in the schemas of transformers 4 and 5. */
static void two_ropes(void **state) {
    (void)state;
    static const char *const schema[] = {
        MODEL("gemma3_text", ",\"head_dim\":16,\"rope_theta\":5e5,\"rope_local_base_freq\":2e4,"
                             "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8.0}"),
        MODEL("gemma3_text",
              ",\"head_dim\":16,\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"rope_"
              "theta\":5e5,"
              "\"factor\":8.0},\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":2e4}}")};
    for (int v5 = 0; v5 < 2; v5++) {
        bq_model m;
        assert_int_equal(parse(schema[v5], &m), BQ_OK);
        assert_true(m.rope.kind == BQ_ROPE_DEFAULT && m.rope.theta == 2e4 && m.rope.factor == 1);
        assert_true(m.full_rope.kind == BQ_ROPE_LINEAR && m.full_rope.theta == 5e5 &&
                    m.full_rope.factor == 8);
        assert_true(m.rope.dim == 16 && m.full_rope.dim == 16 && m.rope.attention == 1 &&
                    m.full_rope.attention == 1);
    }
    assert_true(hash_of(schema[0]) == hash_of(schema[1]));
    bq_model m;
    assert_int_equal(parse_edited(gemma3, "rope_parameters", "{\"full_attention\":{\"rope_theta\":7.0}}", &m),
                     BQ_OK);
    assert_true(m.full_rope.theta == 7 && m.rope.theta == 1e4);
    assert_int_equal(parse_edited(gemma3, "rope_parameters",
                                  "{\"full_attention\":{},\"sliding_attention\":{\"rope_theta\":7.0}}", &m),
                     BQ_OK);
    assert_true(m.full_rope.theta == 1e6 && m.rope.theta == 7);
    assert_int_equal(parse_edited(gemma3, "rope_parameters", "{\"rope_theta\":7.0}", &m), BQ_OK);
    assert_true(m.full_rope.theta == 7 && m.rope.theta == 1e4);
    assert_refused(parse_edited(schema[0], "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":8.0}", &m),
                   "rope_scaling.rope_type: 'yarn' is not known for gemma3_text");
    assert_refused(parse_edited(gemma3, "rope_parameters",
                                "{\"full_attention\":{},\"sliding_attention\":{\"rope_type\":\"linear\"}}",
                                &m),
                   "rope_parameters.sliding_attention.factor: is missing");
}

#define YARN(more) "{\"rope_type\":\"yarn\"" more "}"

/* What yarn leaves out is computed.  An original length at top level counts more than the one beside. */
static void yarn(void **state) {
    (void)state;
    static const struct {
        const char *value;
        double factor, original, attention;
    } scaling[] = {
        {YARN(",\"factor\":4.0,\"original_max_position_embeddings\":512"), 4, 512, 1.138629436},
        {YARN(",\"factor\":32.0,\"original_max_position_embeddings\":64"), 32, 64, 1.34657359},
        {YARN(",\"original_max_position_embeddings\":64"), 32, 64, 1.34657359},
        {YARN(",\"factor\":0.5"), 0.5, 2048, 1},
        {YARN(",\"factor\":32,\"attention_factor\":1.25,\"mscale\":1,\"mscale_all_dim\":1"), 32, 2048, 1.25},
        {YARN(",\"factor\":40,\"mscale\":1,\"mscale_all_dim\":1"), 40, 2048, 1},
        {YARN(",\"factor\":40,\"mscale\":1,\"mscale_all_dim\":0.5"), 40, 2048, 1.36888795 / 1.18444397},
        {YARN(",\"factor\":40,\"mscale\":2,\"mscale_all_dim\":0"), 40, 2048, 1.36888795},
    };
    bq_model m;
    for (size_t i = 0; i < sizeof scaling / sizeof *scaling; i++) {
        assert_int_equal(parse_edited(llama, "rope_scaling", scaling[i].value, &m), BQ_OK);
        assert_true(m.rope.kind == BQ_ROPE_YARN && m.rope.truncate && m.rope.low == 1 && m.rope.high == 32);
        assert_true(m.rope.factor == scaling[i].factor && m.rope.original == scaling[i].original);
        if (fabs(m.rope.attention - scaling[i].attention) > 1e-8)
            fail_msg("%zu: attention %.10g", i, m.rope.attention);
    }
    char *top = edited(llama, "original_max_position_embeddings", "1024");
    assert_int_equal(parse_edited(top, "rope_scaling", scaling[2].value, &m), BQ_OK);
    assert_true(m.rope.original == 1024 && m.rope.factor == 2);
    free(top);
    assert_int_equal(
        parse_edited(qwen2, "rope_scaling",
                     "{\"type\":\"yarn\",\"factor\":4.0,\"truncate\":false,\"beta_fast\":20,\"beta_slow\":2}",
                     &m),
        BQ_OK);
    assert_true(!m.rope.truncate && m.rope.low == 2 && m.rope.high == 20 && m.rope.original == 32768);
    static const char *const all[] = {llama, mistral, qwen2, qwen3, qwen25vl};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(parse_edited(all[i], "rope_scaling", YARN(",\"factor\":4.0"), &m), BQ_OK);
        assert_int_equal(m.rope.kind, BQ_ROPE_YARN);
    }
    assert_refused(parse_edited(llama, "rope_scaling", YARN(",\"beta_fast\":1,\"beta_slow\":1"), &m),
                   "rope_scaling.beta_fast: 1 is not above beta_slow 1");
    assert_refused(parse_edited(llama, "rope_scaling", YARN(",\"rope_theta\":1"), &m),
                   "rope_theta: 1 is not above 1");
    assert_refused(parse_edited(llama, "rope_scaling", YARN(",\"factor\":0"), &m), "rope_scaling.factor");
    assert_refused(parse_edited(olmo2, "rope_scaling", YARN(",\"factor\":2"), &m),
                   "'yarn' is not known for olmo2");
}

/* ---- nested configs ---- */

static const char *const tied_at[] = {
    NESTED("qwen3_vl", ""), NESTED("qwen3_vl", ",\"tie_word_embeddings\":true"),
    "{\"model_type\":\"qwen3_vl\",\"tie_word_embeddings\":true,\"text_config\":{" SIZES "}}",
    "{\"model_type\":\"qwen3_vl\",\"tie_word_embeddings\":true,\"text_config\":{" SIZES
    ",\"tie_word_embeddings\":true}}"};

static void nested(void **state) {
    (void)state;
    bq_model m;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(parse(tied_at[i], &m), BQ_OK);
        assert_true(m.tied == (i > 0) && hash_of(tied_at[i]) == hash_of(tied_at[i ? 1 : 0]));
    }
    assert_true(hash_of(tied_at[0]) != hash_of(tied_at[1]));
    assert_true(hash_of(qwen25vl) == hash_of(qwen25vl_nested));
    /* as published: what images alone read says nothing */
    assert_int_equal(
        parse(MODEL("qwen2_5_vl", ",\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[2,3,3]}"), &m),
        BQ_OK);
    assert_true(m.rope.kind == BQ_ROPE_DEFAULT && m.rope.theta == 1e6);
    assert_int_equal(
        parse(NESTED("qwen3_vl", ",\"rope_parameters\":{\"mrope_interleaved\":true,\"mrope_section\":[4,2,2],"
                                 "\"rope_theta\":5e6,\"rope_type\":\"default\"}"),
              &m),
        BQ_OK);
    assert_true(m.rope.theta == 5e6);
    assert_refused(parse("{\"model_type\":\"qwen3_vl\",\"text_config\":{\"hidden_size\":64}}", &m),
                   "text_config.");
    assert_refused(parse("{\"model_type\":\"qwen3_vl\",\"text_config\":7}", &m),
                   "text_config: is not an object");
    assert_refused(parse(NESTED("qwen3_vl", ",\"rope_scaling\":{\"type\":\"no\"}"), &m),
                   "text_config.rope_scaling.rope_type");
    assert_refused(parse("{\"model_type\":\"llama\",\"text_config\":{" SIZES "}}", &m),
                   "hidden_size: is missing");
    assert_refused(
        parse("{\"model_type\":\"qwen3_vl\",\"quantization_config\":{},\"text_config\":{" SIZES "}}", &m),
        "start from the unquantized");
}

/* ---- */

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *text, *key, *value, *needle;
    } refused[] = {
        {qwen2, "layer_types", "[" F "," F "," F "," F "," F "]", "layer_types: 5 entries, the model has 6"},
        {qwen3, "layer_types", "[" F "," F "," F "," F "," F "," F "," F "]", "layer_types: 7 entries"},
        {gemma3, "layer_types", "[]", "layer_types: 0 entries"},
        {gemma3, "layer_types", F, "layer_types: 0 entries"},
        {gemma3, "layer_types", "[" F "," S "," F "," F "," F ",7]", "'' is not supported for gemma3_text"},
        {gemma2, "layer_types", "[" F "," S "," F "," F "," F ",\"chunked_attention\"]",
         "'chunked_attention'"},
        {qwen3, "layer_types", "[" F "," F "," F ",\"linear_attention\"," F "," F "]",
         "'linear_attention' is not supported"},
        {qwen3, "hidden_act", "\"gelu\"", "only silu is supported for qwen3"},
        {mistral, "hidden_act", "\"gelu_pytorch_tanh\"", "only silu is supported for mistral"},
        {olmo2, "hidden_act", "\"relu\"", "only silu"},
        {gemma2, "hidden_activation", "\"gelu\"",
         "hidden_activation: only gelu_pytorch_tanh is supported for gemma2"},
        {gemma2, "hidden_act", "\"silu\"", "only gelu_pytorch_tanh"},
        {gemma3, "hidden_activation", "\"silu\"", "only gelu_pytorch_tanh is supported for gemma3_text"},
        {gemma2, "attn_logit_softcapping", NULL, "attn_logit_softcapping: is missing"},
        {gemma2, "attn_logit_softcapping", "null", "attn_logit_softcapping: is missing"},
        {gemma2, "final_logit_softcapping", "null", "final_logit_softcapping: is missing"},
        {gemma2, "attn_logit_softcapping", "0", "attn_logit_softcapping"},
        {gemma2, "sliding_window_pattern", "3", "sliding_window_pattern"},
        {gemma2, "use_bidirectional_attention", "true", "only false is supported for gemma2"},
        {gemma3, "use_bidirectional_attention", "true", "only false is supported for gemma3_text"},
        {gemma3, "sliding_window_pattern", "0", "sliding_window_pattern"},
        {gemma3, "query_pre_attn_scalar", "0", "query_pre_attn_scalar"},
        {gemma3, "final_logit_softcapping", "-1", "final_logit_softcapping"},
        {gemma3, "rope_local_base_freq", "0", "rope_local_base_freq"},
        {qwen2, "max_window_layers", "-1", "max_window_layers"},
        {qwen2, "use_sliding_window", "1", "neither true nor false"},
        {mistral, "sliding_window", "0", "sliding_window"},
        {mistral, "partial_rotary_factor", "0.5", "only 1 is supported for mistral"},
        {mistral, "rope_scaling", "{\"type\":\"llama3\",\"factor\":8}", "'llama3' is not known for mistral"},
        {qwen3, "architectures", "[\"Qwen2ForCausalLM\"]", "known are llama"},
        {gemma3, "model_type", "\"gemma3\"", "known are llama"},
        {gemma3, "model_type", "\"gemma3\"",
         "qwen3_vl (Qwen3VLForConditionalGeneration)"}, /* the list is whole */
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        bq_model m;
        assert_refused(parse_edited(refused[i].text, refused[i].key, refused[i].value, &m),
                       refused[i].needle);
    }
}

static const char windowed[] = MODEL("qwen2", ",\"use_sliding_window\":true,\"max_window_layers\":2"),
                  yarned[] = MODEL("llama", ",\"rope_scaling\":" YARN(",\"factor\":4.0"));

/* A key that changes results changes the hash; one that does not, or that says the default, leaves it. */
static void hashes(void **state) {
    (void)state;
    static const struct {
        const char *text, *key, *value;
    } edit[] = {
        {mistral, "sliding_window", "null"},
        {mistral, "sliding_window", "32"},
        {mistral, "rope_theta", "1e6"},
        {qwen3, "attention_bias", "true"},
        {qwen3, "head_dim", "32"},
        {olmo2, "attention_bias", "true"},
        {olmo2, "rms_norm_eps", "1e-5"},
        {qwen2, "use_sliding_window", "true"},
        {windowed, "max_window_layers", "3"},
        {windowed, "sliding_window", "32"},
        {windowed, "layer_types", LISTED},
        {windowed, "use_sliding_window", "false"},
        {gemma2, "attn_logit_softcapping", "49"},
        {gemma2, "final_logit_softcapping", "29"},
        {gemma2, "query_pre_attn_scalar", "144"},
        {gemma2, "layer_types", LISTED},
        {gemma2, "sliding_window", "32"},
        {gemma2, "tie_word_embeddings", "false"},
        {gemma3, "final_logit_softcapping", "30"},
        {gemma3, "sliding_window_pattern", "3"},
        {gemma3, "rope_theta", "1e5"},
        {gemma3, "rope_local_base_freq", "1e5"},
        {gemma3, "rope_scaling", "{\"rope_type\":\"linear\",\"factor\":8}"},
        {gemma3, "rope_parameters",
         "{\"full_attention\":{},\"sliding_attention\":{\"rope_type\":\"linear\",\"factor\":8}}"},
        {qwen25vl, "rope_theta", "1e5"},
        {llama, "rope_scaling", YARN(",\"factor\":4.0")},
        {yarned, "rope_scaling", YARN(",\"factor\":5.0")},
        {yarned, "rope_scaling", YARN(",\"factor\":4.0,\"truncate\":false")},
        {yarned, "rope_scaling", YARN(",\"factor\":4.0,\"beta_fast\":31")},
        {yarned, "rope_scaling", YARN(",\"factor\":4.0,\"beta_slow\":2")},
        {yarned, "rope_scaling", YARN(",\"factor\":4.0,\"attention_factor\":1")},
        {yarned, "rope_scaling", YARN(",\"factor\":4.0,\"mscale\":1,\"mscale_all_dim\":0.5")},
        {yarned, "original_max_position_embeddings", "1024"},
        {yarned, "max_position_embeddings", "4096"}, /* by the original length */
        /* those below change nothing */
        {mistral, "sliding_window", "4096"},
        {mistral, "layer_types", LISTED},
        {mistral, "max_position_embeddings", "9"},
        {qwen2, "max_window_layers", "3"},
        {qwen2, "sliding_window", "32"},
        {qwen3, "use_sliding_window", "false"},
        {windowed, "layer_types", "[" F "," F "," S "," S "," S "," S "]"},
        {gemma2, "layer_types", "[" S "," F "," S "," F "," S "," F "]"},
        {gemma2, "hidden_act", "\"gelu_pytorch_tanh\""},
        {gemma2, "sliding_window_pattern", "2"},
        {gemma3, "attn_logit_softcapping", "50"}, /* transformers does not apply it */
        {gemma3, "layer_types", "[" S "," S "," S "," S "," S "," F "]"},
        {gemma3, "use_bidirectional_attention", "false"},
        {gemma3, "rope_parameters",
         "{\"full_attention\":{\"rope_theta\":1e6},\"sliding_attention\":{\"rope_theta\":1e4}}"},
        {qwen25vl, "rope_scaling", "{\"type\":\"mrope\",\"mrope_section\":[2,3,3]}"},
        {yarned, "rope_scaling",
         YARN(",\"factor\":4.0,\"original_max_position_embeddings\":2048,\"mscale\":2")},
    };
    enum { CHANGES = 34 };
    for (size_t i = 0; i < sizeof edit / sizeof *edit; i++)
        if (hash_moves(edit[i].text, edit[i].key, edit[i].value) != (i < CHANGES))
            fail_msg("%zu: %s %s", i, edit[i].key, edit[i].value);
    static const char *const all[] = {llama,  qwen2,  qwen3,    mistral, olmo2,
                                      gemma2, gemma3, qwen25vl, qwen3vl, phi3};
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < i; j++) assert_true(hash_of(all[i]) != hash_of(all[j]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults), cmocka_unit_test(windows), cmocka_unit_test(two_ropes),
        cmocka_unit_test(yarn),     cmocka_unit_test(nested),  cmocka_unit_test(refusals),
        cmocka_unit_test(hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
