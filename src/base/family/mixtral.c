/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_NONE, BQ_BIAS_NONE),
    BQ_WEIGHTS_EXPERTS("block_sparse_moe.experts", "w1", "w3", "w2"),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_THETA("1e6"),
    BQ_CONFIG_POSITIONS("131072"),
    BQ_CONFIG_WINDOW("0"),
    BQ_CONFIG_EXPERTS("intermediate_size"),
    {0},
};

const bq_family bq_family_mixtral = {
    .type = "mixtral",
    .architecture = "MixtralForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA},
    .extra = {[BQ_ROUTER] = "block_sparse_moe.gate.weight"},
    .traits = BQ_FAMILY_ROUTE_NORMALIZE,
};
