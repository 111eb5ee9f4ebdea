/* SPDX-License-Identifier: Apache-2.0 */
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

/* The width of the MLP that a role is of, in a block with so many experts. */
static int64_t width(bq_role role, const bq_model *m, int experts) {
    return bq_role_of_expert(role) ? m->expert_inter : experts ? m->shared_inter : m->inter;
}

static int64_t count_rows(const bq_weight_row *row, const bq_model *m, int experts) {
    switch (row->rows) {
    case BQ_ROWS_Q: return m->heads * m->head_dim;
    case BQ_ROWS_KV: return m->kv_heads * m->head_dim;
    case BQ_ROWS_QKV: return (m->heads + 2 * m->kv_heads) * m->head_dim;
    case BQ_ROWS_I: return width(row->role, m, experts);
    case BQ_ROWS_2I: return 2 * width(row->role, m, experts);
    case BQ_ROWS_Q_A: return m->q_rank;
    case BQ_ROWS_KV_A: return m->kv_rank + m->rope_dim;
    case BQ_ROWS_KV_B: return m->heads * (m->nope_dim + m->value_dim);
    default: return m->hidden;
    }
}

static int64_t count_cols(bq_role role, const bq_model *m, int experts) {
    if (role == BQ_O) return m->heads * (m->kv_rank ? m->value_dim : m->head_dim);
    if (role == BQ_Q_B) return m->q_rank;
    if (role == BQ_KV_B) return m->kv_rank;
    return role == BQ_DOWN || role == BQ_EXPERT_DOWN ? width(role, m, experts) : m->hidden;
}

static bool has_bias(bq_bias bias, const bq_model *m) {
    return bias == BQ_BIAS_ALWAYS || (bias == BQ_BIAS_ATTENTION && m->attention_bias) ||
           (bias == BQ_BIAS_MLP && m->mlp_bias);
}

const char *bq_role_name(bq_role role) {
    static const char *const name[BQ_ROLES] = {"qkv",         "o",   "gate_up", "down", "expert_gate_up",
                                               "expert_down", "q_b", "kv_b"};
    return name[role];
}

bool bq_arch_has(const bq_arch *arch, bq_role role) {
    bool found = false;
    for (int m = 0; m < arch->sites; m++) found |= arch->site[m].role == role;
    return found;
}

int bq_arch_mlp(const bq_arch *arch) {
    int m = 0;
    while (m < arch->sites && bq_role_attends(arch->site[m].role)) m++;
    return m;
}

int64_t bq_arch_heads(const bq_arch *arch) {
    return arch->kind == BQ_UNIT_EXPERT ? 0 : arch->site[bq_arch_site(arch, BQ_O)].cols;
}

int64_t bq_arch_inter(const bq_arch *arch) {
    int64_t cols = 0;
    for (int m = 0; m < arch->sites; m++)
        if (arch->site[m].role == BQ_DOWN) cols = arch->site[m].cols;
    return cols;
}

int bq_arch_unit_of(const bq_arch *block, int i, int *at) {
    const bq_site *site = &block->site[block->linear[i].site];
    *at = i;
    if (!bq_role_of_expert(site->role)) return 0;
    while (i > 0 && bq_role_of_expert(block->site[block->linear[i - 1].site].role) &&
           block->site[block->linear[i - 1].site].expert == site->expert)
        i--;
    *at -= i;
    return 1 + site->expert;
}

int bq_arch_site(const bq_arch *arch, bq_role role) {
    int m = 0;
    while (m < arch->sites && arch->site[m].role != role) m++;
    BQ_CHECK(m < arch->sites, "a block without %s", bq_role_name(role));
    return m;
}

/* A linear at the end of its site, which begins where the role changes. */
static void add_linear(bq_arch *arch, const bq_weight_row *f, int expert) {
    const bq_model *m = &arch->model;
    const bq_site *last = arch->sites ? &arch->site[arch->sites - 1] : NULL;
    bool next = !last || last->role != f->role || last->expert != expert;
    bq_site *s = &arch->site[next ? arch->sites++ : arch->sites - 1];
    if (next)
        *s = (bq_site){.role = f->role,
                       .expert = expert,
                       .cols = count_cols(f->role, m, arch->experts),
                       .first = arch->linears};
    bq_linear *l = &arch->linear[arch->linears++];
    *l = (bq_linear){.name = f->name,
                     .site = arch->sites - 1,
                     .row = s->rows,
                     .rows = count_rows(f, m, arch->experts),
                     .cols = s->cols,
                     .bias = has_bias(f->bias, m)};
    const char *number = strstr(f->module, "%d");
    if (number)
        snprintf(l->module, sizeof l->module, "%.*s%d%s", (int)(number - f->module), f->module, expert,
                 number + 2);
    else
        snprintf(l->module, sizeof l->module, "%s", f->module);
    s->rows += l->rows;
    if (l->bias && !s->bias_rows) s->bias_row = l->row;
    if (l->bias) s->bias_rows = s->rows - s->bias_row;
    s->linears++;
}

