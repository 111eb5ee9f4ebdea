/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/experts.h"
#include "block/model/latent.h"

#include "base/die.h"

void bq_block_linear_bwd(bq_dev *dev, const bq_block *blk, int site, const bq_mat *w, bq_mat x, bq_mat dy,
                         const bq_mat *dw, bq_mat dx) {
    if (dw) dev->op->gemm(dev, true, false, 1, dy, x, 0, dw[site]);
    if (!dx.data) return;
    size_t mark = bq_arena_mark(&dev->mem);
    if (w[site].type != BQ_F32) { /* codes: the scales of their rows are factors of dy's columns */
        bq_mat scaled = bq_arena_push(&dev->mem, dy.rows, dy.cols, BQ_F32);
        dev->op->times_columns(dev, dy, blk->row_scale[site], scaled);
        dy = scaled;
    }
    dev->op->gemm(dev, false, false, 1, dy, w[site], 0, dx);
    bq_arena_reset(&dev->mem, mark);
}

/* y: what the linear put out, for k->drow. */
static void linear(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_role role, const bq_mat *w,
                   bq_mat x, bq_mat y, bq_mat dy, const bq_mat *dw, bq_mat dx) {
    const int site = bq_arch_site(blk->arch, role);
    const bq_site *s = &blk->arch->site[site];
    const bool rows = k->drow[site].data != NULL;
    if (k->dbias[site].data)
        dev->op->column_dot(dev, bq_mat_cols(dy, s->bias_row, s->bias_rows), (bq_mat){0}, k->dbias[site]);
    if (rows) dev->op->column_dot(dev, dy, y, k->drow[site]);
    bq_block_linear_bwd(dev, blk, site, w, x, dy, rows ? NULL : dw, dx);
}

/* The same of o or down, which were added to `before` to give `after`; raw: what they put out, if their norm
 * needed it. */
static void added(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_role role, const bq_mat *w, bq_mat x,
                  bq_mat raw, bq_mat before, bq_mat after, bq_mat dy, const bq_mat *dw, bq_mat dx) {
    const size_t mark = bq_arena_mark(&dev->mem);
    if (k->drow[bq_arch_site(blk->arch, role)].data && !raw.data) {
        raw = bq_arena_push(&dev->mem, before.rows, before.cols, BQ_F32);
        dev->op->scale(dev, before, -1, raw);
        dev->op->add(dev, after, raw);
    }
    linear(dev, blk, k, role, w, x, raw, dy, dw, dx);
    bq_arena_reset(&dev->mem, mark);
}

/* The gradient of a kept norm's gains, times the gains, which is dy times the norm's output. */
static void gain(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_norm_at at, bq_mat x, bq_mat dy) {
    for (int i = 0; i < 2; i++) {
        if (!k->dgain[i].data || bq_block_kept_at(blk, i) != (int)at) continue;
        const size_t mark = bq_arena_mark(&dev->mem);
        bq_mat y = bq_arena_push(&dev->mem, x.rows, x.cols, BQ_F32);
        dev->op->rmsnorm(dev, x, blk->norm[at], (float)blk->arch->model.eps, y);
        dev->op->column_dot(dev, dy, y, k->dgain[i]);
        bq_arena_reset(&dev->mem, mark);
    }
}

/* Of y = norm(x) with dy: dx += its gradient. */
static void norm(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_norm_at at, bq_mat x, bq_mat dy,
                 bq_mat dx) {
    gain(dev, blk, k, at, x, dy);
    if (blk->norm[at].data)
        dev->op->rmsnorm_bwd(dev, x, blk->norm[at], (float)blk->arch->model.eps, dy, dx);
    else
        dev->op->add(dev, dy, dx);
}

/* The gradient of what o or down computes, `raw`, from dy, that of its norm: in t; dy where there is none. */
static bq_mat output(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_norm_at at, bq_mat raw, bq_mat dy,
                     bq_mat t) {
    if (!blk->norm[at].data) return dy;
    dev->op->zero(dev, t);
    norm(dev, blk, k, at, raw, dy, t);
    return t;
}

/* dy, the gradient of q or k behind their norm, becomes the one before it.  t: room of that shape. */
static void heads_norm(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_norm_at at, bq_mat raw,
                       bq_mat dy, bq_mat t) {
    if (!blk->norm[at].data) return;
    dev->op->copy(dev, output(dev, blk, k, at, raw, dy, t), dy);
}

