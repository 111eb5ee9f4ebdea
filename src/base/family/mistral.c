/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_NONE, BQ_BIAS_NONE),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_ALWAYS),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_POSITIONS("131072"),
    BQ_CONFIG_WINDOW("4096"),
    {0},
};

const bq_family bq_family_mistral = {
    .type = "mistral",
    .architecture = "MistralForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_YARN,
    .config = config,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA},
};
