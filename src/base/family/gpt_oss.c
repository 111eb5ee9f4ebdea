/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

#define EXPERT(name, role, rows)                                                                             \
    { name, "mlp.experts.%d." name, role, rows, BQ_BIAS_ALWAYS, BQ_IN_EXPERT_BLOCKS }

static const bq_weight_row weight[] = {
    BQ_WEIGHTS_ATTENTION(BQ_BIAS_ATTENTION, BQ_BIAS_ATTENTION),
    EXPERT("gate_proj", BQ_EXPERT_GATE_UP, BQ_ROWS_I),
    EXPERT("up_proj", BQ_EXPERT_GATE_UP, BQ_ROWS_I),
    EXPERT("down_proj", BQ_EXPERT_DOWN, BQ_ROWS_H),
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_THETA("1.5e5"),
    BQ_CONFIG_POSITIONS("131072"),
    BQ_CONFIG_WINDOW("128"),
    {"sliding_window_pattern", BQ_KEY_INT, BQ_AT(bq_model, window_period), .value = "2", .min = 2, .max = 2,
     .unhashed = true},
    {"attention_bias", BQ_KEY_BOOL, BQ_AT(bq_model, attention_bias), .value = "true"},
    {"head_dim", BQ_KEY_I64, BQ_AT(bq_model, head_dim), .value = "64", .min = 2, .max = 0x1p24},
    BQ_CONFIG_EXPERTS("intermediate_size"),
    {"swiglu_limit", BQ_KEY_REAL, BQ_AT(bq_model, glu_limit), .value = "7", .min = 1e-6, .max = 1e6},
    {"swiglu_alpha", BQ_KEY_REAL, .at = BQ_NOWHERE, .value = "1.702", .min = 1e-6, .max = 1e6},
    {0},
};

/* Without the keys of a rope transformers takes the numbers of gpt-oss-120b, not the default rope: they are
 * required here. */
const bq_family bq_family_gpt_oss = {
    .type = "gpt_oss",
    .architecture = "GptOssForCausalLM",
    .ropes = 1 << BQ_ROPE_YARN,
    .config = config,
    .weight = weight,
    .act = BQ_SILU_CLAMPED,
    .window = BQ_WINDOW_PERIOD,
    .norm = {BQ_NORMS_LLAMA},
    .extra = {[BQ_ROUTER] = "mlp.router.weight",
              [BQ_ROUTER_BIAS] = "mlp.router.bias",
              [BQ_SINKS] = "self_attn.sinks"},
    .traits = BQ_FAMILY_ROUTE_NORMALIZE | BQ_FAMILY_STACKED,
};
