/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "block/model/experts.h"
#include "block/model/latent.h"

#include <string.h>

/* Lay the matrices of blk->arch in its room. */
static void lay(bq_block *blk) {
    const bq_arch *arch = blk->arch;
    bq_arena_reset(&blk->room, 0);
    memset(blk->w, 0, sizeof blk->w), memset(blk->bias, 0, sizeof blk->bias);
    memset(blk->norm, 0, sizeof blk->norm);
    for (int m = 0; m < arch->sites; m++) {
        blk->w[m] = bq_arena_push(&blk->room, arch->site[m].rows, arch->site[m].cols, BQ_F32);
        if (arch->site[m].bias_rows) blk->bias[m] = bq_arena_push(&blk->room, 1, arch->site[m].rows, BQ_F32);
    }
    for (int i = 0; i < BQ_NORMS; i++)
        if (arch->gains[i]) blk->norm[i] = bq_arena_push(&blk->room, 1, arch->gains[i], BQ_F32);
    for (int i = 0; i < BQ_EXTRAS; i++) {
        const int64_t *shape = arch->extra_shape[i];
        blk->extra[i] = (bq_mat){0};
        if (arch->extra[i])
            blk->extra[i] = bq_arena_push(&blk->room, shape[0] ? shape[0] : 1, shape[1], BQ_F32);
    }
}

/* Bytes of a block with that layout. */
static size_t need_of(const bq_arch *arch) {
    size_t sum = 0;
    for (int m = 0; m < arch->sites; m++) {
        sum += bq_arena_need(arch->site[m].rows, arch->site[m].cols, BQ_F32);
        if (arch->site[m].bias_rows) sum += bq_arena_need(1, arch->site[m].rows, BQ_F32);
    }
    for (int i = 0; i < BQ_NORMS; i++) sum += arch->gains[i] ? bq_arena_need(1, arch->gains[i], BQ_F32) : 0;
    for (int i = 0; i < BQ_EXTRAS; i++) {
        const int64_t *shape = arch->extra_shape[i];
        if (arch->extra[i]) sum += bq_arena_need(shape[0] ? shape[0] : 1, shape[1], BQ_F32);
    }
    return sum;
}

/* Bytes of the largest layout that it may be turned to. */
static size_t largest(const bq_arch *arch) {
    bq_arch other;
    size_t most = need_of(arch);
    if (bq_arch_of_dense(&arch->model, &other) && need_of(&other) > most) most = need_of(&other);
    if (arch->kind != BQ_UNIT_CORE) return most;
    bq_arch_of_expert(&arch->model, 0, &other);
    return need_of(&other) > most ? need_of(&other) : most;
}

size_t bq_block_need(const bq_arch *arch) { return bq_arena_need(1, (int64_t)largest(arch), BQ_I8); }

void bq_block_push(bq_block *blk, const bq_arch *arch, bq_arena *mem) {
    bq_mat room = bq_arena_push(mem, 1, (int64_t)largest(arch), BQ_I8);
    *blk = (bq_block){0};
    bq_arena_adopt(&blk->room, room.data, (size_t)room.cols, room.place);
    bq_block_turn(blk, arch, 0);
}

void bq_block_turn(bq_block *blk, const bq_arch *arch, int index) {
    const bq_model *m = &arch->model;
    bool other = blk->arch != arch;
    blk->arch = arch;
    if (other) lay(blk);
    blk->index = index;
    blk->attention = arch->attention;
    blk->attention.sinks = blk->extra[BQ_SINKS];
    if (m->full[index]) blk->attention.window = 0;
    blk->rope = m->full[index] && m->full_rope.dim;
    blk->folded = false;
    blk->pre = blk->row_scale = NULL, blk->inputs = blk->kv = NULL;
}

bq_heads bq_block_split(const bq_model *m, bq_mat qkv) {
    int64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    return (bq_heads){bq_mat_cols(qkv, 0, q), bq_mat_cols(qkv, q, kv), bq_mat_cols(qkv, q + kv, kv)};
}

/* y = the norm of x, or x where the block has no such norm. */
static void norm(bq_dev *dev, const bq_block *blk, bq_norm_at at, bq_mat x, bq_mat y) {
    if (blk->norm[at].data)
        dev->op->rmsnorm(dev, x, blk->norm[at], (float)blk->arch->model.eps, y);
    else if (x.data != y.data)
        dev->op->copy(dev, x, y);
}

