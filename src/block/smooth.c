#include "block/smooth.h"

#include "block/fold.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static bool left_out(const bq_arch *arch, const bq_smooth_options *o, int mat) {
    return o->entries == BQ_ENTRIES_NORMS && bq_fusion_of(arch, mat).norm < 0;
}

static void fold(bq_pass_context *c, const bq_smooth_options *o, const bq_mat act[BQ_MATS],
                 const bq_mat scale[BQ_MATS]) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    for (int m = 0; m < BQ_MATS; m++) { /* all from the weights as they were */
        size_t inner = bq_arena_mark(&dev->mem);
        bq_mat weight = bq_arena_push(&dev->mem, 1, arch->cols[m], BQ_F32);
        bq_channels_weight(c, m, false, weight);
        dev->op->smooth_scale(dev, o->form, act[m], weight, scale[m]);
        bq_arena_reset(&dev->mem, inner);
    }
    for (int m = 0; m < BQ_MATS; m++) {
        if (left_out(arch, o, m)) continue;
        bq_fold_group(dev, arch, m, scale[m]);
        bq_fold_apply(dev, c->blk, m, scale[m]);
    }
}

/* Weights are divided by the factor that was rounded, so that the product is what it was. */
static void keep(bq_pass_context *c, const bq_smooth_options *o, const bq_mat act[BQ_MATS],
                 const bq_mat scale[BQ_MATS]) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    for (int i = 0; i < arch->linears; i++) {
        int m = arch->linear[i].mat;
        bq_mat w = bq_linear_view(arch, i, c->blk->w), pre = c->q->pre[i], most = pre;
        dev->op->set(dev, most, 0);
        dev->op->column_max(dev, w, 0, most);
        dev->op->smooth_scale(dev, o->form, act[m], most, scale[m]);
        dev->op->set(dev, pre, 1);
        if (left_out(arch, o, m)) continue;
        dev->op->over_columns(dev, pre, scale[m], pre);
        dev->op->over_columns(dev, w, pre, w);
    }
    c->blk->pre = c->q->pre;
}

void bq_pass_smoothquant(bq_pass_context *c, const bq_smooth_options *o) {
    bq_dev *dev = c->dev;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat act[BQ_MATS], scale[BQ_MATS];
    bq_channels_push(dev, c->q->arch, act);
    bq_channels_push(dev, c->q->arch, scale);
    bq_channels(c, o->statistic, act, (bq_onlooker){0});
    if (o->fuse)
        fold(c, o, act, scale);
    else
        keep(c, o, act, scale);
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_smooth_need(const bq_arch *arch, int64_t tokens, int64_t samples, int replica, int nreplica) {
    size_t one = bq_fold_need(arch);
    for (int m = 0; m < BQ_MATS; m++) one = larger(one, bq_arena_need(1, arch->cols[m], BQ_F32));
    return 2 * bq_channels_size(arch) +
           larger(one, bq_channels_need(arch, tokens, samples, replica, nreplica));
}
