#include "block/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>

const char bq_tensor_embed[] = "model.embed_tokens.weight";
const char bq_tensor_norm[] = "model.norm.weight";
const char bq_tensor_head[] = "lm_head.weight";

/* Rows of a linear, as multiples of the model's numbers. */
typedef enum { ROWS_Q, ROWS_KV, ROWS_QKV, ROWS_H, ROWS_I, ROWS_2I } rows_kind;

typedef struct {
    const char *name, *module;
    int mat;
    rows_kind rows;
    bool mlp; /* which of the two bias options rules it */
} family_row;

static const family_row llama[] = {
    {"q_proj", "self_attn.q_proj", BQ_QKV, ROWS_Q, false},
    {"k_proj", "self_attn.k_proj", BQ_QKV, ROWS_KV, false},
    {"v_proj", "self_attn.v_proj", BQ_QKV, ROWS_KV, false},
    {"o_proj", "self_attn.o_proj", BQ_O, ROWS_H, false},
    {"gate_proj", "mlp.gate_proj", BQ_GATE_UP, ROWS_I, true},
    {"up_proj", "mlp.up_proj", BQ_GATE_UP, ROWS_I, true},
    {"down_proj", "mlp.down_proj", BQ_DOWN, ROWS_H, true},
    {0},
};

static const family_row phi3[] = {
    {"qkv_proj", "self_attn.qkv_proj", BQ_QKV, ROWS_QKV, false},
    {"o_proj", "self_attn.o_proj", BQ_O, ROWS_H, false},
    {"gate_up_proj", "mlp.gate_up_proj", BQ_GATE_UP, ROWS_2I, true},
    {"down_proj", "mlp.down_proj", BQ_DOWN, ROWS_H, true},
    {0},
};

static const family_row *const families[BQ_FAMILIES] = {[BQ_LLAMA] = llama, [BQ_PHI3] = phi3};

static int64_t count_rows(rows_kind kind, const bq_model *m) {
    switch (kind) {
    case ROWS_Q: return m->heads * m->head_dim;
    case ROWS_KV: return m->kv_heads * m->head_dim;
    case ROWS_QKV: return (m->heads + 2 * m->kv_heads) * m->head_dim;
    case ROWS_I: return m->inter;
    case ROWS_2I: return 2 * m->inter;
    default: return m->hidden;
    }
}

void bq_arch_of(const bq_model *model, bq_arch *arch) {
    *arch = (bq_arch){.model = *model, .norm = {"input_layernorm", "post_attention_layernorm"}};
    const int64_t cols[BQ_MATS] = {model->hidden, model->heads * model->head_dim, model->hidden,
                                   model->inter};
    memcpy(arch->cols, cols, sizeof cols);
    for (const family_row *f = families[model->family]; f->name; f++) {
        bq_linear *l = &arch->linear[arch->linears++];
        *l = (bq_linear){.name = f->name, .module = f->module, .mat = f->mat};
        l->row = arch->rows[f->mat];
        l->rows = count_rows(f->rows, model);
        l->cols = cols[f->mat];
        l->bias = f->mlp ? model->mlp_bias : model->attention_bias;
        arch->rows[f->mat] += l->rows;
        arch->bias[f->mat] |= l->bias;
    }
    arch->attention = (bq_attention){model->heads, model->kv_heads, model->head_dim,
                                     (float)(1.0 / sqrt((double)model->head_dim)), model->window};
}

void bq_arch_tensor(char *out, size_t n, int block, const char *module, const char *what) {
    snprintf(out, n, "model.layers.%d.%s.%s", block, module, what);
}

bool bq_arch_find(const bq_arch *arch, const char *tensor, int *block, int *linear) {
    static const char head[] = "model.layers.";
    if (strncmp(tensor, head, sizeof head - 1) != 0) return false;
    char *end;
    long b = strtol(tensor + sizeof head - 1, &end, 10);
    if (b < 0 || b >= arch->model.blocks || *end != '.') return false;
    for (int i = 0; i < arch->linears; i++) {
        char name[160];
        bq_arch_tensor(name, sizeof name, (int)b, arch->linear[i].module, "weight");
        if (strcmp(name, tensor) != 0) continue;
        *block = (int)b, *linear = i;
        return true;
    }
    return false;
}

int64_t bq_arch_weights(const bq_arch *arch) {
    int64_t sum = 0;
    for (int m = 0; m < BQ_MATS; m++) sum += arch->rows[m] * arch->cols[m];
    return sum;
}
