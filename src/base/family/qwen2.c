#include "base/family.h"

static const bq_weight_row weight[] = {BQ_WEIGHTS_LLAMA(BQ_BIAS_ALWAYS, BQ_BIAS_NONE, BQ_BIAS_NONE)};

static const bq_key config[] = {
    {"max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position), .value = "32768", .min = 1,
     .max = 0x1p40, .unhashed = true},
    {"use_sliding_window", BQ_KEY_BOOL, BQ_AT(bq_model, windowed), .value = "false"},
    {"sliding_window", BQ_KEY_I64, BQ_AT(bq_model, window), .value = "4096", .min = 1, .max = 0x1p40},
    {"max_window_layers", BQ_KEY_INT, BQ_AT(bq_model, window_from), .value = "28", .max = 0x1p30},
    {0},
};

const bq_family bq_family_qwen2 = {
    .type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .members = "Qwen2.5 is one",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3,
    .config = config,
    .window = BQ_WINDOW_FROM,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"},
};

/* The text decoder of the model with images. */
static const bq_key vl_config[] = {
    {"rope_theta", BQ_KEY_REAL, BQ_AT(bq_model, rope.theta), .value = "1e6", .min = 1, .max = 1e18},
    {"max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position), .value = "32768", .min = 1,
     .max = 0x1p40, .unhashed = true},
    {"use_sliding_window", BQ_KEY_BOOL, BQ_AT(bq_model, windowed), .value = "false"},
    {"sliding_window", BQ_KEY_I64, BQ_AT(bq_model, window), .value = "4096", .min = 1, .max = 0x1p40},
    {"max_window_layers", BQ_KEY_INT, BQ_AT(bq_model, window_from), .value = "28", .max = 0x1p30},
    {0},
};

const bq_family bq_family_qwen2_5_vl = {
    .type = "qwen2_5_vl",
    .architecture = "Qwen2_5_VLForConditionalGeneration",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3,
    .nested = "text_config",
    .config = vl_config,
    .window = BQ_WINDOW_FROM,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"},
};
