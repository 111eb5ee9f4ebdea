/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/turned.h"

static bool reads(bq_role role) { return role == BQ_QKV || role == BQ_GATE_UP; }

/* The rows of the value heads; no rows where the site has none. */
static bq_mat values(const bq_arch *arch, int site, bq_mat w) {
    const bq_model *m = &arch->model;
    bool has = arch->site[site].role == BQ_QKV;
    return bq_mat_rows(w, has ? (m->heads + m->kv_heads) * m->head_dim : 0,
                       has ? m->kv_heads * m->head_dim : 0);
}

/* The matrix of a site in the rotated model; back: from there to the model's own basis.  It ends in `to`;
 * room has its shape. */
static void turn(bq_dev *dev, const bq_arch *arch, int site, bq_mat from, bq_mat to, bq_mat room, bq_mat r1,
                 bq_mat r2, bool back) {
    const bq_ops *op = dev->op;
    const bq_role role = arch->site[site].role;
    if (r1.data && reads(role))
        op->gemm(dev, false, back, 1, from, r1, 0, to);
    else if (r1.data && bq_role_writes(role))
        op->gemm(dev, !back, false, 1, r1, from, 0, to);
    else
        op->copy(dev, from, to);
    if (!r2.data) return;
    bq_mat v = values(arch, site, to), other = values(arch, site, room);
    for (int64_t at = 0; at < v.rows; at += r2.rows)
        op->gemm(dev, !back, false, 1, r2, bq_mat_rows(v, at, r2.rows), 0, bq_mat_rows(other, at, r2.rows));
    if (role == BQ_O) {
        v = to, other = room;
        op->gemm(dev, false, back, 1, bq_mat_reshape(v, r2.rows), r2, 0, bq_mat_reshape(other, r2.rows));
    }
    if (v.rows) op->copy(dev, other, v);
}

void bq_turned_weights(bq_dev *dev, const bq_block *blk, bq_quantized *q, bq_mat r1, bq_mat r2) {
    const bq_ops *op = dev->op;
    const bq_arch *arch = blk->arch;
    for (int m = 0; m < arch->sites; m++)
        turn(dev, arch, m, blk->w[m], q->fold[m], q->w_hat[m], r1, r2, false);
    bq_quantized_outer(dev, q);
    for (int i = 0; i < arch->linears; i++) bq_linear_range(dev, q, i), bq_linear_encode(dev, q, i);
    for (int m = 0; m < arch->sites; m++) {
        bq_mat hat = q->w_hat[m], d = q->fold[m];
        op->scale(dev, d, -1, d);
        op->add(dev, d, hat); /* E */
        turn(dev, arch, m, hat, d, hat, r1, r2, true);
        op->copy(dev, d, hat);
        op->add(dev, blk->w[m], hat);
    }
}

void bq_turned_gradient(bq_dev *dev, const bq_quantized *q, const bq_mat *dw, bq_mat a1, bq_mat a2) {
    const bq_ops *op = dev->op;
    const bq_arch *arch = q->arch;
    for (int m = 0; m < arch->sites; m++) {
        const bq_role role = arch->site[m].role;
        const bq_mat d = q->fold[m];
        if (a1.data && reads(role)) op->gemm(dev, true, false, 1, dw[m], d, 1, a1);
        if (a1.data && bq_role_writes(role)) op->gemm(dev, false, true, 1, dw[m], d, 1, a1);
        if (!a2.data) continue;
        bq_mat g = values(arch, m, dw[m]), v = values(arch, m, d);
        for (int64_t at = 0; at < v.rows; at += a2.rows)
            op->gemm(dev, false, true, 1, bq_mat_rows(g, at, a2.rows), bq_mat_rows(v, at, a2.rows), 1, a2);
        if (role == BQ_O)
            op->gemm(dev, true, false, 1, bq_mat_reshape(dw[m], a2.rows), bq_mat_reshape(d, a2.rows), 1, a2);
    }
}
