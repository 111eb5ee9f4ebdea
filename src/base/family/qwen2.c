#include "base/family.h"

static const bq_weight_row weight[] = {BQ_WEIGHTS_LLAMA(BQ_BIAS_ALWAYS, BQ_BIAS_NONE, BQ_BIAS_NONE)};

const bq_family bq_family_qwen2 = {
    .type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .members = "Qwen2.5 is one",
    .max_position = 32768,
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3,
    .unsupported = "use_sliding_window", /* it begins at a block: max_window_layers */
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"},
};
