/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    {"q_proj", "self_attn.q_proj", BQ_QKV, BQ_ROWS_Q, BQ_BIAS_NONE, BQ_WITHOUT_Q_A},
    {"q_a_proj", "self_attn.q_a_proj", BQ_QKV, BQ_ROWS_Q_A, BQ_BIAS_ATTENTION, BQ_WITH_Q_A},
    {"kv_a_proj_with_mqa", "self_attn.kv_a_proj_with_mqa", BQ_QKV, BQ_ROWS_KV_A, BQ_BIAS_ATTENTION,
     BQ_ALWAYS},
    {"q_b_proj", "self_attn.q_b_proj", BQ_Q_B, BQ_ROWS_Q, BQ_BIAS_NONE, BQ_WITH_Q_A},
    {"kv_b_proj", "self_attn.kv_b_proj", BQ_KV_B, BQ_ROWS_KV_B, BQ_BIAS_NONE, BQ_ALWAYS},
    {"o_proj", "self_attn.o_proj", BQ_O, BQ_ROWS_H, BQ_BIAS_ATTENTION, BQ_ALWAYS},
    BQ_WEIGHTS_MLP("mlp", BQ_BIAS_NONE, BQ_IN_DENSE_BLOCKS),
    BQ_WEIGHTS_MLP("mlp.shared_experts", BQ_BIAS_NONE, BQ_IN_EXPERT_BLOCKS),
    BQ_WEIGHTS_EXPERTS("mlp.experts", "gate_proj", "up_proj", "down_proj"),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_POSITIONS("4096"),
    BQ_CONFIG_BIAS,
    {"q_lora_rank", BQ_KEY_I64, BQ_AT(bq_model, q_rank), .value = "1536", .min = 1, .max = 0x1p24},
    {"kv_lora_rank", BQ_KEY_I64, BQ_AT(bq_model, kv_rank), .value = "512", .min = 1, .max = 0x1p24},
    {"qk_nope_head_dim", BQ_KEY_I64, BQ_AT(bq_model, nope_dim), .value = "128", .min = 1, .max = 0x1p24},
    {"qk_rope_head_dim", BQ_KEY_I64, BQ_AT(bq_model, rope_dim), .value = "64", .min = 2, .max = 0x1p24},
    {"v_head_dim", BQ_KEY_I64, BQ_AT(bq_model, value_dim), .value = "128", .min = 1, .max = 0x1p24},
    {"rope_interleave", BQ_KEY_BOOL, BQ_AT(bq_model, rope_pairs), .value = "true"},
    {"scoring_func", BQ_KEY_NAME, .at = BQ_NOWHERE, .value = "sigmoid"},
    {"topk_method", BQ_KEY_NAME, .at = BQ_NOWHERE, .value = "noaux_tc"},
    {"moe_layer_freq", BQ_KEY_INT, .at = BQ_NOWHERE, .value = "1", .min = 1, .max = 0x1p12},
    BQ_CONFIG_EXPERTS("moe_intermediate_size"),
    BQ_CONFIG_NORMALIZE("true"),
    {"routed_scaling_factor", BQ_KEY_REAL, BQ_AT(bq_model, route_factor), .value = "2.5", .min = 1e-6,
     .max = 1e6},
    BQ_CONFIG_FIRST_DENSE("3"),
    BQ_CONFIG_GROUPS("8", "4"),
    {0},
};

const bq_family bq_family_deepseek_v3 = {
    .type = "deepseek_v3",
    .architecture = "DeepseekV3ForCausalLM",
    .members = "DeepSeek-R1 is one",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_YARN,
    .config = config,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA, [BQ_NORM_Q_A] = "self_attn.q_a_layernorm",
             [BQ_NORM_KV_A] = "self_attn.kv_a_layernorm"},
    .extra = {[BQ_ROUTER] = "mlp.gate.weight", [BQ_ROUTER_CORRECTION] = "mlp.gate.e_score_correction_bias"},
    .traits = BQ_FAMILY_ROUTE_SIGMOID | BQ_FAMILY_FP8,
};
