/* SPDX-License-Identifier: Apache-2.0 */
/* config.json from the keys of a GGUF file, one architecture after the other. */
#include "gguf_file.h"

#include "base/family.h"
#include "io/in/config.h"
#include "io/in/gguf_config.h"
#include "io/json.h"

#include <math.h>

/* Keys without the architecture before them, which file() adds: 'A.block_count' w4 w2. */
#define SIZES                                                                                                \
    "'A.block_count' w4 w2 'A.context_length' w4 w512 'A.embedding_length' w4 w64 "                          \
    "'A.feed_forward_length' w4 w96 'A.attention.head_count' w4 w4 "                                         \
    "'A.attention.layer_norm_rms_epsilon' w6 f1e-5 "
#define SIZES_N 6
#define EMBED   "'token_embd.weight' w2 q1 q97 w0 q0 "
#define JSON                                                                                                 \
    "\"dtype\":\"float32\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"             \
    "\"num_attention_heads\":4,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-05,\"vocab_size\":97,"

static void replace(char *text, const char *from, const char *to) {
    char rest[4096];
    for (char *at; (at = strstr(text, from));) {
        assert_true(strlen(at) < sizeof rest);
        strcpy(rest, at + strlen(from));
        strcpy(at, to);
        strcat(at, rest);
    }
}

/* A file of this architecture with these keys and tensors.  All data are in the zeros behind, but for what
 * `tail` writes there first. */
static bq_gguf *file(const char *arch, int keys, const char *key, int tensors, const char *tensor,
                     const char *tail) {
    static char line[16384];
    bq_gguf *g;
    char dot[80];
    snprintf(line, sizeof line,
             "!GGUF w3 q%d q%d 'general.architecture' w8 '%s' 'general.alignment' w4 w4 " SIZES "%s " EMBED
             "%s |4 %s |512 +4096",
             tensors + 1, keys + SIZES_N + 2, arch, key, tensor, tail);
    snprintf(dot, sizeof dot, "'%s.", arch);
    replace(line, "'A.", dot);
    assert_int_equal(bq_gguf_open(&g, gguf_save("c.gguf", line)), BQ_OK);
    return g;
}

static json_t *config_of(bq_gguf *g) {
    json_t *config;
    assert_int_equal(bq_gguf_config(g, &config), BQ_OK);
    bq_gguf_close(g);
    return config;
}

static int refused(bq_gguf *g) {
    json_t *config;
    int rc = bq_gguf_config(g, &config);
    assert_true(!config == (rc != BQ_OK));
    json_decref(config);
    bq_gguf_close(g);
    return rc;
}

static void same(json_t *got, const char *want) {
    json_t *v = json_loads(want, 0, NULL);
    char *text = json_dumps(got, JSON_COMPACT);
    assert_non_null(v);
    if (!json_equal(got, v)) fail_msg("got %s, wanted %s", text, want);
    free(text);
    json_decref(v);
    json_decref(got);
}

static bq_model model_of(json_t *config) {
    bq_model m;
    size_t bytes;
    char *text = bq_json_text_of(config, &bytes);
    assert_int_equal(bq_config_parse("made", text, bytes, &m), BQ_OK);
    free(text);
    json_decref(config);
    return m;
}

/* ---- */

static void llama(void **state) {
    (void)state;
    same(config_of(file("llama", 0, "", 0, "", "")),
         "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"," JSON
         "\"num_key_value_heads\":4,\"head_dim\":16,\"tie_word_embeddings\":true,\"rope_theta\":10000.0,"
         "\"rope_scaling\":null,\"hidden_act\":\"silu\",\"attention_bias\":false,\"mlp_bias\":false}");
    same(config_of(
             file("llama", 8,
                  "'A.attention.head_count_kv' w4 w2 'A.attention.key_length' w4 w24 "
                  "'A.attention.value_length' w4 w24 'A.rope.freq_base' w6 f500000 'A.rope.scaling.type' w8 "
                  "'linear' 'A.rope.scaling.factor' w6 f2.5 'tokenizer.ggml.eos_token_id' w4 w7 "
                  "'tokenizer.ggml.padding_token_id' w4 w0",
                  3,
                  "'output.weight' w2 q1 q97 w0 q388 'blk.0.attn_q.bias' w1 q1 w0 q776 "
                  "'blk.0.ffn_gate.bias' w1 q1 w0 q780",
                  "")),
         "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"," JSON
         "\"num_key_value_heads\":2,\"head_dim\":24,\"tie_word_embeddings\":false,\"rope_theta\":500000.0,"
         "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5},\"hidden_act\":\"silu\","
         "\"attention_bias\":true,\"mlp_bias\":true,\"eos_token_id\":7,\"pad_token_id\":0}");
}

