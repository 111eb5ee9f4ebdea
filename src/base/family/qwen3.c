#include "base/family.h"

static const bq_weight_row weight[] = {BQ_WEIGHTS_LLAMA(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION, BQ_BIAS_NONE)};

const bq_family bq_family_qwen3 = {
    .type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .max_position = 32768,
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = BQ_CONFIG_BIASES,
    .unsupported = "use_sliding_window",
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm",
             [BQ_NORM_MLP] = "post_attention_layernorm",
             [BQ_NORM_Q] = "self_attn.q_norm",
             [BQ_NORM_K] = "self_attn.k_norm"},
};
