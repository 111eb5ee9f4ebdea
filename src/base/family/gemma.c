/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_ALWAYS),
    {0},
};

/* Keys and norms of both. */
#define KEYS                                                                                                 \
    {"hidden_act", BQ_KEY_NAME, .at = BQ_NOWHERE, .value = "gelu_pytorch_tanh"},                             \
        {"hidden_activation", BQ_KEY_NAME, .at = BQ_NOWHERE, .value = "gelu_pytorch_tanh"}, BQ_CONFIG_BIAS,  \
        BQ_CONFIG_CAUSAL, {"tie_word_embeddings", BQ_KEY_BOOL, BQ_AT(bq_model, tied), .value = "true"},      \
        {"head_dim", BQ_KEY_I64, BQ_AT(bq_model, head_dim), .value = "256", .min = 2, .max = 0x1p24}, {      \
        "query_pre_attn_scalar", BQ_KEY_REAL, BQ_AT(bq_model, query_scalar), .value = "256", .min = 1e-6,    \
                                                                             .max = 1e12                     \
    }
#define NORMS                                                                                                \
    [BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "pre_feedforward_layernorm",                    \
    [BQ_NORM_O] = "post_attention_layernorm", [BQ_NORM_DOWN] = "post_feedforward_layernorm"

static const bq_key config2[] = {
    KEYS,
    BQ_CONFIG_POSITIONS("8192"),
    BQ_CONFIG_WINDOW("4096"),
    {"sliding_window_pattern", BQ_KEY_INT, BQ_AT(bq_model, window_period), .value = "2", .min = 2, .max = 2,
     .unhashed = true},
    {"attn_logit_softcapping", BQ_KEY_REAL, BQ_AT(bq_model, attention_cap), .min = 1e-6, .max = 1e6},
    {"final_logit_softcapping", BQ_KEY_REAL, BQ_AT(bq_model, logit_cap), .min = 1e-6, .max = 1e6},
    {0},
};

const bq_family bq_family_gemma2 = {
    .type = "gemma2",
    .architecture = "Gemma2ForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config2,
    .weight = weight,
    .act = BQ_GELU_TANH,
    .window = BQ_WINDOW_PERIOD,
    .norm = {NORMS},
    .traits = BQ_FAMILY_GAIN_ADDS | BQ_FAMILY_EMBED_ROOT,
};

static const bq_key config3[] = {
    KEYS,
    BQ_CONFIG_POSITIONS("131072"),
    BQ_CONFIG_WINDOW("4096"),
    {"sliding_window_pattern", BQ_KEY_INT, BQ_AT(bq_model, window_period), .value = "6", .min = 1,
     .max = 0x1p12, .unhashed = true},
    BQ_CONFIG_THETA("1e6"),
    {"rope_local_base_freq", BQ_KEY_REAL, BQ_AT(bq_model, full_rope.theta), .value = "1e4", .min = 1,
     .max = 1e18},
    {"final_logit_softcapping", BQ_KEY_REAL, BQ_AT(bq_model, logit_cap), .value = "0", .min = 1e-6,
     .max = 1e6},
    {0},
};

const bq_family bq_family_gemma3 = {
    .type = "gemma3_text",
    .architecture = "Gemma3ForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config3,
    .weight = weight,
    .act = BQ_GELU_TANH,
    .window = BQ_WINDOW_PERIOD,
    .norm = {NORMS, BQ_NORMS_QK},
    .traits = BQ_FAMILY_GAIN_ADDS | BQ_FAMILY_EMBED_ROOT | BQ_FAMILY_TWO_ROPES,
};