static void others(void **state) {
    (void)state;
    same(config_of(file("llama", 2, "'A.expert_count' w4 w8 'A.expert_used_count' w4 w2", 0, "", "")),
         "{\"architectures\":[\"MixtralForCausalLM\"],\"model_type\":\"mixtral\"," JSON
         "\"num_key_value_heads\":4,\"head_dim\":16,\"tie_word_embeddings\":true,\"rope_theta\":10000.0,"
         "\"rope_scaling\":null,\"hidden_act\":\"silu\",\"attention_bias\":false,\"num_local_experts\":8,"
         "\"num_experts_per_tok\":2}");
    same(config_of(
             file("qwen3moe", 4,
                  "'A.expert_count' w4 w8 'A.expert_used_count' w4 w2 'A.expert_feed_forward_length' w4 w36 "
                  "'A.attention.key_length' w4 w128",
                  0, "", "")),
         "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\"," JSON
         "\"num_key_value_heads\":4,\"head_dim\":128,\"tie_word_embeddings\":true,\"rope_theta\":10000.0,"
         "\"rope_scaling\":null,\"hidden_act\":\"silu\",\"num_experts\":8,\"num_experts_per_tok\":2,"
         "\"moe_intermediate_size\":36,\"norm_topk_prob\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":"
         "[]}");
    same(config_of(file("gemma3", 3,
                        "'A.attention.sliding_window' w4 w32 'A.rope.scaling.type' w8 'linear' "
                        "'A.rope.scaling.factor' w6 f8",
                        0, "", "")),
         "{\"architectures\":[\"Gemma3ForCausalLM\"],\"model_type\":\"gemma3_text\"," JSON
         "\"num_key_value_heads\":4,\"head_dim\":16,\"tie_word_embeddings\":true,\"rope_theta\":1000000.0,"
         "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8.0},\"sliding_window\":32,"
         "\"hidden_activation\":\"gelu_pytorch_tanh\",\"rope_local_base_freq\":10000.0,"
         "\"sliding_window_pattern\":6,\"query_pre_attn_scalar\":16}");
    same(config_of(file("qwen2", 3,
                        "'A.rope.scaling.type' w8 'yarn' 'A.rope.scaling.factor' w6 f4 "
                        "'A.rope.scaling.original_context_length' w4 w128",
                        0, "", "")),
         "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\"," JSON
         "\"num_key_value_heads\":4,\"head_dim\":16,\"tie_word_embeddings\":true,\"rope_theta\":10000.0,"
         "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":128},"
         "\"hidden_act\":\"silu\"}");
}

/* The divisors that llama.cpp's converter writes, and what is read from them. */
static void llama3(void **state) {
    (void)state;
    static const struct {
        double theta, factor, original;
        int pairs;
    } cases[] = {{5e5, 8, 8192, 64}, {5e5, 32, 8192, 32}, {1e4, 8, 64, 8}, {1e4, 16, 4096, 48}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[300], tensor[100], tail[4096] = "+388";
        for (int k = 0; k < cases[i].pairs; k++) {
            double wave = 2 * acos(-1) * pow(cases[i].theta, (double)k / cases[i].pairs), d;
            double t = (cases[i].original / wave - 1) / 3;
            d = wave < cases[i].original / 4 ? 1
                : wave > cases[i].original   ? cases[i].factor
                                             : 1 / ((1 - t) / cases[i].factor + t);
            snprintf(tail + strlen(tail), 30, " f%.9g", (double)(float)d);
        }
        snprintf(key, sizeof key, "'A.rope.freq_base' w6 f%g 'A.attention.key_length' w4 w%d", cases[i].theta,
                 2 * cases[i].pairs);
        snprintf(tensor, sizeof tensor, "'rope_freqs.weight' w1 q%d w0 q388", cases[i].pairs);
        bq_model m = model_of(config_of(file("llama", 2, key, 1, tensor, tail)));
        assert_true(m.rope.kind == BQ_ROPE_LLAMA3 && m.rope.factor == cases[i].factor && m.rope.low == 1);
        assert_true(m.rope.high == 4 && m.rope.original == cases[i].original &&
                    m.rope.theta == cases[i].theta);
    }
    assert_refused(
        refused(file("llama", 0, "", 1, "'rope_freqs.weight' w1 q8 w0 q388", "+388 f1 f1 f1 f2 f3 f8 f8 f8")),
        "rope_freqs.weight: value 3 is 2; the rule of llama3");
    assert_refused(refused(file("llama", 0, "", 1, "'rope_freqs.weight' w1 q7 w0 q388", "")),
                   "7 values for 8 pairs of rotary channels");
    assert_refused(refused(file("llama", 0, "", 1, "'rope_freqs.weight' w1 q8 w0 q388", "")),
                   "value 0 is 0, not within 1 .. 1e+06");
}

