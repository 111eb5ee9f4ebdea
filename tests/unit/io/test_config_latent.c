/* SPDX-License-Identifier: Apache-2.0 */
/* config.json of models with latent attention: sizes, scores under yarn, FP8, what is refused, what the hash
 * is made of. */
#include "config_edit.h"

#include <math.h>

#define YARN(more)                                                                                           \
    "{\"type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":4096,\"beta_fast\":32,"           \
    "\"beta_slow\":1" more "}"
/* As the released one, whose num_key_value_heads has no effect. */
#define SIZES                                                                                                \
    "\"hidden_size\":7168,\"intermediate_size\":18432,\"vocab_size\":129280,\"num_hidden_layers\":61,"       \
    "\"num_attention_heads\":128,\"num_key_value_heads\":128,\"rms_norm_eps\":1e-06,"                        \
    "\"n_routed_experts\":256,\"num_experts_per_tok\":8,\"moe_intermediate_size\":2048"
#define FP8                                                                                                  \
    "{\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\",\"quant_method\":\"fp8\",\"weight_block_size\":"    \
    "[128,128]}"
static const char deepseek[] = "{\"model_type\":\"deepseek_v3\"," SIZES "}",
                  released[] =
                      "{\"model_type\":\"deepseek_v3\"," SIZES ",\"q_lora_rank\":1536,\"scoring_func\":"
                      "\"sigmoid\",\"topk_method\":\"noaux_tc\",\"moe_layer_freq\":1,\"rope_scaling\":" YARN(
                          ",\"mscale\":1.0,\"mscale_all_dim\":1.0") ",\"quantization_config\":" FP8 "}";

static void sizes(void **state) {
    (void)state;
    bq_model m;
    assert_int_equal(parse(deepseek, &m), BQ_OK);
    assert_true(m.q_rank == 1536 && m.kv_rank == 512 && m.nope_dim == 128 && m.rope_dim == 64 &&
                m.value_dim == 128 && m.rope_pairs && m.head_dim == 192 && m.kv_heads == 128 &&
                m.rope.dim == 64 && m.query_scalar == 0 && m.max_position == 4096);
    assert_true(m.route_groups == 8 && m.route_kept == 4 && m.route_factor == 2.5 && m.route_normalize &&
                m.route_sigmoid && m.shared_inter == 2048 && m.dense[2] && !m.dense[3]);
    assert_int_equal(parse_edited(deepseek, "q_lora_rank", "null", &m), BQ_OK);
    assert_true(m.q_rank == 0);
    assert_int_equal(parse_edited(deepseek, "head_dim", "64", &m), BQ_OK);
    assert_true(m.head_dim == 192);
    assert_int_equal(parse_edited(deepseek, "num_key_value_heads", "3", &m), BQ_OK);
    assert_true(m.kv_heads == 128);
}

/* The factor of scores, M(mscale_all_dim)^2, is by hand; cos and sin get none. */
static void scores(void **state) {
    (void)state;
    bq_model m;
    assert_int_equal(parse(released, &m), BQ_OK);
    assert_true(m.rope.attention == 1 && fabs(sqrt(192 / m.query_scalar) - 1.87385421) < 1e-8);
    assert_int_equal(parse_edited(released, "rope_scaling", YARN(""), &m), BQ_OK);
    assert_true(m.query_scalar == 0 && fabs(m.rope.attention - 1.36888794) < 1e-8);
}

static void fp8(void **state) {
    (void)state;
    bq_model m;
    static const char key[] = "quantization_config";
    assert_refused(parse_edited(released, key, "{\"quant_method\":\"gptq\",\"bits\":4}", &m),
                   "quantization_config.quant_method: 'gptq' (e4m3): this checkpoint is quantized already");
    assert_refused(parse_edited(released, key, "{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}", &m),
                   "'fp8' (e5m2)");
    assert_refused(parse_edited(released, key, "{\"quant_method\":\"fp8\"}", &m), "weight_block_size");
    assert_refused(
        parse_edited(released, key, "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,64]}", &m),
        "weight_block_size");
    assert_refused(parse_edited(released, key, "\"fp8\"", &m), "quantization_config");
    char *llama = edited(released, "model_type", "\"llama\"");
    assert_refused(parse(llama, &m), "quantization_config: this checkpoint is quantized already");
    free(llama);
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *needle;
    } refused[] = {
        {"q_lora_rank", "0", "q_lora_rank"},
        {"kv_lora_rank", "0", "kv_lora_rank"},
        {"kv_lora_rank", "16777217", "kv_lora_rank"},
        {"qk_rope_head_dim", "63", "head_dim: 191 is odd"},
        {"qk_rope_head_dim", "514", "rotary channels"},
        {"qk_nope_head_dim", "-2", "qk_nope_head_dim"},
        {"qk_nope_head_dim", "131072", "out of range"},
        {"v_head_dim", "131072", "v_head_dim: 128 heads of 128 + 131072 channels"},
        {"rope_interleave", "1", "neither true nor false"},
        {"scoring_func", "\"softmax\"", "only sigmoid is supported"},
        {"topk_method", "\"greedy\"", "only noaux_tc is supported"},
        {"moe_layer_freq", "2", "only 1 is supported"},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":8}", "'linear' is not known for deepseek_v3"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        bq_model m;
        assert_refused(parse_edited(deepseek, refused[i].key, refused[i].value, &m), refused[i].needle);
    }
}

static void hashes(void **state) {
    (void)state;
    static const char *const edit[][2] = {
        {"q_lora_rank", "null"},    {"q_lora_rank", "1534"},     {"kv_lora_rank", "510"},
        {"qk_nope_head_dim", "64"}, {"qk_rope_head_dim", "128"}, {"v_head_dim", "64"},
        {"n_group", "4"},           {"rope_interleave", "false"}};
    for (size_t i = 0; i < sizeof edit / sizeof *edit; i++)
        if (!hash_moves(deepseek, edit[i][0], edit[i][1])) fail_msg("%s does not count", edit[i][0]);
    assert_true(hash_moves(released, "rope_scaling", YARN(",\"mscale\":1.5,\"mscale_all_dim\":1.5")));
    assert_false(hash_moves(deepseek, "head_dim", "64"));
    assert_false(hash_moves(deepseek, "num_key_value_heads", "1"));
    assert_false(hash_moves(released, "quantization_config", NULL)); /* weights have a hash of their own */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(scores),
                                       cmocka_unit_test(fp8), cmocka_unit_test(refusals),
                                       cmocka_unit_test(hashes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
