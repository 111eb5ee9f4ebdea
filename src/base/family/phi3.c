/* SPDX-License-Identifier: Apache-2.0 */
#include "base/family.h"

static const bq_weight_row weight[] = {
    {"qkv_proj", "self_attn.qkv_proj", BQ_QKV, BQ_ROWS_QKV, BQ_BIAS_ATTENTION, BQ_ALWAYS},
    {"o_proj", "self_attn.o_proj", BQ_O, BQ_ROWS_H, BQ_BIAS_ATTENTION, BQ_ALWAYS},
    {"gate_up_proj", "mlp.gate_up_proj", BQ_GATE_UP, BQ_ROWS_2I, BQ_BIAS_MLP, BQ_ALWAYS},
    {"down_proj", "mlp.down_proj", BQ_DOWN, BQ_ROWS_H, BQ_BIAS_MLP, BQ_ALWAYS},
    {0},
};

static const bq_key config[] = {
    BQ_CONFIG_POSITIONS("4096"),
    BQ_CONFIG_WINDOW("0"),
    {"partial_rotary_factor", BQ_KEY_REAL, BQ_AT(bq_model, rope.partial), .value = "1", .max = 1},
    {"original_max_position_embeddings", BQ_KEY_REAL, BQ_AT(bq_model, rope.original), .value = "4096",
     .min = 2, .max = 1e12},
    {0},
};

const bq_family bq_family_phi3 = {
    .type = "phi3",
    .architecture = "Phi3ForCausalLM",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LONG,
    .config = config,
    .weight = weight,
    .norm = {BQ_NORMS_LLAMA},
};
