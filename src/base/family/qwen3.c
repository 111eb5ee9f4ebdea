#include "base/family.h"

static const bq_weight_row weight[] = {BQ_WEIGHTS_LLAMA(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION, BQ_BIAS_NONE)};

static const bq_key config[] = {
    {"attention_bias", BQ_KEY_BOOL, BQ_AT(bq_model, attention_bias), .value = "false"},
    {"max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position), .value = "32768", .min = 1,
     .max = 0x1p40, .unhashed = true},
    {"use_sliding_window", BQ_KEY_BOOL, BQ_AT(bq_model, windowed), .value = "false"},
    {"sliding_window", BQ_KEY_I64, BQ_AT(bq_model, window), .value = "4096", .min = 1, .max = 0x1p40},
    {"max_window_layers", BQ_KEY_INT, BQ_AT(bq_model, window_from), .value = "28", .max = 0x1p30},
    {0},
};

const bq_family bq_family_qwen3 = {
    .type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config,
    .window = BQ_WINDOW_FROM,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm",
             [BQ_NORM_MLP] = "post_attention_layernorm",
             [BQ_NORM_Q] = "self_attn.q_norm",
             [BQ_NORM_K] = "self_attn.k_norm"},
};

/* The text decoder of the model with images. */
static const bq_key vl_config[] = {
    {"rope_theta", BQ_KEY_REAL, BQ_AT(bq_model, rope.theta), .value = "5e5", .min = 1, .max = 1e18},
    {"attention_bias", BQ_KEY_BOOL, BQ_AT(bq_model, attention_bias), .value = "false"},
    {"max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position), .value = "32768", .min = 1,
     .max = 0x1p40, .unhashed = true},
    {0},
};

const bq_family bq_family_qwen3_vl = {
    .type = "qwen3_vl",
    .architecture = "Qwen3VLForConditionalGeneration",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .nested = "text_config",
    .config = vl_config,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm",
             [BQ_NORM_MLP] = "post_attention_layernorm",
             [BQ_NORM_Q] = "self_attn.q_norm",
             [BQ_NORM_K] = "self_attn.k_norm"},
};
