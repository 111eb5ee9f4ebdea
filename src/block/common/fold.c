/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/fold.h"

static bq_fusion behind(const bq_arch *arch, bq_norm_at at) {
    return (bq_fusion){arch->norm[at] ? (int)at : -1, -1, 0, 0, 0, 1};
}

bq_fusion bq_fusion_of(const bq_arch *arch, int site) {
    const bq_model *m = &arch->model;
    const bq_fusion none = {-1, -1, 0, 0, 0, 1};
    bool clamped = arch->act == BQ_SILU_CLAMPED;
    int64_t hd = m->head_dim, kv = m->kv_heads * hd, inter = bq_arch_inter(arch);
    switch (arch->site[site].role) {
    case BQ_QKV: return behind(arch, BQ_NORM_ATTENTION);
    case BQ_Q_B:
    case BQ_KV_B: return none;
    case BQ_O:
        return arch->site[site - 1].role == BQ_KV_B
                   ? none
                   : (bq_fusion){-1, site - 1, m->heads * hd + kv, kv, hd, m->heads / m->kv_heads};
    case BQ_GATE_UP: return arch->experts ? none : behind(arch, BQ_NORM_MLP);
    default: return clamped ? none : (bq_fusion){-1, site - 1, inter, inter, inter, 1};
    }
}

void bq_fold_group(bq_dev *dev, const bq_arch *arch, int site, bq_mat s) {
    bq_fusion f = bq_fusion_of(arch, site);
    if (f.repeat > 1) dev->op->head_max(dev, bq_mat_reshape(s, f.repeat * f.head), f.head);
}

void bq_fold_apply(bq_dev *dev, bq_block *blk, int site, bq_mat s) {
    const bq_ops *op = dev->op;
    bq_fusion f = bq_fusion_of(blk->arch, site);
    op->times_columns(dev, blk->w[site], s, blk->w[site]);
    blk->folded = true;
    if (f.norm >= 0) {
        op->over_columns(dev, blk->norm[f.norm], s, blk->norm[f.norm]);
        return;
    }
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat one = bq_arena_push(&dev->mem, f.rows, 1, BQ_F32); /* scales of the rows: of their first heads */
    op->copy(dev, bq_mat_cols(bq_mat_reshape(s, f.repeat * f.head), 0, f.head), bq_mat_reshape(one, f.head));
    bq_mat rows = bq_mat_rows(blk->w[f.producer], f.row, f.rows), bias = blk->bias[f.producer];
    op->over_rows(dev, rows, one, rows);
    if (bias.data) {
        bias = bq_mat_cols(bias, f.row, f.rows);
        op->over_columns(dev, bias, bq_mat_reshape(one, f.rows), bias);
    }
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_fold_need(const bq_arch *arch) {
    size_t most = 0;
    for (int m = 0; m < arch->sites; m++) {
        size_t one = bq_arena_need(bq_fusion_of(arch, m).rows, 1, BQ_F32);
        most = one > most ? one : most;
    }
    return most;
}
