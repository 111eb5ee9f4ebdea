/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_ALWAYS),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_BIAS,
    {0},
};

const bq_family bq_family_olmo2 = {
    .type = "olmo2",
    .architecture = "Olmo2ForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3,
    .traits = BQ_FAMILY_QK_WHOLE,
    .config = config,
    .weight = weight,
    .norm = {[BQ_NORM_O] = "post_attention_layernorm",
             [BQ_NORM_DOWN] = "post_feedforward_layernorm",
             BQ_NORMS_QK},
};
