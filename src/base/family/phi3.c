#include "base/family.h"

static const bq_weight_row weight[] = {
    {"qkv_proj", "self_attn.qkv_proj", BQ_QKV, BQ_ROWS_QKV, BQ_BIAS_ATTENTION},
    {"o_proj", "self_attn.o_proj", BQ_O, BQ_ROWS_H, BQ_BIAS_ATTENTION},
    {"gate_up_proj", "mlp.gate_up_proj", BQ_GATE_UP, BQ_ROWS_2I, BQ_BIAS_MLP},
    {"down_proj", "mlp.down_proj", BQ_DOWN, BQ_ROWS_H, BQ_BIAS_MLP},
    {0},
};

const bq_family bq_family_phi3 = {
    .type = "phi3",
    .architecture = "Phi3ForCausalLM",
    .max_position = 4096,
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LONG,
    .config = BQ_CONFIG_WINDOW | BQ_CONFIG_PARTIAL,
    .weight = weight,
    .norm = {[BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"},
};
