/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf_config.h"

#include "base/die.h"
#include "io/in/config.h"
#include "io/in/gguf_names.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const bq_gguf *g;
    bq_gguf_keys k;
    char arch[64], key[128]; /* key: of the last getter */
    json_t *to;
    int64_t hidden, heads, head_dim, rotary, positions, blocks;
    double theta;
} config;

static void put(json_t *to, const char *key, json_t *value) {
    BQ_CHECK(value && json_object_set_new(to, key, value) == 0, "no memory for config.json");
}

static void put_text(json_t *to, const char *key, const char *text) { put(to, key, json_string(text)); }

/* The real that people wrote, whose f32 this is. */
static double shortest(double x) {
    char text[40];
    for (int digits = 6; digits < 10; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtof(text, NULL) == (float)x) return strtod(text, NULL);
    }
    return x;
}

static void put_real(json_t *to, const char *key, double x) { put(to, key, json_real(shortest(x))); }

/* "<architecture>.<name>" */
static const char *key(config *c, const char *name) {
    snprintf(c->key, sizeof c->key, "%s.%s", c->arch, name);
    return c->key;
}

/* Getters with a default; a negative one: the key must be there. */
static int64_t integer(config *c, const char *name, int64_t low, int64_t high, int64_t absent) {
    int64_t x = absent;
    if (absent < 0) bq_gguf_need(&c->k, key(c, name));
    bq_gguf_int(&c->k, key(c, name), low, high, &x);
    return x;
}

static double real(config *c, const char *name, double low, double high, double absent) {
    double x = absent;
    if (absent < 0) bq_gguf_need(&c->k, key(c, name));
    bq_gguf_real(&c->k, key(c, name), low, high, &x);
    return x;
}

static int64_t put_integer(config *c, const char *to, const char *name, int64_t high, int64_t absent) {
    int64_t x = integer(c, name, 1, high, absent);
    put(c->to, to, json_integer(x));
    return x;
}

static bool has_tensor(const config *c, const char *name) { return bq_gguf_find(c->g, name) != NULL; }

/* ---- what all have ---- */

static void put_head_dim(config *c) {
    c->head_dim = c->heads > 0 ? c->hidden / c->heads : 0;
    c->head_dim = integer(c, "attention.key_length", 2, BQ_SIZE_MAX, c->head_dim);
    int64_t value = integer(c, "attention.value_length", 2, BQ_SIZE_MAX, c->head_dim);
    if (value != c->head_dim)
        bq_gguf_refuse(&c->k, c->key, "%lld is not attention.key_length, %lld", (long long)value,
                       (long long)c->head_dim);
    c->rotary = integer(c, "rope.dimension_count", 2, BQ_SIZE_MAX, c->head_dim);
    if (c->rotary > c->head_dim || c->rotary % 2 || c->rotary / 2 > BQ_ROPE_MAX)
        bq_gguf_refuse(&c->k, c->key, "%lld rotary channels of a head's %lld: they must be even, 2 .. %d",
                       (long long)c->rotary, (long long)c->head_dim, 2 * BQ_ROPE_MAX);
    put(c->to, "head_dim", json_integer(c->head_dim));
    double part = c->head_dim ? (double)c->rotary / (double)c->head_dim : 1;
    if ((int64_t)(part * (double)c->head_dim) < c->rotary)
        part = nextafter(part, 1); /* readers cut the product */
    if (c->rotary < c->head_dim) put(c->to, "partial_rotary_factor", json_real(part));
}

static void put_sizes(config *c) {
    c->hidden = put_integer(c, "hidden_size", "embedding_length", BQ_SIZE_MAX, -1);
    put_integer(c, "intermediate_size", "feed_forward_length", BQ_SIZE_MAX, -1);
    c->blocks = put_integer(c, "num_hidden_layers", "block_count", BQ_BLOCKS_MAX, -1);
    c->heads = put_integer(c, "num_attention_heads", "attention.head_count", BQ_BLOCKS_MAX, -1);
    put_integer(c, "num_key_value_heads", "attention.head_count_kv", BQ_BLOCKS_MAX, c->heads);
    put_head_dim(c);
    c->positions = put_integer(c, "max_position_embeddings", "context_length", (int64_t)1 << 40, -1);
    put_real(c->to, "rms_norm_eps", real(c, "attention.layer_norm_rms_epsilon", FLT_MIN, 1, -1));
    const bq_tensor *t = bq_gguf_find(c->g, "token_embd.weight");
    if (!t) bq_gguf_refuse(&c->k, "token_embd.weight", "there is no such tensor");
    put(c->to, "vocab_size", json_integer(t ? bq_gguf_rows(t) : 0));
    put(c->to, "tie_word_embeddings", json_boolean(!has_tensor(c, "output.weight")));
}

