/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_ALWAYS),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_BIAS,
    BQ_CONFIG_POSITIONS("32768"),
    BQ_CONFIG_WINDOW_FROM("28"),
    {0},
};

const bq_family bq_family_qwen3 = {
    .type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_YARN,
    .config = config,
    .window = BQ_WINDOW_FROM,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA, BQ_NORMS_QK},
};

/* The text decoder of the model with images. */
static const bq_key vl_config[] = {
    BQ_CONFIG_THETA("5e5"),
    BQ_CONFIG_BIAS,
    BQ_CONFIG_POSITIONS("128000"),
    {0},
};

const bq_family bq_family_qwen3_vl = {
    .type = "qwen3_vl",
    .architecture = "Qwen3VLForConditionalGeneration",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_YARN,
    .nested = "text_config",
    .config = vl_config,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA, BQ_NORMS_QK},
};
