/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_NONE),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_IN_DENSE_BLOCKS),
    BQ_WEIGHTS_MLP("mlp.shared_experts", BQ_BIAS_NONE, BQ_IN_EXPERT_BLOCKS),
    BQ_WEIGHTS_EXPERTS("mlp.experts", "gate_proj", "up_proj", "down_proj"),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_POSITIONS("131072"),
    BQ_CONFIG_BIAS,
    {"partial_rotary_factor", BQ_KEY_REAL, BQ_AT(bq_model, rope.partial), .value = "0.5", .max = 1},
    {"use_qk_norm", BQ_KEY_BOOL, BQ_AT(bq_model, qk_norm), .value = "false"},
    BQ_CONFIG_EXPERTS("moe_intermediate_size"),
    BQ_CONFIG_NORMALIZE("true"),
    {"routed_scaling_factor", BQ_KEY_REAL, BQ_AT(bq_model, route_factor), .value = "1", .min = 1e-6,
     .max = 1e6},
    BQ_CONFIG_FIRST_DENSE("1"),
    BQ_CONFIG_GROUPS("1", "1"),
    {0},
};

const bq_family bq_family_glm4_moe = {
    .type = "glm4_moe",
    .architecture = "Glm4MoeForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA, BQ_NORMS_QK},
    .extra = {[BQ_ROUTER] = "mlp.gate.weight", [BQ_ROUTER_CORRECTION] = "mlp.gate.e_score_correction_bias"},
    .traits = BQ_FAMILY_QK_OPTIONAL | BQ_FAMILY_ROUTE_SIGMOID,
};
