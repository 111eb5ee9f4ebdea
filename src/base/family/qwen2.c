#include "base/family.h"

static const bq_weight_row weight[] = {
    {"q_proj", "self_attn.q_proj", BQ_QKV, BQ_ROWS_Q, BQ_BIAS_ALWAYS},
    {"k_proj", "self_attn.k_proj", BQ_QKV, BQ_ROWS_KV, BQ_BIAS_ALWAYS},
    {"v_proj", "self_attn.v_proj", BQ_QKV, BQ_ROWS_KV, BQ_BIAS_ALWAYS},
    {"o_proj", "self_attn.o_proj", BQ_O, BQ_ROWS_H, BQ_BIAS_NONE},
    {"gate_proj", "mlp.gate_proj", BQ_GATE_UP, BQ_ROWS_I, BQ_BIAS_NONE},
    {"up_proj", "mlp.up_proj", BQ_GATE_UP, BQ_ROWS_I, BQ_BIAS_NONE},
    {"down_proj", "mlp.down_proj", BQ_DOWN, BQ_ROWS_H, BQ_BIAS_NONE},
    {0},
};

static const bq_key config[] = {
    {"max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position), .value = "32768", .min = 1,
     .max = 0x1p40, .unhashed = true},
    {"use_sliding_window", BQ_KEY_BOOL, .at = BQ_NOWHERE, .value = "false"}, /* it begins at a block */
    {0},
};

const bq_family bq_family_qwen2 = {
    .type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .members = "Qwen2.5 is one",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3,
    .config = config,
    .weight = weight,
    .norm = {"input_layernorm", "post_attention_layernorm"},
};
