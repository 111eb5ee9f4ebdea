#include "base/family.h"

static const bq_weight_row weight[] = {BQ_WEIGHTS_LLAMA(BQ_BIAS_NONE, BQ_BIAS_NONE, BQ_BIAS_NONE)};

static const bq_key config[] = {
    {"max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position), .value = "131072", .min = 1,
     .max = 0x1p40, .unhashed = true},
    {"sliding_window", BQ_KEY_I64, BQ_AT(bq_model, window), .value = "0", .min = 1, .max = 0x1p40},
    {0},
};

const bq_family bq_family_mistral = {
    .type = "mistral",
    .architecture = "MistralForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"},
};
