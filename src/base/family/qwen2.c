/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ALWAYS, BQ_BIAS_NONE),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_ALWAYS),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_POSITIONS("32768"),
    BQ_CONFIG_WINDOW_FROM("28"),
    {0},
};

const bq_family bq_family_qwen2 = {
    .type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .members = "Qwen2.5 is one",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3 | 1 << BQ_ROPE_YARN,
    .config = config,
    .window = BQ_WINDOW_FROM,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA},
};

/* The text decoder of the model with images. */
static const bq_key vl_config[] = {
    BQ_CONFIG_THETA("1e6"),
    BQ_CONFIG_POSITIONS("32768"),
    BQ_CONFIG_WINDOW_FROM("80"),
    {0},
};

const bq_family bq_family_qwen2_5_vl = {
    .type = "qwen2_5_vl",
    .architecture = "Qwen2_5_VLForConditionalGeneration",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3 | 1 << BQ_ROPE_YARN,
    .nested = "text_config",
    .config = vl_config,
    .window = BQ_WINDOW_FROM,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA},
};
