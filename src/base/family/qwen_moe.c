/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

/* ---- Qwen2-MoE: a shared expert with a gate ---- */

static const bq_weight_row weight2[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_NONE),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_IN_DENSE_BLOCKS),
    BQ_WEIGHTS_MLP("mlp.shared_expert", BQ_BIAS_NONE, BQ_IN_EXPERT_BLOCKS),
    BQ_WEIGHTS_EXPERTS("mlp.experts", "gate_proj", "up_proj", "down_proj"),
    {0},
};

static const bq_key config2[] = {
    BQ_CONFIG_POSITIONS("32768"),
    {"qkv_bias", BQ_KEY_BOOL, BQ_AT(bq_model, attention_bias), .value = "true"},
    {"use_sliding_window", BQ_KEY_BOOL, .at = BQ_NOWHERE, .value = "false"},
    BQ_CONFIG_EXPERTS("moe_intermediate_size"),
    {"shared_expert_intermediate_size", BQ_KEY_I64, BQ_AT(bq_model, shared_inter), .min = 1, .max = 0x1p24},
    BQ_CONFIG_NORMALIZE("false"),
    BQ_CONFIG_SPARSE_STEP,
    {0},
};

const bq_family bq_family_qwen2_moe = {
    .type = "qwen2_moe",
    .architecture = "Qwen2MoeForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config2,
    .weight = weight2,
    .norm = {BQ_NORMS_LLAMA},
    .extra = {[BQ_ROUTER] = "mlp.gate.weight", [BQ_SHARED_GATE] = "mlp.shared_expert_gate.weight"},
};

/* ---- Qwen3-MoE ---- */

static const bq_weight_row weight3[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION),
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_IN_DENSE_BLOCKS),
    BQ_WEIGHTS_EXPERTS("mlp.experts", "gate_proj", "up_proj", "down_proj"),
    {0},
};

static const bq_key config3[] = {
    BQ_CONFIG_POSITIONS("32768"),
    BQ_CONFIG_BIAS,
    {"use_sliding_window", BQ_KEY_BOOL, .at = BQ_NOWHERE, .value = "false"},
    BQ_CONFIG_EXPERTS("moe_intermediate_size"),
    BQ_CONFIG_NORMALIZE("false"),
    BQ_CONFIG_SPARSE_STEP,
    {0},
};

const bq_family bq_family_qwen3_moe = {
    .type = "qwen3_moe",
    .architecture = "Qwen3MoeForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR,
    .config = config3,
    .weight = weight3,
    .norm = {BQ_NORMS_LLAMA, BQ_NORMS_QK},
    .extra = {[BQ_ROUTER] = "mlp.gate.weight"},
};
