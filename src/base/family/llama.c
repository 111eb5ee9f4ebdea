#include "base/family.h"

static const bq_weight_row weight[] = {
    {"q_proj", "self_attn.q_proj", BQ_QKV, BQ_ROWS_Q, BQ_BIAS_ATTENTION},
    {"k_proj", "self_attn.k_proj", BQ_QKV, BQ_ROWS_KV, BQ_BIAS_ATTENTION},
    {"v_proj", "self_attn.v_proj", BQ_QKV, BQ_ROWS_KV, BQ_BIAS_ATTENTION},
    {"o_proj", "self_attn.o_proj", BQ_O, BQ_ROWS_H, BQ_BIAS_ATTENTION},
    {"gate_proj", "mlp.gate_proj", BQ_GATE_UP, BQ_ROWS_I, BQ_BIAS_MLP},
    {"up_proj", "mlp.up_proj", BQ_GATE_UP, BQ_ROWS_I, BQ_BIAS_MLP},
    {"down_proj", "mlp.down_proj", BQ_DOWN, BQ_ROWS_H, BQ_BIAS_MLP},
    {0},
};

static const bq_key config[] = {
    {"attention_bias", BQ_KEY_BOOL, BQ_AT(bq_model, attention_bias), .value = "false"},
    {"mlp_bias", BQ_KEY_BOOL, BQ_AT(bq_model, mlp_bias), .value = "false"},
    {0},
};

const bq_family bq_family_llama = {
    .type = "llama",
    .architecture = "LlamaForCausalLM",
    .members = "SmolLM2 is one",
    .ropes = 1 << BQ_ROPE_DEFAULT | 1 << BQ_ROPE_LINEAR | 1 << BQ_ROPE_LLAMA3,
    .config = config,
    .weight = weight,
    .norm = {"input_layernorm", "post_attention_layernorm"},
};
