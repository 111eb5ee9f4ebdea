#include "block/model/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>

const char bq_tensor_embed[] = "model.embed_tokens.weight";
const char bq_tensor_norm[] = "model.norm.weight";
const char bq_tensor_head[] = "lm_head.weight";

static int64_t count_rows(bq_rows kind, const bq_model *m) {
    switch (kind) {
    case BQ_ROWS_Q: return m->heads * m->head_dim;
    case BQ_ROWS_KV: return m->kv_heads * m->head_dim;
    case BQ_ROWS_QKV: return (m->heads + 2 * m->kv_heads) * m->head_dim;
    case BQ_ROWS_I: return m->inter;
    case BQ_ROWS_2I: return 2 * m->inter;
    default: return m->hidden;
    }
}

static bool has_bias(bq_bias bias, const bq_model *m) {
    return bias == BQ_BIAS_ALWAYS || (bias == BQ_BIAS_ATTENTION && m->attention_bias) ||
           (bias == BQ_BIAS_MLP && m->mlp_bias);
}

void bq_arch_of(const bq_model *model, bq_arch *arch) {
    const bq_family *family = bq_family_at(model->family);
    *arch = (bq_arch){.model = *model, .norm = {family->norm[0], family->norm[1]}};
    const int64_t cols[BQ_MATS] = {model->hidden, model->heads * model->head_dim, model->hidden,
                                   model->inter};
    memcpy(arch->cols, cols, sizeof cols);
    for (const bq_weight_row *f = family->weight; f->name; f++) {
        bq_linear *l = &arch->linear[arch->linears++];
        *l = (bq_linear){.name = f->name, .module = f->module, .mat = f->mat};
        l->row = arch->rows[f->mat];
        l->rows = count_rows(f->rows, model);
        l->cols = cols[f->mat];
        l->bias = has_bias(f->bias, model);
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
