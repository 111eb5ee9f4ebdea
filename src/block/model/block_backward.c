#include "block/model/experts.h"
#include "block/model/latent.h"

#include "base/die.h"

void bq_block_linear_bwd(bq_dev *dev, const bq_block *blk, int site, const bq_mat *w, bq_mat x, bq_mat dy,
                         const bq_mat *dw, bq_mat dx) {
    dev->op->gemm(dev, true, false, 1, dy, x, 0, dw[site]);
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

static void linear(bq_dev *dev, const bq_block *blk, bq_role role, const bq_mat *w, bq_mat x, bq_mat dy,
                   const bq_mat *dw, bq_mat dx) {
    bq_block_linear_bwd(dev, blk, bq_arch_site(blk->arch, role), w, x, dy, dw, dx);
}

/* Of y = norm(x) with dy: dx += its gradient. */
static void norm(bq_dev *dev, const bq_block *blk, bq_norm_at at, bq_mat x, bq_mat dy, bq_mat dx) {
    if (blk->norm[at].data)
        dev->op->rmsnorm_bwd(dev, x, blk->norm[at], (float)blk->arch->model.eps, dy, dx);
    else
        dev->op->add(dev, dy, dx);
}

/* The gradient of what o or down computes, `raw`, from dy, that of its norm: in t; dy where there is none. */
static bq_mat output(bq_dev *dev, const bq_block *blk, bq_norm_at at, bq_mat raw, bq_mat dy, bq_mat t) {
    if (!blk->norm[at].data) return dy;
    dev->op->zero(dev, t);
    norm(dev, blk, at, raw, dy, t);
    return t;
}

/* dy, the gradient of q or k behind their norm, becomes the one before it.  t: room of that shape. */
static void heads_norm(bq_dev *dev, const bq_block *blk, bq_norm_at at, bq_mat raw, bq_mat dy, bq_mat t) {
    if (!blk->norm[at].data) return;
    dev->op->copy(dev, output(dev, blk, at, raw, dy, t), dy);
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
        heads_norm(dev, blk, BQ_NORM_Q, bq_mat_cols(k->raw_qk, 0, h.q.cols), dh.q, h.q);
        heads_norm(dev, blk, BQ_NORM_K, bq_mat_cols(k->raw_qk, h.q.cols, h.k.cols), dh.k, h.k);
    }
}

/* k->dn from dy. */
static void dense_mlp(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat dy,
                      const bq_mat *dw) {
    bq_glu g = bq_block_glu(blk->arch, k);
    bq_mat d = output(dev, blk, BQ_NORM_DOWN, k->raw_down, dy, k->t), dz = bq_mat_cols(k->dz, 0, g.z.cols);
    linear(dev, blk, BQ_DOWN, w, g.z, d, dw, dz);
    dev->op->glu_bwd(dev, blk->arch->act, bq_block_limit(blk), g.gate, g.up, dz, g.gate, g.up);
    linear(dev, blk, BQ_GATE_UP, w, k->n, g.both, dw, k->dn);
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
    norm(dev, blk, BQ_NORM_MLP, k->m, k->dn, k->dm);
    bq_mat d = output(dev, blk, BQ_NORM_O, k->raw_o, k->dm, k->t);
    linear(dev, blk, BQ_O, w, k->o, d, dw, k->dout);
    if (blk->arch->model.kv_rank)
        bq_latent_backward(dev, blk, w, k, dw);
    else
        attention(dev, blk, k);
    linear(dev, blk, BQ_QKV, w, k->a, k->dqkv, dw, dx.data ? k->dn : dx);
    if (!dx.data) return;
    op->copy(dev, k->dm, dx);
    norm(dev, blk, BQ_NORM_ATTENTION, x, k->dn, dx);
}
