/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/experts.h"

/* A shared MLP with a gate is as an expert that all tokens take: the router of its only logit. */
static const bq_router gate = {BQ_ROUTE_SIGMOID, 1, 1, 1, false, 1};

/* Sites of expert e. */
typedef struct {
    int gate_up, down;
} sites;

static sites sites_of(const bq_arch *arch, int e) {
    int first = bq_arch_site(arch, BQ_EXPERT_GATE_UP) + 2 * e;
    return (sites){first, first + 1};
}

void bq_experts_gate(bq_dev *dev, const bq_block *blk, bq_work *k) {
    const bq_ops *op = dev->op;
    if (!blk->extra[BQ_SHARED_GATE].data) return;
    op->gemm(dev, false, true, 1, bq_block_normed(k), blk->extra[BQ_SHARED_GATE], 0, k->gate_logit);
    op->route(dev, gate, k->gate_logit, (bq_mat){0}, k->gate_index, k->gate);
    op->expert_lists(dev, k->gate_index, k->all, k->all_slots, k->all_first);
}

void bq_experts_route(bq_dev *dev, const bq_block *blk, bq_work *k) {
    const bq_ops *op = dev->op;
    op->gemm(dev, false, true, 1, bq_block_normed(k), blk->extra[BQ_ROUTER], 0, k->logits);
    if (blk->extra[BQ_ROUTER_BIAS].data) op->bias(dev, blk->extra[BQ_ROUTER_BIAS], k->logits);
    op->route(dev, blk->arch->router, k->logits, blk->extra[BQ_ROUTER_CORRECTION], k->index, k->weight);
    op->expert_lists(dev, k->index, k->rows, k->slots, k->first);
    op->gather_rows(dev, bq_mat_reshape(k->weight, 1), k->slots, (bq_mat){0}, k->we);
    op->get(dev, k->first, bq_mat_host(k->start, k->first.rows, 1, BQ_I32));
    op->wait(dev);
}

void bq_experts_gather(bq_dev *dev, bq_work *k, int e) {
    bq_mat x = bq_expert_rows(k, k->xe, e);
    if (x.rows) dev->op->gather_rows(dev, bq_block_normed(k), bq_expert_rows(k, k->rows, e), (bq_mat){0}, x);
}

static void glu(bq_dev *dev, const bq_block *blk, bq_mat gu, bq_mat z) {
    bq_mat g = bq_mat_cols(gu, 0, z.cols), u = bq_mat_cols(gu, z.cols, z.cols);
    dev->op->glu(dev, blk->arch->act, bq_block_limit(blk), g, u, z);
}

void bq_experts_gated(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int e) {
    bq_mat gu = bq_expert_rows(k, k->gue, e);
    if (!gu.rows) return;
    bq_block_site(dev, blk, k, sites_of(blk->arch, e).gate_up, w, bq_expert_rows(k, k->xe, e), false, gu);
    glu(dev, blk, gu, bq_expert_rows(k, k->ze, e));
}

void bq_experts_add_shared(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat y) {
    if (!bq_arch_has(blk->arch, BQ_DOWN)) return;
    int down = bq_arch_site(blk->arch, BQ_DOWN);
    bool gated = blk->extra[BQ_SHARED_GATE].data != NULL;
    bq_block_site(dev, blk, k, down, w, bq_block_glu(blk->arch, k).z, !gated, gated ? k->t : y);
    if (gated) dev->op->scatter_add_rows(dev, k->t, k->all, k->gate, y);
}

void bq_experts_add(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat y) {
    for (int e = 0; e < blk->arch->experts; e++) {
        bq_mat z = bq_expert_rows(k, k->ze, e), out = bq_expert_rows(k, k->ye, e);
        if (!z.rows) continue;
        bq_block_site(dev, blk, k, sites_of(blk->arch, e).down, w, z, false, out);
        dev->op->scatter_add_rows(dev, out, bq_expert_rows(k, k->rows, e), bq_expert_rows(k, k->we, e), y);
    }
}

void bq_experts_add_rows(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat rows,
                         bq_mat weight, bq_mat y) {
    bq_glu g = bq_block_glu(blk->arch, k);
    bq_mat x = bq_mat_rows(k->x, 0, rows.rows), both = bq_mat_rows(g.both, 0, rows.rows),
           z = bq_mat_rows(g.z, 0, rows.rows), out = bq_mat_rows(k->y, 0, rows.rows);
    int gate_up = bq_arch_site(blk->arch, BQ_GATE_UP), down = bq_arch_site(blk->arch, BQ_DOWN);
    if (!blk->pre) bq_block_round(dev, blk, k, gate_up, x);
    bq_block_site(dev, blk, k, gate_up, w, x, false, both);
    glu(dev, blk, both, z);
    if (!blk->pre) bq_block_round(dev, blk, k, down, z);
    bq_block_site(dev, blk, k, down, w, z, false, out);
    dev->op->scatter_add_rows(dev, out, rows, weight, y);
}

