#include "base/family.h"

static const bq_weight_row weight[] = {BQ_WEIGHTS_LLAMA(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION, BQ_BIAS_MLP)};

const bq_family bq_family_llama = {
    .type = "llama",
    .architecture = "LlamaForCausalLM",
    .members = "SmolLM2 is one",
    .max_position = 2048,
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3,
    .config = BQ_CONFIG_BIASES,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"},
};
