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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
