/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/load/rotated.h"

#include "base/die.h"

#include <stdlib.h>
#include <string.h>

/* Philox: the sweep and phase of these random numbers, which no run has. */
#define AT 255

struct bq_rotated {
    const bq_arch *arch, *dense; /* dense: of blocks without experts where others have them, or no linears */
    const bq_weights *weights;
    bq_transform how;
    uint64_t seed;
    bq_rotation r1, r2;
    int block;      /* whose r2 */
    double *memory; /* of r1, of r2, the panels' room */
    double *memory2, *room;
    float *gamma;
    bool learns;     /* the recipe's rotations are where training starts; what it ends with is unknown */
    float *learned2; /* R2 of all blocks, where it has ended; NULL: as the recipe says */
};

/* Doubles of R1 and R2.  What is learned is kept as reflections. */
static size_t need1(const bq_transform *t, const bq_model *m) {
    bq_rotate_kind kind = t->r1 && t->learn.steps ? BQ_ROTATE_ORTHOGONAL : t->r1;
    return bq_rotation_need(kind, m->hidden, t->r1_block);
}
static size_t need2(const bq_transform *t, const bq_model *m) {
    bq_rotate_kind kind = t->r2 && t->learn.steps ? BQ_ROTATE_ORTHOGONAL : t->r2;
    return bq_rotation_need(kind, m->head_dim, t->r2_block);
}

static size_t doubles(const bq_transform *t, const bq_model *m) {
    return need1(t, m) + need2(t, m) + bq_rotate_room(m->hidden);
}

size_t bq_rotated_need(const bq_recipe *recipe, const bq_arch *arch) {
    const bq_transform *t = &recipe->transform[0];
    if (!recipe->ntransform) return 0;
    const bq_model *m = &arch->model;
    size_t bytes = doubles(t, m) * sizeof(double) + (size_t)m->hidden * sizeof(float);
    if (!t->learn.steps) return bytes;
    size_t two = t->r2 ? (size_t)(m->blocks * m->head_dim * m->head_dim) * sizeof(float) : 0;
    return bytes + two + (size_t)(m->hidden * m->hidden) * sizeof(double); /* the matrix, while it is taken */
}

static int check(const char *key, bq_rotate_kind kind, int64_t n, int64_t block) {
    if (bq_rotation_exists(kind, n, block)) return BQ_OK;
    if (kind == BQ_ROTATE_BLOCK)
        return bq_refuse(
            BQ_USAGE, "transforms.0.%s_block: blocks of %ld are no Hadamard matrices, or do not divide %ld",
            key, (long)block, (long)n);
    return bq_refuse(
        BQ_USAGE, "transforms.0.%s: no Hadamard matrix of size %ld is known here: take block or orthogonal",
        key, (long)n);
}

int bq_rotated_open(bq_rotated **out, const bq_arch *arch, const bq_arch *dense, const bq_weights *weights,
                    const bq_recipe *recipe) {
    const bq_transform *t = &recipe->transform[0];
    const bq_model *m = &arch->model;
    *out = NULL;
    if (!recipe->ntransform) return BQ_OK;
    int code = check("r1", t->r1, m->hidden, t->r1_block);
    if (!code && t->r1 && (!arch->norm[BQ_NORM_ATTENTION] || arch->norm[BQ_NORM_O]))
        code = bq_refuse(BQ_USAGE,
                         "transforms.0.r1: %s has norms behind o and down, so its residual stream "
                         "cannot be rotated: leave r1 out",
                         bq_family_at(m->family)->type);
    if (!code && t->r2 && m->kv_rank)
        code = bq_refuse(BQ_USAGE,
                         "transforms.0.r2: %s has latent attention, whose values stand between keys in one "
                         "matrix, so that they cannot be rotated yet: leave r2 out",
                         bq_family_at(m->family)->type);
    if (!code) code = check("r2", t->r2, m->head_dim, t->r2_block);
    if (!code && t->r2 && m->head_dim > BQ_ROTATE_PANEL)
        code = bq_refuse(BQ_USAGE, "transforms.0.r2: the model's heads have %ld channels, %d at most",
                         (long)m->head_dim, BQ_ROTATE_PANEL);
    if (!code && t->learn.steps && arch->experts)
        code =
            bq_refuse(BQ_USAGE,
                      "transforms.0.learn: %s has experts, and rotations are learned on whole blocks: leave "
                      "learn out",
                      bq_family_at(m->family)->type);
    if (code) return code;
    bq_rotated *r = calloc(1, sizeof *r);
    BQ_CHECK(r, "no memory for a rotation");
    *r = (bq_rotated){
        .arch = arch, .dense = dense, .weights = weights, .how = *t, .seed = recipe->seed, .block = -1};
    r->learns = t->learn.steps > 0;
    *out = r;
    return BQ_OK;
}

