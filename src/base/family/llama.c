/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_MLP, BQ_ALWAYS),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_BIAS,
    {"mlp_bias", BQ_KEY_BOOL, BQ_AT(bq_model, mlp_bias), .value = "false"},
    {0},
};

const bq_family bq_family_llama = {
    .type = "llama",
    .architecture = "LlamaForCausalLM",
    .members = "SmolLM2 is one",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3 | 1 << BQ_ROPE_YARN,
    .config = config,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA},
};