static void put_tokens(config *c) {
    static const char *const name[][2] = {{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                          {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                          {"pad_token_id", "tokenizer.ggml.padding_token_id"}};
    for (int i = 0; i < 3; i++) {
        int64_t id = -1;
        bq_gguf_int(&c->k, name[i][1], 0, INT32_MAX, &id);
        if (id >= 0) put(c->to, name[i][0], json_integer(id));
    }
}

/* Keys that change what is computed, and that none of these families has. */
static void refuse_others(config *c) {
    static const char *const other[] = {"attn_logit_softcapping",
                                        "final_logit_softcapping",
                                        "attention.scale",
                                        "attention.clamp_kqv",
                                        "logit_scale",
                                        "embedding_scale",
                                        "residual_scale",
                                        "attention.max_alibi_bias",
                                        "rope.scaling.yarn_ext_factor",
                                        "rope.scaling.yarn_attn_factor",
                                        "rope.scaling.yarn_beta_fast",
                                        "rope.scaling.yarn_beta_slow",
                                        "rope.scaling.yarn_log_multiplier"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        double x = real(c, other[i], -FLT_MAX, FLT_MAX, 0);
        if (x != 0) bq_gguf_refuse(&c->k, c->key, "is %g, which blockq does not compute", x);
    }
}

/* ---- rotary embedding ---- */

/* The values of a tensor of rotary factors; refused unless there are rotary / 2, all of [low, high]. */
static bool factors(config *c, const char *name, double low, double high, float to[BQ_ROPE_MAX]) {
    const bq_tensor *t = bq_gguf_find(c->g, name);
    if (!t || c->k.status) return false;
    int64_t n = c->rotary / 2;
    if (bq_tensor_count(t) != n || t->dims != 1) {
        bq_gguf_refuse(&c->k, name, "%lld values for %lld pairs of rotary channels",
                       (long long)bq_tensor_count(t), (long long)n);
        return false;
    }
    bq_gguf_read(c->g, t, 0, 1, bq_mat_host(to, 1, n, BQ_F32));
    for (int64_t i = 0; i < n; i++) {
        double x = (double)to[i];
        if (!(x >= low && x <= high))
            bq_gguf_refuse(&c->k, name, "value %lld is %g, not within %g .. %g", (long long)i, x, low, high);
    }
    return c->k.status == BQ_OK;
}

/* What llama3's rule divides the frequency of pair i by, with low 1 and high 4. */
static double llama3_divisor(double wave, double factor, double original) {
    double t = (original / wave - 1) / 3;
    return t > 1 ? 1 : t < 0 ? factor : 1 / ((1 - t) / factor + t);
}

/* The original length follows from any divisor between 1 and the largest one, which is the factor. */
static void put_llama3(config *c, json_t *rope, const float *divisor) {
    double factor = (double)divisor[c->rotary / 2 - 1], original = 8192;
    for (int64_t i = c->rotary / 2; i-- > 0;) {
        double wave = 2 * acos(-1) * pow(c->theta, 2.0 * (double)i / (double)c->rotary),
               d = (double)divisor[i];
        if (d > 1.001 && d < 0.999 * factor)
            original = rint(wave * (3 * (1 / d - 1 / factor) / (1 - 1 / factor) + 1));
    }
    for (int64_t i = 0; i < c->rotary / 2; i++) {
        double wave = 2 * acos(-1) * pow(c->theta, 2.0 * (double)i / (double)c->rotary),
               d = llama3_divisor(wave, factor, original);
        if (fabs(d - (double)divisor[i]) > 1e-4 * d)
            bq_gguf_refuse(
                &c->k, "rope_freqs.weight",
                "value %lld is %g; the rule of llama3 with factor %g and original length %g gives %g",
                (long long)i, (double)divisor[i], factor, original, d);
    }
    put_text(rope, "rope_type", "llama3");
    put_real(rope, "factor", factor);
    put(rope, "low_freq_factor", json_real(1));
    put(rope, "high_freq_factor", json_real(4));
    put(rope, "original_max_position_embeddings", json_integer((json_int_t)original));
}

static void put_list(json_t *rope, const char *name, const float *value, int64_t count) {
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++)
        BQ_CHECK(list && json_array_append_new(list, json_real(shortest((double)value[i]))) == 0,
                 "no memory for config.json");
    put(rope, name, list);
}

/* Phi-3: the factor on cos and sin is written only where it is not what the rule for it gives. */
static void put_longrope(config *c, json_t *rope, const float *long_factor) {
    float short_factor[BQ_ROPE_MAX];
    int64_t original = integer(c, "rope.scaling.original_context_length", 2, (int64_t)1 << 40, -1);
    if (!factors(c, "rope_factors_short.weight", 1e-6, 1e9, short_factor))
        bq_gguf_refuse(&c->k, "rope_factors_short.weight", "there is no such tensor");
    if (c->k.status) return;
    double ratio = (double)c->positions / (double)original,
           rule = ratio > 1 ? sqrt(1 + log(ratio) / log((double)original)) : 1;
    double attention = real(c, "rope.scaling.attn_factor", 1e-6, 1e6, rule);
    put(c->to, "original_max_position_embeddings", json_integer(original));
    put_text(rope, "type", "longrope");
    put_list(rope, "short_factor", short_factor, c->rotary / 2);
    put_list(rope, "long_factor", long_factor, c->rotary / 2);
    if (fabs(attention - rule) > 1e-6 * rule) put_real(rope, "attention_factor", attention);
}

/* linear and yarn are in the keys; others are tensors, beside which the keys say none, or longrope. */
static void put_scaling(config *c, json_t *rope) {
    char type[64] = "none";
    float value[BQ_ROPE_MAX];
    bq_gguf_word(&c->k, key(c, "rope.scaling.type"), type);
    bool linear = strcmp(type, "linear") == 0, yarn = strcmp(type, "yarn") == 0;
    if (!linear && !yarn && strcmp(type, "none") != 0 && strcmp(type, "longrope") != 0)
        bq_gguf_refuse(&c->k, c->key, "'%.60s' is not known", type);
    if (linear || yarn) {
        put_text(rope, "rope_type", type);
        put_real(rope, "factor", real(c, "rope.scaling.factor", 1e-6, 1e12, -1));
        double attention = real(c, "rope.scaling.attn_factor", 1e-6, 1e6, 1);
        if (attention != 1) bq_gguf_refuse(&c->k, c->key, "is %g, which blockq does not compute", attention);
        if (yarn)
            put(rope, "original_max_position_embeddings",
                json_integer(integer(c, "rope.scaling.original_context_length", 1, (int64_t)1 << 40, -1)));
    } else if (factors(c, "rope_factors_long.weight", 1e-6, 1e9, value)) {
        put_longrope(c, rope, value);
    } else if (factors(c, "rope_freqs.weight", 1, 1e6, value)) {
        put_llama3(c, rope, value);
    }
}

static void put_rope(config *c, double theta) {
    json_t *rope = json_object();
    c->theta = real(c, "rope.freq_base", 1, 1e18, theta);
    put_real(c->to, "rope_theta", c->theta);
    put_scaling(c, rope);
    put(c->to, "rope_scaling", json_object_size(rope) ? json_incref(rope) : json_null());
    json_decref(rope);
}

/* ---- families ---- */

static void put_window(config *c) {
    int64_t window = integer(c, "attention.sliding_window", 0, (int64_t)1 << 40, 0);
    put(c->to, "sliding_window", window ? json_integer(window) : json_null());
}

static void llama(config *c) {
    int64_t experts = integer(c, "expert_count", 0, 1 << 20, 0);
    put(c->to, "attention_bias", json_boolean(has_tensor(c, "blk.0.attn_q.bias")));
    if (!experts) {
        put(c->to, "mlp_bias", json_boolean(has_tensor(c, "blk.0.ffn_gate.bias")));
        return;
    }
    put_text(c->to, "model_type", "mixtral");
    put(c->to, "architectures", json_pack("[s]", "MixtralForCausalLM"));
    put(c->to, "num_local_experts", json_integer(experts));
    put_integer(c, "num_experts_per_tok", "expert_used_count", experts, -1);
}

static void qwen3moe(config *c) {
    int64_t experts = put_integer(c, "num_experts", "expert_count", 1 << 20, -1);
    put_integer(c, "num_experts_per_tok", "expert_used_count", experts, -1);
    put_integer(c, "moe_intermediate_size", "expert_feed_forward_length", BQ_SIZE_MAX, -1);
    put(c->to, "norm_topk_prob", json_true());
    put(c->to, "decoder_sparse_step", json_integer(1));
    put(c->to, "mlp_only_layers", json_array());
}

/* Every second block has a window.  Its yarn is not truncated: no key says so. */
static void gpt_oss(config *c) {
    int64_t experts = put_integer(c, "num_local_experts", "expert_count", 1 << 20, -1);
    put_integer(c, "num_experts_per_tok", "expert_used_count", experts, -1);
    put_integer(c, "intermediate_size", "expert_feed_forward_length", BQ_SIZE_MAX, -1);
    integer(c, "attention.sliding_window_pattern", 2, 2, 2);
    json_t *rope = json_object_get(c->to, "rope_scaling");
    if (json_is_object(rope)) put(rope, "truncate", json_false());
}

static void glm4moe(config *c) {
    int64_t experts = put_integer(c, "n_routed_experts", "expert_count", 1 << 20, -1);
    bool normalize = false;
    put_integer(c, "num_experts_per_tok", "expert_used_count", experts, -1);
    put_integer(c, "n_shared_experts", "expert_shared_count", 1 << 10, -1);
    put_integer(c, "moe_intermediate_size", "expert_feed_forward_length", BQ_SIZE_MAX, -1);
    put(c->to, "first_k_dense_replace",
        json_integer(integer(c, "leading_dense_block_count", 0, c->blocks, 0)));
    put_real(c->to, "routed_scaling_factor", real(c, "expert_weights_scale", 1e-6, 1e6, 1));
    integer(c, "expert_gating_func", 2, 2, 2); /* sigmoid */
    integer(c, "nextn_predict_layers", 0, 0, 0);
    bq_gguf_bool(&c->k, key(c, "expert_weights_norm"), &normalize);
    put(c->to, "norm_topk_prob", json_boolean(normalize));
    put(c->to, "attention_bias", json_boolean(has_tensor(c, "blk.0.attn_q.bias")));
    put(c->to, "use_qk_norm", json_boolean(has_tensor(c, "blk.0.attn_q_norm.weight")));
    if (c->rotary == c->head_dim) put(c->to, "partial_rotary_factor", json_real(1));
}

static void gemma3(config *c) {
    put_text(c->to, "hidden_activation", "gelu_pytorch_tanh");
    put_real(c->to, "rope_local_base_freq", real(c, "rope.freq_base_swa", 1, 1e18, 1e4));
    put_integer(c, "sliding_window_pattern", "attention.sliding_window_pattern", BQ_BLOCKS_MAX, 6);
    put(c->to, "query_pre_attn_scalar",
        json_integer(c->blocks == 62 && c->heads > 0 ? c->hidden / c->heads : c->head_dim));
}

static const struct {
    const char *arch, *type, *architecture;
    double theta; /* where rope.freq_base is absent */
    bool window;  /* attention.sliding_window counts */
    void (*more)(config *c);
} families[] = {
    {"llama", "llama", "LlamaForCausalLM", 1e4, false, llama},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", 1e4, false, NULL},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", 1e4, false, NULL},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", 1e4, false, qwen3moe},
    {"phi3", "phi3", "Phi3ForCausalLM", 1e4, true, NULL},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", 1e6, true, gemma3},
    {"glm4moe", "glm4_moe", "Glm4MoeForCausalLM", 1e4, false, glm4moe},
    {"gpt-oss", "gpt_oss", "GptOssForCausalLM", 1.5e5, true, gpt_oss},
};