/* The key of the random numbers of R1 (block -1) or R2. */
static bq_rng_key key_of(const bq_rotated *r, int block) {
    bq_rng_key at = {.seed = r->seed, .sweep = AT, .phase = AT};
    if (block >= 0) at.iteration = 1, at.block = (uint32_t)block;
    return at;
}

/* On the first tensor: a plan needs neither the memory nor the time. */
static void make(bq_rotated *r) {
    const bq_transform *t = &r->how;
    const bq_model *m = &r->arch->model;
    if (r->memory) return;
    r->memory = malloc(doubles(t, m) * sizeof *r->memory);
    r->gamma = malloc((size_t)m->hidden * sizeof *r->gamma);
    BQ_CHECK(r->memory && r->gamma, "no memory for rotations of size %ld", (long)m->hidden);
    r->memory2 = r->memory + need1(t, m);
    r->room = r->memory2 + need2(t, m);
    if (t->r1 && !r->learns)
        bq_rotation_make(&r->r1, t->r1, m->hidden, t->r1_block, key_of(r, -1), r->memory);
}

void bq_rotated_start(const bq_rotated *r, int block, float *matrix) {
    const bq_transform *t = &r->how;
    enum { LANES = BQ_ROTATE_LANES };
    const int64_t n = block < 0 ? r->arch->model.hidden : r->arch->model.head_dim,
                  size = block < 0 ? t->r1_block : t->r2_block;
    const bq_rotate_kind kind = block < 0 ? t->r1 : t->r2;
    double *memory = malloc((bq_rotation_need(kind, n, size) + (size_t)n * LANES) * sizeof *memory);
    BQ_CHECK(memory, "no memory for a rotation of size %ld", (long)n);
    double *x = memory + bq_rotation_need(kind, n, size);
    bq_rotation one;
    bq_rotation_make(&one, kind, n, size, key_of(r, block), memory);
    for (int64_t first = 0; first < n; first += LANES) {
        for (int64_t i = 0; i < n * LANES; i++) x[i] = i / LANES == first + i % LANES;
        bq_rotation_apply(&one, x);
        for (int64_t i = 0; i < n * LANES; i++)
            if (first + i % LANES < n) matrix[(first + i % LANES) * n + i / LANES] = (float)x[i];
    }
    free(memory);
}

/* Of a matrix by rows. */
static void take_matrix(bq_rotation *to, int64_t n, const float *matrix, double *memory) {
    double *columns = malloc((size_t)(n * n) * sizeof *columns);
    BQ_CHECK(columns, "no memory for a rotation of size %ld", (long)n);
    for (int64_t i = 0; i < n * n; i++) columns[i % n * n + i / n] = matrix[i];
    bq_rotation_of(to, n, columns, memory);
    free(columns);
}

void bq_rotated_learned(bq_rotated *r, const float *r1, const float *r2) {
    make(r);
    if (r1) take_matrix(&r->r1, r->arch->model.hidden, r1, r->memory);
    if (r2) {
        const bq_model *m = &r->arch->model;
        size_t bytes = (size_t)(m->blocks * m->head_dim * m->head_dim) * sizeof *r2;
        r->learned2 = malloc(bytes);
        BQ_CHECK(r->learned2, "no memory for the rotations of %d blocks", m->blocks);
        memcpy(r->learned2, r2, bytes);
    }
    r->learns = false;
}

void bq_rotated_close(bq_rotated *r) {
    if (!r) return;
    free(r->memory);
    free(r->gamma);
    free(r->learned2);
    free(r);
}