/* The rows of experts stand together, behind all others. */
static void add_linears(bq_arch *arch, const bq_family *family) {
    const bq_weight_row *f = family->weight;
    for (; f->name && !bq_role_of_expert(f->role); f++) {
        if (arch->kind == BQ_UNIT_EXPERT) continue;
        bool shared = arch->experts && (f->role == BQ_GATE_UP || f->role == BQ_DOWN);
        if (f->when == BQ_IN_DENSE_BLOCKS && arch->experts) continue;
        if (f->when == (arch->model.q_rank ? BQ_WITHOUT_Q_A : BQ_WITH_Q_A)) continue;
        if (f->when == BQ_IN_EXPERT_BLOCKS && (!arch->experts || (shared && !arch->model.shared_inter)))
            continue;
        add_linear(arch, f, 0);
    }
    int first = arch->kind == BQ_UNIT_EXPERT ? arch->expert : 0,
        end = arch->kind == BQ_UNIT_EXPERT ? first + 1
              : arch->kind == BQ_UNIT_CORE ? 0
                                           : arch->experts;
    for (int e = first; e < end; e++)
        for (const bq_weight_row *row = f; row->name; row++) add_linear(arch, row, e);
}

static void add_extras(bq_arch *arch, const bq_family *family) {
    const bq_model *m = &arch->model;
    const int64_t shape[BQ_EXTRAS][2] = {
        {m->experts, m->hidden}, {0, m->experts}, {0, m->experts}, {1, m->hidden}, {0, m->heads}};
    if (arch->kind == BQ_UNIT_EXPERT) return;
    memcpy(arch->extra_shape, shape, sizeof shape);
    arch->extra[BQ_SINKS] = family->extra[BQ_SINKS];
    if (!arch->experts) return;
    for (int i = 0; i < BQ_EXTRAS; i++) arch->extra[i] = family->extra[i];
    arch->router = (bq_router){m->route_sigmoid ? BQ_ROUTE_SIGMOID : BQ_ROUTE_SOFTMAX,
                               m->chosen,
                               m->route_groups,
                               m->route_kept,
                               m->route_normalize,
                               (float)m->route_factor};
}

/* An expert's sites have the roles of a dense MLP's, and it has no heads. */
static void make_expert(bq_arch *arch) {
    for (int m = 0; m < arch->sites; m++)
        arch->site[m].role = arch->site[m].role == BQ_EXPERT_DOWN ? BQ_DOWN : BQ_GATE_UP;
    arch->experts = arch->model.experts = 0;
    arch->model.inter = arch->model.expert_inter;
    arch->model.heads = arch->model.kv_heads = arch->model.kv_rank = arch->model.q_rank = 0;
    arch->attention = (bq_attention){0};
    memset(arch->norm, 0, sizeof arch->norm), memset(arch->gains, 0, sizeof arch->gains);
}

static void arch_of(const bq_model *model, bool experts, bq_unit_kind kind, int expert, bq_arch *arch) {
    const bq_family *family = bq_family_at(model->family);
    bool whole = family->traits & BQ_FAMILY_QK_WHOLE;
    const int64_t gains[BQ_NORMS] = {model->hidden,
                                     model->hidden,
                                     model->hidden,
                                     model->hidden,
                                     [BQ_NORM_Q] = (whole ? model->heads : 1) * model->head_dim,
                                     [BQ_NORM_K] = (whole ? model->kv_heads : 1) * model->head_dim,
                                     [BQ_NORM_Q_A] = model->q_rank,
                                     [BQ_NORM_KV_A] = model->kv_rank};
    *arch = (bq_arch){.model = *model,
                      .kind = kind,
                      .expert = expert,
                      .experts = experts ? model->experts : 0,
                      .act = family->act,
                      .gain_of_zero = family->traits & BQ_FAMILY_GAIN_ADDS ? 1.0f : 0};
    if (!model->prefix[0]) strcpy(arch->model.prefix, bq_arch_prefix(0));
    snprintf(arch->embed, sizeof arch->embed, "%s.embed_tokens.weight", arch->model.prefix);
    snprintf(arch->final_norm, sizeof arch->final_norm, "%s.norm.weight", arch->model.prefix);
    arch->embed_scale = family->traits & BQ_FAMILY_EMBED_ROOT ? (float)sqrt((double)model->hidden) : 1;
    for (int i = 0; i < BQ_NORMS; i++) {
        bool qk = i == BQ_NORM_Q || i == BQ_NORM_K;
        if (qk && family->traits & BQ_FAMILY_QK_OPTIONAL && !model->qk_norm) continue;
        if (i == BQ_NORM_Q_A && !model->q_rank) continue;
        arch->norm[i] = family->norm[i];
        arch->gains[i] = family->norm[i] ? gains[i] : 0;
    }
    add_linears(arch, family);
    add_extras(arch, family);
    double scalar = model->query_scalar > 0 ? model->query_scalar : (double)model->head_dim;
    arch->attention = (bq_attention){.heads = model->heads,
                                     .kv_heads = model->kv_heads,
                                     .head_dim = model->head_dim,
                                     .value_dim = model->value_dim,
                                     .scale = (float)(1.0 / sqrt(scalar)),
                                     .window = model->window,
                                     .cap = (float)model->attention_cap};
    if (kind == BQ_UNIT_EXPERT) make_expert(arch);
}