/* To the rows of the linears that have a bias. */
static void add_bias(bq_dev *dev, const bq_block *blk, int site, bq_mat out) {
    const bq_site *s = &blk->arch->site[site];
    if (s->bias_rows)
        dev->op->bias(dev, bq_mat_cols(blk->bias[site], s->bias_row, s->bias_rows),
                      bq_mat_cols(out, s->bias_row, s->bias_rows));
}

/* out = x w^T, with `keep` added to it: w has codes. */
static void of_codes(bq_dev *dev, bq_mat x, bq_mat w, bq_mat scale, bool keep, bq_mat out) {
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat y = keep ? bq_arena_push(&dev->mem, out.rows, out.cols, BQ_F32) : out;
    dev->op->gemm(dev, false, true, 1, x, w, 0, y);
    dev->op->times_columns(dev, y, scale, y);
    if (keep) dev->op->add(dev, y, out);
    bq_arena_reset(&dev->mem, mark);
}

void bq_block_linear(bq_dev *dev, const bq_block *blk, int site, const bq_mat *w, bq_mat x, bool keep,
                     bq_mat out) {
    if (w[site].type != BQ_F32)
        of_codes(dev, x, w[site], blk->row_scale[site], keep, out);
    else
        dev->op->gemm(dev, false, true, 1, x, w[site], keep ? 1 : 0, out);
    add_bias(dev, blk, site, out);
}

static void set(bq_dev *dev, bq_mat m, int64_t row, int64_t col, float value) {
    dev->op->set(dev, bq_mat_cols(bq_mat_rows(m, row, 1), col, 1), value);
}

void bq_block_round(bq_dev *dev, const bq_block *blk, const bq_work *k, int site, bq_mat x) {
    bq_mat grid = bq_mat_rows(k->grid, 0, 1);
    if (!k->inputs.element) return;
    if (bq_rounding_given(k->inputs) && blk->inputs) {
        for (int i = 0; i < 2; i++) set(dev, grid, 0, i, blk->inputs[2 * site + i]);
    } else if (bq_rounding_given(k->inputs)) {
        dev->op->zero(dev, grid);
        dev->op->ends(dev, k->real && k->real < x.rows ? bq_mat_rows(x, 0, k->real) : x, -1, grid);
        dev->op->grid_of_ends(dev, grid, k->inputs, grid);
    }
    dev->op->round_rows(dev, x, k->inputs, grid, x);
}