#define LONG  "'rope_factors_long.weight' w1 q6 w0 q388 "
#define SHORT "'rope_factors_short.weight' w1 q6 w0 q412 "
#define TAIL  "+388 f1.1 f2.48 f5.59 f12.6 f28.39 f64 f1 f1.23 f1.51 f1.85 f2.28 f2.8"
#define PHI                                                                                                  \
    "'A.rope.dimension_count' w4 w12 'A.rope.scaling.original_context_length' w4 w64 "                       \
    "'A.attention.sliding_window' w4 w0 "

static void phi3(void **state) {
    (void)state;
    bq_model m = model_of(
        config_of(file("phi3", 4, PHI "'A.rope.scaling.attn_factor' w6 f1.2247449", 2, LONG SHORT, TAIL)));
    assert_true(m.family == bq_family_find("phi3") && m.rope.kind == BQ_ROPE_LONG && m.rope.dim == 12);
    assert_true(m.rope.original == 64 && m.rope.factor == 8 && m.window == 0 && m.head_dim == 16);
    assert_true(fabs(m.rope.attention - sqrt(1.5)) < 1e-12); /* the rule's own, in double */
    assert_true(m.rope.long_factor[1] == 2.48 && m.rope.long_factor[5] == 64 &&
                m.rope.short_factor[5] == 2.8);
    m = model_of(config_of(file("phi3", 4, PHI "'A.rope.scaling.attn_factor' w6 f1.5", 2, LONG SHORT, TAIL)));
    assert_true(m.rope.attention == 1.5);
    m = model_of(config_of(file("phi3", 1, "'A.attention.sliding_window' w4 w47", 0, "", "")));
    assert_true(m.rope.kind == BQ_ROPE_DEFAULT && m.window == 47 && m.rope.dim == 16);
    assert_refused(refused(file("phi3", 3, PHI, 1, LONG, TAIL)),
                   "rope_factors_short.weight: there is no such");
    assert_refused(refused(file("phi3", 1, "'A.rope.dimension_count' w4 w12", 2, LONG SHORT, TAIL)),
                   "phi3.rope.scaling.original_context_length: is missing");
}

static void bad(void **state) {
    (void)state;
    static const struct {
        const char *arch;
        int keys;
        const char *key, *needle;
    } cases[] = {
        {"mamba", 0, "", "general.architecture: 'mamba' is not known"},
        {"llama", 1, "'A.attention.value_length' w4 w24", "value_length: 24 is not attention.key_length, 16"},
        {"llama", 1, "'A.rope.dimension_count' w4 w18", "18 rotary channels of a head's 16"},
        {"llama", 1, "'A.rope.dimension_count' w4 w7", "7 rotary channels"},
        {"llama", 1, "'A.rope.scaling.type' w8 'ntk'", "llama.rope.scaling.type: 'ntk' is not known"},
        {"llama", 1, "'A.rope.scaling.type' w8 'linear'", "llama.rope.scaling.factor: is missing"},
        {"llama", 1, "'A.attention.head_count_kv' w9 w5 q2 w1 w2", "head_count_kv: is a list of 2"},
        {"llama", 1, "'A.attention.head_count_kv' w4 w0", "head_count_kv: 0 is not within 1"},
        {"llama", 1, "'A.rope.freq_base' w6 fnan", "llama.rope.freq_base: nan is not within"},
        {"llama", 1, "'A.expert_count' w4 w8", "llama.expert_used_count: is missing"},
        {"llama", 1, "'A.logit_scale' w6 f0.5", "llama.logit_scale: is 0.5, which blockq does not compute"},
        {"llama", 1, "'A.rope.scaling.yarn_beta_fast' w6 f16",
         "yarn_beta_fast: is 16, which blockq does not compute"},
        {"llama", 3,
         "'A.rope.scaling.type' w8 'yarn' 'A.rope.scaling.factor' w6 f4 'A.rope.scaling.attn_factor' w6 f2",
         "attn_factor: is 2, which blockq does not compute"},
        {"qwen3moe", 0, "", "qwen3moe.expert_count: is missing"},
        {"llama", 1, "'tokenizer.ggml.eos_token_id' w5 w-1", "eos_token_id: -1 is not within"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(refused(file(cases[i].arch, cases[i].keys, cases[i].key, 0, "", "")), cases[i].needle);
    bq_gguf *g;
    assert_int_equal(bq_gguf_open(&g, gguf_save("n.gguf", HEAD(0, 0))), BQ_OK);
    assert_refused(refused(g), "general.architecture: is missing");
    assert_int_equal(bq_gguf_open(&g, gguf_save("n.gguf", HEAD(0, 1) "'general.architecture' w8 'llama'")),
                     BQ_OK);
    assert_refused(refused(g), "llama.embedding_length: is missing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama), cmocka_unit_test(others), cmocka_unit_test(llama3),
        cmocka_unit_test(phi3),  cmocka_unit_test(bad),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