void bq_arch_of(const bq_model *model, bq_arch *arch) {
    arch_of(model, model->experts > 0, BQ_UNIT_BLOCK, 0, arch);
}

void bq_arch_of_core(const bq_model *model, bq_arch *arch) { arch_of(model, true, BQ_UNIT_CORE, 0, arch); }

void bq_arch_of_expert(const bq_model *model, int e, bq_arch *arch) {
    arch_of(model, true, BQ_UNIT_EXPERT, e, arch);
}

bool bq_arch_of_dense(const bq_model *model, bq_arch *arch) {
    bool some = false;
    for (int b = 0; b < model->blocks && model->experts; b++) some |= model->dense[b];
    if (some) arch_of(model, false, BQ_UNIT_BLOCK, 0, arch);
    return some;
}

void bq_arch_tensor(const bq_arch *arch, char *out, size_t n, int block, const char *module,
                    const char *what) {
    snprintf(out, n, "%s.layers.%d.%s.%s", arch->model.prefix, block, module, what);
}

/* Is `name`, below the block, a module's weight or bias? */
static bool named(const char *module, const char *what, const char *name) {
    size_t n = strlen(module);
    return strncmp(name, module, n) == 0 && name[n] == '.' && strcmp(name + n + 1, what) == 0;
}

bq_tensor_id bq_arch_id(const bq_arch *arch, const char *tensor) {
    const bq_tensor_id none = {BQ_TENSOR_OTHER, -1, -1};
    size_t n = strlen(arch->model.prefix);
    if (strcmp(tensor, arch->embed) == 0) return (bq_tensor_id){BQ_TENSOR_EMBED, -1, -1};
    if (strcmp(tensor, arch->final_norm) == 0) return (bq_tensor_id){BQ_TENSOR_NORM, -1, -1};
    if (strcmp(tensor, bq_tensor_head) == 0) return (bq_tensor_id){BQ_TENSOR_HEAD, -1, -1};
    if (strncmp(tensor, arch->model.prefix, n) != 0 || strncmp(tensor + n, ".layers.", 8) != 0) return none;
    char *name, number[16];
    long b = strtol(tensor + n + 8, &name, 10);
    if (b < 0 || b >= arch->model.blocks || *name != '.') return none;
    snprintf(number, sizeof number, "%ld", b);
    if (strlen(number) != (size_t)(name - tensor) - n - 8) return none; /* "007" */
    name++;
    for (int i = 0; i < BQ_NORMS; i++)
        if (arch->norm[i] && named(arch->norm[i], "weight", name))
            return (bq_tensor_id){BQ_TENSOR_BLOCK_NORM, (int)b, i};
    for (int i = 0; i < BQ_EXTRAS; i++)
        if (arch->extra[i] && strcmp(arch->extra[i], name) == 0)
            return (bq_tensor_id){BQ_TENSOR_EXTRA, (int)b, i};
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        if (named(l->module, "weight", name)) return (bq_tensor_id){BQ_TENSOR_WEIGHT, (int)b, i};
        if (l->bias && named(l->module, "bias", name)) return (bq_tensor_id){BQ_TENSOR_BIAS, (int)b, i};
    }
    return none;
}

bq_tensor_id bq_arch_id_in(const bq_arch *arch, const bq_arch *dense, const char *tensor) {
    bq_tensor_id id = bq_arch_id(arch, tensor), other = {.kind = BQ_TENSOR_OTHER};
    if (dense->linears) other = bq_arch_id(dense, tensor);
    bool there = other.kind != BQ_TENSOR_OTHER && other.block >= 0 && arch->model.dense[other.block];
    return there ? other : id;
}

int64_t bq_arch_weights(const bq_arch *arch) {
    int64_t sum = 0;
    for (int m = 0; m < arch->sites; m++) sum += arch->site[m].rows * arch->site[m].cols;
    return sum;
}
