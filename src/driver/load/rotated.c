#include "driver/load/rotated.h"

#include "base/die.h"

#include <stdlib.h>

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
};

static size_t doubles(const bq_transform *t, const bq_model *m) {
    return bq_rotation_need(t->r1, m->hidden, t->r1_block) +
           bq_rotation_need(t->r2, m->head_dim, t->r2_block) + bq_rotate_room(m->hidden);
}

size_t bq_rotated_need(const bq_recipe *recipe, const bq_arch *arch) {
    const bq_transform *t = &recipe->transform[0];
    if (!recipe->ntransform) return 0;
    return doubles(t, &arch->model) * sizeof(double) + (size_t)arch->model.hidden * sizeof(float);
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
    if (code) return code;
    bq_rotated *r = calloc(1, sizeof *r);
    BQ_CHECK(r, "no memory for a rotation");
    *r = (bq_rotated){
        .arch = arch, .dense = dense, .weights = weights, .how = *t, .seed = recipe->seed, .block = -1};
    *out = r;
    return BQ_OK;
}

/* On the first tensor: a plan needs neither the memory nor the time. */
static void make(bq_rotated *r) {
    const bq_transform *t = &r->how;
    const bq_model *m = &r->arch->model;
    if (r->memory) return;
    r->memory = malloc(doubles(t, m) * sizeof *r->memory);
    r->gamma = malloc((size_t)m->hidden * sizeof *r->gamma);
    BQ_CHECK(r->memory && r->gamma, "no memory for rotations of size %ld", (long)m->hidden);
    r->memory2 = r->memory + bq_rotation_need(t->r1, m->hidden, t->r1_block);
    r->room = r->memory2 + bq_rotation_need(t->r2, m->head_dim, t->r2_block);
    bq_rng_key at = {.seed = r->seed, .sweep = AT, .phase = AT};
    if (t->r1) bq_rotation_make(&r->r1, t->r1, m->hidden, t->r1_block, at, r->memory);
}

void bq_rotated_close(bq_rotated *r) {
    if (!r) return;
    free(r->memory);
    free(r->gamma);
    free(r);
}

static const bq_rotation *r1_of(const bq_rotated *r) { return r->how.r1 ? &r->r1 : NULL; }

static const bq_rotation *r2_of(bq_rotated *r, int block) {
    const bq_transform *t = &r->how;
    if (!t->r2) return NULL;
    bq_rng_key at = {.seed = r->seed, .sweep = AT, .phase = AT, .iteration = 1, .block = (uint32_t)block};
    if (block != r->block)
        bq_rotation_make(&r->r2, t->r2, r->arch->model.head_dim, t->r2_block, at, r->memory2);
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