static const bq_rotation *r1_of(const bq_rotated *r) { return r->how.r1 && !r->learns ? &r->r1 : NULL; }

static const bq_rotation *r2_of(bq_rotated *r, int block) {
    const bq_transform *t = &r->how;
    const int64_t n = r->arch->model.head_dim;
    if (!t->r2 || r->learns) return NULL;
    if (block != r->block && r->learned2)
        take_matrix(&r->r2, n, r->learned2 + block * n * n, r->memory2);
    else if (block != r->block)
        bq_rotation_make(&r->r2, t->r2, n, t->r2_block, key_of(r, block), r->memory2);
    r->block = block;
    return &r->r2;
}

static bq_role role_of(const bq_arch *arch, const bq_linear *l) { return arch->site[l->site].role; }

/* The layout of the block that a tensor is of. */
static const bq_arch *arch_of(const bq_rotated *r, bq_tensor_id id) {
    return id.block >= 0 && r->arch->model.dense[id.block] ? r->dense : r->arch;
}

static const bq_linear *linear_of(const bq_rotated *r, bq_tensor_id id) {
    return &arch_of(r, id)->linear[id.at];
}

static bool writes_stream(const bq_rotated *r, bq_tensor_id id) {
    return bq_role_writes(role_of(arch_of(r, id), linear_of(r, id)));
}

/* Where the value heads start among the rows of q, k and v. */
static int64_t first_value(const bq_model *m) { return (m->heads + m->kv_heads) * m->head_dim; }

static bool has_values(const bq_arch *arch, const bq_linear *l) {
    return role_of(arch, l) == BQ_QKV && l->row + l->rows > first_value(&arch->model);
}

/* Does a linear read vectors of the residual stream, or write them? */
static bool of_stream(const bq_arch *arch, const bq_linear *l) {
    return role_of(arch, l) != BQ_Q_B && role_of(arch, l) != BQ_KV_B;
}

static bool changes(const bq_rotated *r, bq_tensor_id id) {
    const bq_arch *arch = arch_of(r, id);
    bool r1 = r->how.r1, r2 = r->how.r2;
    switch (id.kind) {
    case BQ_TENSOR_OTHER: return false;
    case BQ_TENSOR_EMBED:
    case BQ_TENSOR_HEAD:
    case BQ_TENSOR_NORM: return r1;
    case BQ_TENSOR_BLOCK_NORM: return r1 && id.at < BQ_NORMS_FOLDED;
    case BQ_TENSOR_EXTRA: return r1 && (id.at == BQ_ROUTER || id.at == BQ_SHARED_GATE);
    case BQ_TENSOR_WEIGHT:
        return (r1 && of_stream(arch, linear_of(r, id))) ||
               (r2 && (role_of(arch, linear_of(r, id)) == BQ_O || has_values(arch, linear_of(r, id))));
    case BQ_TENSOR_BIAS: break;
    }
    return (r1 && writes_stream(r, id)) || (r2 && has_values(arch, linear_of(r, id)));
}

bool bq_rotated_whole(const bq_rotated *r, const char *name) {
    if (!r || !r->how.r1) return false;
    bq_tensor_id id = bq_arch_id_in(r->arch, r->dense, name);
    return id.kind == BQ_TENSOR_WEIGHT && writes_stream(r, id);
}

static void read_rows(const bq_rotated *r, const char *name, int64_t first, bq_mat to) {
    bq_weights_read(r->weights, bq_weights_find(r->weights, name), first, to.rows, to);
}

/* The gain of the norm before a matrix; NULL: it stays in the norm. */
static const float *gain(bq_rotated *r, const char *norm) {
    if (!r->how.r1) return NULL;
    read_rows(r, norm, 0, bq_mat_host(r->gamma, 1, r->arch->model.hidden, BQ_F32));
    return r->gamma;
}

/* Rows that are vectors of the residual stream. */
static void rows_of_stream(bq_rotated *r, const float *gamma, bq_mat w) {
    for (int64_t at = 0; at < w.rows; at += BQ_ROTATE_PANEL) {
        int64_t n = w.rows - at < BQ_ROTATE_PANEL ? w.rows - at : BQ_ROTATE_PANEL;
        bq_panel p = {bq_mat_at(w, at, 0), w.cols, n, 1, w.ld};
        bq_rotate_panel(p, gamma, r1_of(r), NULL, r->room);
    }
}