/* ---- backward ---- */

/* Of z = act(g) u: gu becomes its gradient. */
static void glu_back(bq_dev *dev, const bq_block *blk, bq_mat gu, bq_mat dz) {
    bq_mat g = bq_mat_cols(gu, 0, dz.cols), u = bq_mat_cols(gu, dz.cols, dz.cols);
    dev->op->glu_bwd(dev, blk->arch->act, bq_block_limit(blk), g, u, dz, g, u);
}

/* Of logits = n w^T with w = blk->extra[i]. */
static void logit_back(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_extra i, bq_mat dlogits,
                       bq_mat dn) {
    dev->op->gemm(dev, false, false, 1, dlogits, blk->extra[i], 1, dn);
    if (k->dextra[i].data) dev->op->gemm(dev, true, false, 1, dlogits, bq_block_normed(k), 0, k->dextra[i]);
}

/* The shared MLP: dn is overwritten, with 0 where there is none. */
static void shared_back(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat dy,
                        const bq_mat *dw, bq_mat dn) {
    const bq_ops *op = dev->op;
    const bq_arch *arch = blk->arch;
    if (!bq_arch_has(arch, BQ_DOWN)) {
        op->zero(dev, dn);
        return;
    }
    bool gated = blk->extra[BQ_SHARED_GATE].data != NULL;
    bq_glu g = bq_block_glu(arch, k);
    bq_mat d = gated ? k->raw_down : dy, dz = bq_mat_cols(k->dz, 0, g.z.cols);
    if (gated) op->gather_rows(dev, dy, k->all, k->gate, d);
    bq_block_linear_bwd(dev, blk, bq_arch_site(arch, BQ_DOWN), w, g.z, d, dw, dz);
    glu_back(dev, blk, g.both, dz);
    bq_block_linear_bwd(dev, blk, bq_arch_site(arch, BQ_GATE_UP), w, k->n, g.both, dw, dn);
    if (!gated) return;
    op->dot_rows(dev, dy, k->all, k->t, k->dgate);
    op->route_bwd(dev, gate, k->gate_logit, k->gate_index, k->dgate, k->dgate_logit);
    logit_back(dev, blk, k, BQ_SHARED_GATE, k->dgate_logit, dn);
}

void bq_experts_backward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat dy,
                         const bq_mat *dw, bq_mat dn) {
    const bq_ops *op = dev->op;
    shared_back(dev, blk, w, k, dy, dw, dn);
    if (blk->arch->kind == BQ_UNIT_CORE) return;
    op->set(dev, k->one, 1);
    op->zero(dev, k->dweight);
    for (int e = 0; e < blk->arch->experts; e++) {
        sites s = sites_of(blk->arch, e);
        bq_mat x = bq_expert_rows(k, k->xe, e), dx = bq_expert_rows(k, k->dxe, e),
               gu = bq_expert_rows(k, k->gue, e), dz = bq_expert_rows(k, k->dze, e),
               rows = bq_expert_rows(k, k->rows, e), one = bq_expert_rows(k, k->one, e),
               dc = bq_expert_rows(k, k->dwe, e);
        if (!x.rows) {
            op->zero(dev, dw[s.gate_up]), op->zero(dev, dw[s.down]);
            continue;
        }
        op->dot_rows(dev, dy, rows, bq_expert_rows(k, k->ye, e), dc);
        op->scatter_add_rows(dev, dc, bq_expert_rows(k, k->slots, e), one, k->dweight);
        op->gather_rows(dev, dy, rows, bq_expert_rows(k, k->we, e), dx);
        bq_block_linear_bwd(dev, blk, s.down, w, bq_expert_rows(k, k->ze, e), dx, dw, dz);
        glu_back(dev, blk, gu, dz);
        bq_block_linear_bwd(dev, blk, s.gate_up, w, x, gu, dw, dx);
        op->scatter_add_rows(dev, dx, rows, one, dn);
    }
    op->route_bwd(dev, blk->arch->router, k->logits, k->index, bq_mat_reshape(k->dweight, k->index.cols),
                  k->dlogits);
    logit_back(dev, blk, k, BQ_ROUTER, k->dlogits, dn);
}