static void put_all(config *c) {
    size_t i = 0, n = sizeof families / sizeof *families;
    bq_gguf_need(&c->k, "general.architecture");
    bq_gguf_word(&c->k, "general.architecture", c->arch);
    while (i < n && strcmp(families[i].arch, c->arch) != 0) i++;
    if (i == n) bq_gguf_refuse(&c->k, "general.architecture", "'%.60s' is not known", c->arch);
    if (c->k.status) return;
    put(c->to, "architectures", json_pack("[s]", families[i].architecture));
    put_text(c->to, "model_type", families[i].type);
    put_text(c->to, "dtype", "float32");
    put_sizes(c);
    put_rope(c, families[i].theta);
    if (families[i].more != gemma3) put_text(c->to, "hidden_act", "silu");
    if (families[i].window) put_window(c);
    if (families[i].more) families[i].more(c);
    put_tokens(c);
    refuse_others(c);
}

int bq_gguf_config(const bq_gguf *g, json_t **out) {
    config c = {.g = g, .k = bq_gguf_keys_of(g), .to = json_object()};
    BQ_CHECK(c.to, "no memory for config.json");
    put_all(&c);
    if (c.k.status) {
        json_decref(c.to);
        c.to = NULL;
    }
    *out = c.to;
    return c.k.status;
}
