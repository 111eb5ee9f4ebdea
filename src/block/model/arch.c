#include "block/model/arch.h"

#include "base/die.h"

#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>

const char bq_tensor_head[] = "lm_head.weight";

const char *bq_arch_prefix(int i) {
    static const char *const all[] = {"model", "model.language_model", "language_model.model", NULL};
    return all[i];
}

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

const char *bq_role_name(bq_role role) {
    static const char *const name[BQ_ROLES] = {"qkv", "o", "gate_up", "down"};
    return name[role];
}

int bq_arch_site(const bq_arch *arch, bq_role role) {
    int m = 0;
    while (m < arch->sites && arch->site[m].role != role) m++;
    BQ_CHECK(m < arch->sites, "a block without %s", bq_role_name(role));
    return m;
}

void bq_arch_of(const bq_model *model, bq_arch *arch) {
    const bq_family *family = bq_family_at(model->family);
    const int64_t cols[BQ_ROLES] = {model->hidden, model->heads * model->head_dim, model->hidden,
                                    model->inter};
    bool whole = family->traits & BQ_FAMILY_QK_WHOLE;
    const int64_t gains[BQ_NORMS] = {model->hidden,
                                     model->hidden,
                                     model->hidden,
                                     model->hidden,
                                     [BQ_NORM_Q] = (whole ? model->heads : 1) * model->head_dim,
                                     [BQ_NORM_K] = (whole ? model->kv_heads : 1) * model->head_dim};
    *arch = (bq_arch){
        .model = *model, .act = family->act, .gain_of_zero = family->traits & BQ_FAMILY_GAIN_ADDS ? 1.0f : 0};
    if (!model->prefix[0]) strcpy(arch->model.prefix, bq_arch_prefix(0));
    snprintf(arch->embed, sizeof arch->embed, "%s.embed_tokens.weight", arch->model.prefix);
    snprintf(arch->final_norm, sizeof arch->final_norm, "%s.norm.weight", arch->model.prefix);
    arch->embed_scale = family->traits & BQ_FAMILY_EMBED_ROOT ? (float)sqrt((double)model->hidden) : 1;
    for (int i = 0; i < BQ_NORMS; i++) {
        arch->norm[i] = family->norm[i];
        arch->gains[i] = family->norm[i] ? gains[i] : 0;
    }
    for (const bq_weight_row *f = family->weight; f->name; f++) {
        bool next = f == family->weight || f->role != f[-1].role;
        bq_site *s = &arch->site[next ? arch->sites++ : arch->sites - 1];
        if (next) *s = (bq_site){.role = f->role, .cols = cols[f->role], .first = arch->linears};
        bq_linear *l = &arch->linear[arch->linears++];
        *l = (bq_linear){.name = f->name,
                         .module = f->module,
                         .site = arch->sites - 1,
                         .row = s->rows,
                         .rows = count_rows(f->rows, model),
                         .cols = s->cols,
                         .bias = has_bias(f->bias, model)};
        s->rows += l->rows;
        s->bias |= l->bias;
        s->linears++;
    }
    double scalar = model->query_scalar > 0 ? model->query_scalar : (double)model->head_dim;
    arch->attention = (bq_attention){.heads = model->heads,
                                     .kv_heads = model->kv_heads,
                                     .head_dim = model->head_dim,
                                     .scale = (float)(1.0 / sqrt(scalar)),
                                     .window = model->window,
                                     .cap = (float)model->attention_cap};
}

void bq_arch_tensor(const bq_arch *arch, char *out, size_t n, int block, const char *module,
                    const char *what) {
    snprintf(out, n, "%s.layers.%d.%s.%s", arch->model.prefix, block, module, what);
}

static bool named(const bq_arch *arch, int block, const char *module, const char *what, const char *tensor) {
    char name[160];
    bq_arch_tensor(arch, name, sizeof name, block, module, what);
    return strcmp(name, tensor) == 0;
}

bq_tensor_id bq_arch_id(const bq_arch *arch, const char *tensor) {
    const bq_tensor_id none = {BQ_TENSOR_OTHER, -1, -1};
    size_t n = strlen(arch->model.prefix);
    if (strcmp(tensor, arch->embed) == 0) return (bq_tensor_id){BQ_TENSOR_EMBED, -1, -1};
    if (strcmp(tensor, arch->final_norm) == 0) return (bq_tensor_id){BQ_TENSOR_NORM, -1, -1};
    if (strcmp(tensor, bq_tensor_head) == 0) return (bq_tensor_id){BQ_TENSOR_HEAD, -1, -1};
    if (strncmp(tensor, arch->model.prefix, n) != 0 || strncmp(tensor + n, ".layers.", 8) != 0) return none;
    long b = strtol(tensor + n + 8, NULL, 10);
    if (b < 0 || b >= arch->model.blocks) return none;
    for (int i = 0; i < BQ_NORMS; i++)
        if (arch->norm[i] && named(arch, (int)b, arch->norm[i], "weight", tensor))
            return (bq_tensor_id){BQ_TENSOR_BLOCK_NORM, (int)b, i};
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        if (named(arch, (int)b, l->module, "weight", tensor))
            return (bq_tensor_id){BQ_TENSOR_WEIGHT, (int)b, i};
        if (l->bias && named(arch, (int)b, l->module, "bias", tensor))
            return (bq_tensor_id){BQ_TENSOR_BIAS, (int)b, i};
    }
    return none;
}

int64_t bq_arch_weights(const bq_arch *arch) {
    int64_t sum = 0;
    for (int m = 0; m < arch->sites; m++) sum += arch->site[m].rows * arch->site[m].cols;
    return sum;
}
