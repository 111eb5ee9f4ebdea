/* SPDX-License-Identifier: Apache-2.0 */
/* config.json of models with experts: defaults, which blocks have them, what is refused. */
#include "config_edit.h"

#define SIZES                                                                                                \
    "\"hidden_size\":64,\"intermediate_size\":96,\"vocab_size\":97,\"num_hidden_layers\":6,"                 \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06"
#define MODEL(type, more) "{\"model_type\":\"" type "\"," SIZES more "}"
#define EXPERTS           "\"num_experts_per_tok\":2,\"moe_intermediate_size\":32"
static const char mixtral[] = MODEL("mixtral", ",\"num_local_experts\":4,\"num_experts_per_tok\":2"),
                  qwen2moe[] = MODEL("qwen2_moe",
                                     ",\"num_experts\":4,\"shared_expert_intermediate_size\":48," EXPERTS),
                  qwen3moe[] = MODEL("qwen3_moe", ",\"num_experts\":4," EXPERTS),
                  glm4moe[] = MODEL("glm4_moe", ",\"n_routed_experts\":4," EXPERTS);

static void experts(void **state) {
    (void)state;
    bq_model m;
    assert_int_equal(parse(mixtral, &m), BQ_OK);
    assert_true(m.experts == 4 && m.chosen == 2 && m.expert_inter == 96 && m.route_normalize &&
                !m.route_sigmoid);
    assert_int_equal(parse_edited(mixtral, "norm_topk_prob", "false", &m), BQ_OK);
    assert_true(m.route_normalize); /* not a key of Mixtral's */
    assert_int_equal(parse(qwen2moe, &m), BQ_OK);
    assert_true(m.shared_inter == 48 && m.expert_inter == 32 && !m.route_normalize && m.attention_bias);
    assert_int_equal(parse(glm4moe, &m), BQ_OK);
    assert_true(m.route_sigmoid && m.route_normalize && m.route_groups == 1 && m.route_factor == 1 &&
                m.shared_inter == 32 && m.rope.dim == 8 && !m.qk_norm && m.dense[0] && !m.dense[1]);
    assert_int_equal(parse_edited(qwen3moe, "mlp_only_layers", "[1,3]", &m), BQ_OK);
    assert_true(!m.dense[0] && m.dense[1] && !m.dense[2] && m.dense[3]);
    assert_int_equal(parse_edited(qwen3moe, "decoder_sparse_step", "2", &m), BQ_OK);
    assert_true(m.dense[0] && !m.dense[1] && m.dense[4] && !m.dense[5]);
    assert_refused(parse_edited(qwen3moe, "num_experts", NULL, &m), "num_experts: is missing");
    assert_refused(parse_edited(qwen3moe, "num_experts", "257", &m), "num_experts");
    assert_refused(parse_edited(qwen3moe, "num_experts_per_tok", "5", &m),
                   "num_experts_per_tok: 5 of 4 experts");
    assert_refused(parse_edited(glm4moe, "n_group", "3", &m), "n_group: 3 groups of 4 experts");
    assert_true(hash_of(qwen3moe) != hash_of(mixtral));
    char *other = edited(qwen3moe, "mlp_only_layers", "[1]");
    assert_true(hash_of(qwen3moe) != hash_of(other));
    free(other);
}

#define YARN                                                                                                 \
    "{\"rope_type\":\"yarn\",\"factor\":32.0,\"original_max_position_embeddings\":4096,\"truncate\":false}"
static const char gptoss[] = MODEL("gpt_oss", ",\"num_local_experts\":4,\"num_experts_per_tok\":2,"
                                              "\"rope_scaling\":" YARN);

static void gpt_oss(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *needle;
    } refused[] = {
        {"rope_scaling", NULL, "rope_type: is missing"},
        {"rope_scaling", "null", "rope_type: is missing"},
        {"rope_scaling", "{\"rope_type\":\"default\"}", "'default' is not known for gpt_oss"},
        {"swiglu_alpha", "1.7", "swiglu_alpha: only 1.702 is supported for gpt_oss"},
        {"swiglu_limit", "0", "swiglu_limit"},
        {"swiglu_limit", "\"7\"", "swiglu_limit"},
        {"hidden_act", "\"gelu\"", "only silu is supported for gpt_oss"},
        {"sliding_window_pattern", "3", "sliding_window_pattern"},
        {"num_local_experts", NULL, "num_experts: is missing"},
        {"quantization_config", "{\"quant_method\":\"fp8\"}", "start from the unquantized model"},
    };
    static const char *const moves[][2] = {{"swiglu_limit", "6"},      {"attention_bias", "false"},
                                           {"sliding_window", "null"}, {"head_dim", "32"},
                                           {"rope_theta", "1e5"},      {"num_local_experts", "5"}};
    static const char *const stays[][2] = {{"swiglu_limit", "7.0"},    {"attention_bias", "true"},
                                           {"sliding_window", "128"},  {"head_dim", "64"},
                                           {"swiglu_alpha", "1.702"},  {"experts_per_token", "2"},
                                           {"rope_theta", "150000.0"}, {"max_position_embeddings", "9"}};
    bq_model m;
    assert_int_equal(parse(gptoss, &m), BQ_OK);
    assert_true(m.experts == 4 && m.chosen == 2 && m.expert_inter == 96 && !m.shared_inter &&
                m.glu_limit == 7);
    assert_true(m.route_normalize && !m.route_sigmoid && m.attention_bias && m.head_dim == 64 && !m.tied);
    assert_true(m.rope.kind == BQ_ROPE_YARN && !m.rope.truncate && m.rope.theta == 1.5e5 && m.rope.dim == 64);
    assert_true(m.window == 128 && m.max_position == 131072);
    for (int b = 0; b < m.blocks; b++) assert_true(m.full[b] == (b % 2 == 1) && !m.dense[b]);
    assert_int_equal(parse_edited(gptoss, "layer_types",
                                  "[\"full_attention\",\"sliding_attention\",\"full_attention\","
                                  "\"full_attention\",\"full_attention\",\"full_attention\"]",
                                  &m),
                     BQ_OK);
    assert_true(m.full[0] && !m.full[1] && m.full[2]);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_refused(parse_edited(gptoss, refused[i].key, refused[i].value, &m), refused[i].needle);
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++)
        assert_true(hash_moves(gptoss, moves[i][0], moves[i][1]));
    for (size_t i = 0; i < sizeof stays / sizeof *stays; i++)
        assert_false(hash_moves(gptoss, stays[i][0], stays[i][1]));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(experts), cmocka_unit_test(gpt_oss)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