/* The same of a norm in a block. */
static const float *block_gain(bq_rotated *r, int block, bq_norm_at at) {
    char norm[160];
    bq_arch_tensor(r->arch, norm, sizeof norm, block, r->arch->norm[at], "weight");
    return gain(r, norm);
}

/* Rows of a linear from `first` on; all rows if it writes to the stream.  With R2 a panel is a head. */
static void weight(bq_rotated *r, bq_tensor_id id, int64_t first, bq_mat w) {
    const bq_linear *l = linear_of(r, id);
    const bq_model *m = &r->arch->model;
    bq_role role = role_of(arch_of(r, id), l);
    const bq_rotation *r2 = bq_role_attends(role) ? r2_of(r, id.block) : NULL;
    bool writes = writes_stream(r, id);
    const float *gamma =
        writes ? NULL : block_gain(r, id.block, bq_role_attends(role) ? BQ_NORM_ATTENTION : BQ_NORM_MLP);
    int64_t all = writes ? w.cols : w.rows, step = r2 ? m->head_dim : BQ_ROTATE_PANEL;
    BQ_CHECK(!r2 || (l->row + first) % m->head_dim == 0, "%s is read in parts of heads", l->name);
    for (int64_t at = 0; at < all; at += step) {
        int64_t n = all - at < step ? all - at : step;
        bool turn = writes || l->row + first + at >= first_value(m);
        bq_panel panel = writes ? (bq_panel){bq_mat_at(w, 0, at), w.rows, n, w.ld, 1}
                                : (bq_panel){bq_mat_at(w, at, 0), w.cols, n, 1, w.ld};
        bq_rotate_panel(panel, gamma, r1_of(r), turn ? r2 : NULL, r->room);
    }
}

static void bias(bq_rotated *r, bq_tensor_id id, bq_mat b) {
    const bq_linear *l = linear_of(r, id);
    const bq_model *m = &r->arch->model;
    float *x = b.data;
    if (writes_stream(r, id)) {
        bq_rotate_panel((bq_panel){x, b.cols, 1, 1, 1}, NULL, r1_of(r), NULL, r->room);
        return;
    }
    const bq_rotation *r2 = r2_of(r, id.block);
    int64_t skip = first_value(m) - l->row;
    for (int64_t at = skip > 0 ? skip : 0; at < l->rows; at += m->head_dim)
        bq_rotate_panel((bq_panel){x + at, 1, m->head_dim, 1, 1}, NULL, NULL, r2, r->room);
}

bool bq_rotated_read(bq_rotated *r, const char *name, int64_t first, bq_mat to) {
    if (!r) return false;
    bq_tensor_id id = bq_arch_id_in(r->arch, r->dense, name);
    if (!changes(r, id)) return false;
    if (!to.data) return true;
    make(r);
    bool tied = id.kind == BQ_TENSOR_HEAD && r->arch->model.tied;
    if (id.kind != BQ_TENSOR_NORM && id.kind != BQ_TENSOR_BLOCK_NORM)
        read_rows(r, tied ? r->arch->embed : name, first, to);
    switch (id.kind) {
    case BQ_TENSOR_OTHER: break;
    case BQ_TENSOR_EMBED: rows_of_stream(r, NULL, to); break;
    case BQ_TENSOR_HEAD: rows_of_stream(r, gain(r, r->arch->final_norm), to); break;
    case BQ_TENSOR_EXTRA: rows_of_stream(r, block_gain(r, id.block, BQ_NORM_MLP), to); break;
    case BQ_TENSOR_WEIGHT: weight(r, id, first, to); break;
    case BQ_TENSOR_BIAS: bias(r, id, to); break;
    case BQ_TENSOR_NORM:
    case BQ_TENSOR_BLOCK_NORM:
        for (int64_t i = 0; i < to.cols; i++) bq_f32(to)[i] = 1;
    }
    return true;
}

void bq_rotated_embed(bq_rotated *r, bq_mat rows) {
    if (!r || !r->how.r1) return;
    make(r);
    rows_of_stream(r, NULL, rows);
}
