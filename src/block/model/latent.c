/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/latent.h"

#define EPS 1e-6f /* of the norms of q_a and kv_a, whatever that of the others is */

static int site(const bq_block *blk, bq_role role) { return bq_arch_site(blk->arch, role); }

/* Columns of qkv, or of its gradient. */
typedef struct {
    bq_mat q, kv, r; /* q_a, or q where there is none; kv_a; the key of all heads */
} columns;

static columns columns_of(const bq_model *m, bq_mat qkv) {
    int64_t q = m->q_rank ? m->q_rank : m->heads * m->head_dim;
    return (columns){bq_mat_cols(qkv, 0, q), bq_mat_cols(qkv, q, m->kv_rank),
                     bq_mat_cols(qkv, q + m->kv_rank, m->rope_dim)};
}

/* The rope_dim channels of head h of keys or of their gradient. */
static bq_mat turned(const bq_model *m, bq_mat key, int64_t h) {
    return bq_mat_cols(key, h * m->head_dim + m->nope_dim, m->rope_dim);
}

static void rope(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_mat x, int64_t heads, bool inverse) {
    unsigned how =
        BQ_TURN_LAST | (blk->arch->model.rope_pairs ? BQ_TURN_PAIRS : 0u) | (inverse ? BQ_TURN_INVERSE : 0u);
    dev->op->rope(dev, x, heads, x.cols / heads, k->cos[blk->rope], k->sin[blk->rope], how);
}

void bq_latent_input(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_role role) {
    columns c = columns_of(&blk->arch->model, k->qkv);
    bool q = role == BQ_Q_B;
    if (q || !blk->arch->model.q_rank) bq_block_site(dev, blk, k, site(blk, BQ_QKV), w, k->a, false, k->qkv);
    dev->op->rmsnorm(dev, q ? c.q : c.kv, blk->norm[q ? BQ_NORM_Q_A : BQ_NORM_KV_A], EPS,
                     q ? k->latent.q_a : k->latent.kv_a);
}

/* Between the output of kv_b, or its gradient, and keys without their turned channels, and values.  A row is
 * a head. */
static void move_heads(bq_dev *dev, const bq_model *m, bq_mat kv, bq_mat key, bq_mat value, bool back) {
    int64_t n = m->nope_dim, v = m->value_dim;
    kv = bq_mat_reshape(kv, n + v), value = bq_mat_reshape(value, v);
    key = bq_mat_cols(bq_mat_reshape(key, m->head_dim), 0, n);
    bq_mat kv_key = bq_mat_cols(kv, 0, n), kv_value = bq_mat_cols(kv, n, v);
    dev->op->copy(dev, back ? key : kv_key, back ? kv_key : key);
    dev->op->copy(dev, back ? value : kv_value, back ? kv_value : value);
}

void bq_latent_attend(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k) {
    const bq_ops *op = dev->op;
    const bq_model *m = &blk->arch->model;
    columns c = columns_of(m, k->qkv);
    bq_mat q = m->q_rank ? k->latent.q : c.q, key = k->latent.key, r = turned(m, key, 0);
    if (m->q_rank) bq_block_site(dev, blk, k, site(blk, BQ_Q_B), w, k->latent.q_a, false, q);
    bq_block_site(dev, blk, k, site(blk, BQ_KV_B), w, k->latent.kv_a, false, k->latent.kv);
    move_heads(dev, m, k->latent.kv, key, k->latent.value, false);
    rope(dev, blk, k, q, m->heads, false);
    op->copy(dev, c.r, r);
    rope(dev, blk, k, r, 1, false);
    for (int64_t h = 1; h < m->heads; h++) op->copy(dev, r, turned(m, key, h));
    op->attention(dev, blk->attention, q, key, k->latent.value, k->o, k->lse);
}

/* Of x = norm(from), and of what `role` computes from x, with dy: dw of that site, and `to`, the gradient of
 * `from`.  x becomes its own gradient. */
static void input_back(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_role role, bq_mat from, bq_mat x,
                       bq_mat dy, const bq_mat *dw, bq_mat to) {
    bq_block_linear_bwd(dev, blk, site(blk, role), w, x, dy, dw, x);
    dev->op->zero(dev, to);
    dev->op->rmsnorm_bwd(dev, from, blk->norm[role == BQ_Q_B ? BQ_NORM_Q_A : BQ_NORM_KV_A], EPS, x, to);
}

void bq_latent_backward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, const bq_mat *dw) {
    const bq_ops *op = dev->op;
    const bq_model *m = &blk->arch->model;
    columns c = columns_of(m, k->qkv), d = columns_of(m, k->dqkv);
    bq_mat q = m->q_rank ? k->latent.q : c.q, dq = m->q_rank ? k->latent.dq : d.q, dkey = k->latent.dkey,
           dr = turned(m, dkey, 0);
    op->attention_bwd(dev, blk->attention, q, k->latent.key, k->latent.value, bq_block_heads_out(k), k->lse,
                      k->dout, dq, dkey, k->latent.dvalue);
    rope(dev, blk, k, dq, m->heads, true);
    for (int64_t h = 1; h < m->heads; h++) op->add(dev, turned(m, dkey, h), dr);
    rope(dev, blk, k, dr, 1, true);
    op->copy(dev, dr, d.r);
    move_heads(dev, m, k->latent.kv, dkey, k->latent.dvalue, true);
    input_back(dev, blk, w, BQ_KV_B, c.kv, k->latent.kv_a, k->latent.kv, dw, d.kv);
    if (m->q_rank) input_back(dev, blk, w, BQ_Q_B, c.q, k->latent.q_a, dq, dw, d.q);
}