/* bq_block_linear where each linear of the site has its own factors of x. */
static void prescaled(bq_dev *dev, const bq_block *blk, const bq_work *k, int site, const bq_mat *w, bq_mat x,
                      bool keep, bq_mat out) {
    const bq_arch *arch = blk->arch;
    const bq_site *s = &arch->site[site];
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat y = bq_arena_push(&dev->mem, x.rows, x.cols, BQ_F32);
    for (int i = s->first; i < s->first + s->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        dev->op->times_columns(dev, x, blk->pre[i], y);
        bq_block_round(dev, blk, k, site, y);
        dev->op->gemm(dev, false, true, 1, y, bq_mat_rows(w[site], l->row, l->rows), keep ? 1 : 0,
                      bq_mat_cols(out, l->row, l->rows));
    }
    add_bias(dev, blk, site, out);
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_block_pre_scratch(const bq_arch *arch, int64_t tokens) {
    size_t most = 0;
    for (int m = 0; m < arch->sites; m++) {
        size_t one = bq_arena_need(tokens, arch->site[m].cols, BQ_F32);
        most = one > most ? one : most;
    }
    return most;
}

void bq_block_site(bq_dev *dev, const bq_block *blk, const bq_work *k, int site, const bq_mat *w, bq_mat x,
                   bool keep, bq_mat out) {
    if (blk->pre) {
        prescaled(dev, blk, k, site, w, x, keep, out);
        return;
    }
    bq_block_linear(dev, blk, site, w, x, keep, out);
}

static void linear(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_role role, const bq_mat *w,
                   bq_mat x, bool keep, bq_mat out) {
    bq_block_site(dev, blk, k, bq_arch_site(blk->arch, role), w, x, keep, out);
}

/* x becomes what a cache keeps of it.  scale: of each group of columns, where all rows share them. */
static void round_cached(bq_dev *dev, bq_work *k, bq_mat x, const float *scale) {
    bq_mat grid = bq_mat_rows(k->grid, 0, bq_rounding_groups(k->cache, x.cols));
    for (int64_t g = 0; g < grid.rows && k->cache.whole; g++)
        set(dev, grid, g, 0, scale[g]), set(dev, grid, g, 1, 0);
    dev->op->round_rows(dev, x, k->cache, grid, x);
}

/* k->qkv, k->o and k->lse from k->a. */
static void attend(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k) {
    const bq_ops *op = dev->op;
    const bq_model *m = &blk->arch->model;
    bq_heads h = bq_block_split(m, k->qkv);
    linear(dev, blk, k, BQ_QKV, w, k->a, false, k->qkv);
    if (k->raw_qk.data) op->copy(dev, bq_mat_cols(k->qkv, 0, k->raw_qk.cols), k->raw_qk);
    norm(dev, blk, BQ_NORM_Q, h.q, h.q);
    norm(dev, blk, BQ_NORM_K, h.k, h.k);
    op->rope(dev, h.q, m->heads, m->head_dim, k->cos[blk->rope], k->sin[blk->rope], 0);
    op->rope(dev, h.k, m->kv_heads, m->head_dim, k->cos[blk->rope], k->sin[blk->rope], 0);
    if (k->cache.element) {
        round_cached(dev, k, h.k, blk->kv);
        round_cached(dev, k, h.v, blk->kv ? blk->kv + bq_rounding_groups(k->cache, h.k.cols) : NULL);
    }
    op->attention(dev, blk->attention, h.q, h.k, h.v, k->o, k->lse);
}

bq_glu bq_block_glu(const bq_arch *arch, const bq_work *k) {
    int64_t inter = arch->site[bq_arch_site(arch, BQ_GATE_UP)].rows / 2;
    return (bq_glu){bq_mat_cols(k->gu, 0, 2 * inter), bq_mat_cols(k->gu, 0, inter),
                    bq_mat_cols(k->gu, inter, inter), bq_mat_cols(k->z, 0, inter)};
}

void bq_block_gated(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k) {
    bq_glu g = bq_block_glu(blk->arch, k);
    linear(dev, blk, k, BQ_GATE_UP, w, k->n, false, g.both);
    dev->op->glu(dev, blk->arch->act, bq_block_limit(blk), g.gate, g.up, g.z);
}

bq_mat bq_block_input(const bq_arch *arch, const bq_work *k, int site) {
    const bq_site *s = &arch->site[site];
    switch (s->role) {
    case BQ_QKV: return k->a;
    case BQ_Q_B: return k->latent.q_a;
    case BQ_KV_B: return k->latent.kv_a;
    case BQ_O: return k->o;
    case BQ_GATE_UP: return k->n;
    case BQ_DOWN: return bq_block_glu(arch, k).z;
    default: return bq_expert_rows(k, s->role == BQ_EXPERT_DOWN ? k->ze : k->xe, s->expert);
    }
}

/* The input of a site, which was just computed, as the linears see it.  With factors of inputs each linear
 * has its own; see prescaled. */
static void finish_input(bq_dev *dev, const bq_block *blk, const bq_work *k, int site) {
    if (blk->arch->site[site].role == BQ_O && k->raw_heads.data) dev->op->copy(dev, k->o, k->raw_heads);
    if (!blk->pre) bq_block_round(dev, blk, k, site, bq_block_input(blk->arch, k, site));
}

void bq_block_norm(bq_dev *dev, const bq_block *blk, bq_work *k) {
    norm(dev, blk, BQ_NORM_MLP, k->m, k->n);
    if (k->raw_n.data) dev->op->copy(dev, k->n, k->raw_n);
    if (bq_arch_has(blk->arch, BQ_GATE_UP)) finish_input(dev, blk, k, bq_arch_site(blk->arch, BQ_GATE_UP));
}

/* y = residual + what o or down computes from x, or the norm of that. */
static void add_output(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_role role, const bq_mat *w,
                       bq_mat x, bq_mat residual, bq_mat y) {
    bool o = role == BQ_O;
    bq_mat raw = o ? k->raw_o : k->raw_down;
    dev->op->copy(dev, residual, y);
    if (!blk->norm[o ? BQ_NORM_O : BQ_NORM_DOWN].data) {
        linear(dev, blk, k, role, w, x, true, y);
        return;
    }
    if (!raw.data) raw = k->t;
    linear(dev, blk, k, role, w, x, false, raw);
    norm(dev, blk, o ? BQ_NORM_O : BQ_NORM_DOWN, raw, k->t);
    dev->op->add(dev, k->t, y);
}

/* m and n, and where there are experts those of each token. */
static void begin_mlp(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat x) {
    if (blk->arch->kind == BQ_UNIT_EXPERT) {
        dev->op->copy(dev, x, k->n);
        return;
    }
    add_output(dev, blk, k, BQ_O, w, k->o, x, k->m);
    norm(dev, blk, BQ_NORM_MLP, k->m, k->n);
    if (k->raw_n.data) dev->op->copy(dev, k->n, k->raw_n);
    if (!blk->arch->experts) return;
    bq_experts_gate(dev, blk, k);
    if (blk->arch->kind == BQ_UNIT_BLOCK) bq_experts_route(dev, blk, k);
}

static void output(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat y) {
    if (blk->arch->kind == BQ_UNIT_EXPERT) {
        linear(dev, blk, k, BQ_DOWN, w, bq_block_glu(blk->arch, k).z, false, y);
        return;
    }
    if (!blk->arch->experts) {
        add_output(dev, blk, k, BQ_DOWN, w, bq_block_glu(blk->arch, k).z, k->m, y);
        return;
    }
    dev->op->copy(dev, k->m, y);
    bq_experts_add_shared(dev, blk, w, k, y);
    if (blk->arch->kind == BQ_UNIT_BLOCK) bq_experts_add(dev, blk, w, k, y);
}

static void part(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int m, bq_mat x, bq_mat y) {
    const bq_arch *arch = blk->arch;
    if (m == bq_arch_mlp(arch)) begin_mlp(dev, blk, w, k, x);
    if (m == arch->sites) {
        output(dev, blk, w, k, y);
        return;
    }
    switch (arch->site[m].role) {
    case BQ_QKV: norm(dev, blk, BQ_NORM_ATTENTION, x, k->a); break;
    case BQ_Q_B:
    case BQ_KV_B: bq_latent_input(dev, blk, w, k, arch->site[m].role); break;
    case BQ_O: (arch->model.kv_rank ? bq_latent_attend : attend)(dev, blk, w, k); break;
    case BQ_GATE_UP: break;
    case BQ_DOWN: bq_block_gated(dev, blk, w, k); break;
    case BQ_EXPERT_GATE_UP: bq_experts_gather(dev, k, arch->site[m].expert); break;
    default: bq_experts_gated(dev, blk, w, k, arch->site[m].expert);
    }
    finish_input(dev, blk, k, m);
}

void bq_block_heads(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k) {
    int o = bq_arch_site(blk->arch, BQ_O);
    bq_block_parts(dev, blk, w, k, bq_arch_site(blk->arch, BQ_QKV) + 1, o, (bq_mat){0}, (bq_mat){0});
}

void bq_block_parts(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int first, int last,
                    bq_mat x, bq_mat y) {
    for (int m = first; m <= last; m++) part(dev, blk, w, k, m, x, y);
}

/* The number of the last part: that of the output, or where it is not wanted that of the last site. */
static int last_part(const bq_block *blk, bq_mat y) { return blk->arch->sites - !y.data; }

void bq_block_rest(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat x, bq_mat y) {
    bq_block_parts(dev, blk, w, k, bq_arch_mlp(blk->arch), last_part(blk, y), x, y);
}

void bq_block_forward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat x, bq_mat y) {
    bq_block_parts(dev, blk, w, k, 0, last_part(blk, y), x, y);
}

void bq_block_sample(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat from, bq_mat to) {
    dev->op->put(dev, from, k->x);
    bq_block_forward(dev, blk, w, k, k->x, k->y);
    (to.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, k->y, to);
    dev->op->wait(dev);
}
