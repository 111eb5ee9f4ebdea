#include "base/family.h"

static const bq_weight_row weight[] = {BQ_WEIGHTS_LLAMA(BQ_BIAS_NONE, BQ_BIAS_NONE, BQ_BIAS_NONE)};

const bq_family bq_family_mistral = {
    .type = "mistral",
    .architecture = "MistralForCausalLM",
    .max_position = 131072,
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = BQ_CONFIG_WINDOW,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"},
};