/* k->dqkv from k->dout. */
static void attention(bq_dev *dev, const bq_block *blk, bq_work *k) {
    const bq_ops *op = dev->op;
    const bq_model *m = &blk->arch->model;
    const bq_mat cos = k->cos[blk->rope], sin = k->sin[blk->rope];
    bq_heads h = bq_block_split(m, k->qkv), dh = bq_block_split(m, k->dqkv);
    op->attention_bwd(dev, blk->attention, h.q, h.k, h.v, bq_block_heads_out(k), k->lse, k->dout, dh.q, dh.k,
                      dh.v);
    op->rope(dev, dh.q, m->heads, m->head_dim, cos, sin, BQ_TURN_INVERSE);
    op->rope(dev, dh.k, m->kv_heads, m->head_dim, cos, sin, BQ_TURN_INVERSE);
    if (k->raw_qk.data) { /* q and k are not read again: their room is free */
        heads_norm(dev, blk, k, BQ_NORM_Q, bq_mat_cols(k->raw_qk, 0, h.q.cols), dh.q, h.q);
        heads_norm(dev, blk, k, BQ_NORM_K, bq_mat_cols(k->raw_qk, h.q.cols, h.k.cols), dh.k, h.k);
        op->copy(dev, k->raw_qk, bq_mat_cols(k->qkv, 0, k->raw_qk.cols));
    }
}

/* k->dn from dy. */
static void dense_mlp(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat dy,
                      const bq_mat *dw) {
    bq_glu g = bq_block_glu(blk->arch, k);
    bq_mat d = output(dev, blk, k, BQ_NORM_DOWN, k->raw_down, dy, k->t), dz = bq_mat_cols(k->dz, 0, g.z.cols);
    const size_t mark = bq_arena_mark(&dev->mem);
    bq_mat y = {0};
    added(dev, blk, k, BQ_DOWN, w, g.z, k->raw_down, k->m, k->y, d, dw, dz);
    if (k->drow[bq_arch_site(blk->arch, BQ_GATE_UP)].data) {
        y = bq_arena_push(&dev->mem, g.both.rows, g.both.cols, BQ_F32);
        dev->op->copy(dev, g.both, y);
    }
    dev->op->glu_bwd(dev, blk->arch->act, bq_block_limit(blk), g.gate, g.up, dz, g.gate, g.up);
    linear(dev, blk, k, BQ_GATE_UP, w, k->n, y, g.both, dw, k->dn);
    bq_arena_reset(&dev->mem, mark);
}

void bq_block_backward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat x, bq_mat dy,
                       const bq_mat *dw, bq_mat dx) {
    const bq_ops *op = dev->op;
    BQ_CHECK(k->dn.data && !blk->pre &&
                 (!k->inputs.element || k->raw_heads.data || !bq_arch_has(blk->arch, BQ_O)),
             "backward with what is for the forward only");
    if (blk->arch->kind == BQ_UNIT_EXPERT) {
        dense_mlp(dev, blk, w, k, dy, dw);
        if (dx.data) op->copy(dev, k->dn, dx);
        return;
    }
    if (blk->arch->experts)
        bq_experts_backward(dev, blk, w, k, dy, dw, k->dn);
    else
        dense_mlp(dev, blk, w, k, dy, dw);
    op->copy(dev, dy, k->dm);
    norm(dev, blk, k, BQ_NORM_MLP, k->m, k->dn, k->dm);
    bq_mat d = output(dev, blk, k, BQ_NORM_O, k->raw_o, k->dm, k->t);
    added(dev, blk, k, BQ_O, w, k->o, k->raw_o, x, k->m, d, dw, k->dout);
    if (blk->arch->model.kv_rank)
        bq_latent_backward(dev, blk, w, k, dw);
    else
        attention(dev, blk, k);
    linear(dev, blk, k, BQ_QKV, w, k->a, k->qkv, k->dqkv, dw, dx.data ? k->dn : dx);
    if (!dx.data) return;
    op->copy(dev, k->dm, dx);
    norm(dev, blk, k, BQ_NORM_ATTENTION, x, k->dn, dx);
}
