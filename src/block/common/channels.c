/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/channels.h"

#include "comm/treesum.h"

#include <float.h>

typedef struct {
    bq_pass_context *c;
    bq_channel_statistic what;
    const bq_mat *act;
    bq_onlooker also;
    bool handed;          /* outputs go to c->target */
    bq_mat low[BQ_SITES]; /* max of -x, for BQ_CHANNEL_RANGE */
    bq_treesum sum;       /* (columns of all sites, 1), for means */
} channels;

static bool is_mean(bq_channel_statistic what) {
    return what == BQ_CHANNEL_MEAN || what == BQ_CHANNEL_SQUARES;
}

static int64_t columns(const bq_arch *arch) {
    int64_t sum = 0;
    for (int m = 0; m < arch->sites; m++) sum += arch->site[m].cols;
    return sum;
}

/* The part of site m in a vector over the columns of all sites, as one row. */
static bq_mat part_of(const bq_arch *arch, bq_mat all, int m) {
    int64_t first = 0;
    for (int i = 0; i < m; i++) first += arch->site[i].cols;
    return bq_mat_reshape(bq_mat_rows(all, first, arch->site[m].cols), arch->site[m].cols);
}

void bq_channels_push(bq_dev *dev, const bq_arch *arch, bq_mat *act) {
    for (int m = 0; m < arch->sites; m++) act[m] = bq_arena_push(&dev->mem, 1, arch->site[m].cols, BQ_F32);
}

size_t bq_channels_size(const bq_arch *arch) {
    size_t sum = 0;
    for (int m = 0; m < arch->sites; m++) sum += bq_arena_need(1, arch->site[m].cols, BQ_F32);
    return sum;
}

static void look(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    channels *t = ctx;
    bq_dev *dev = t->c->dev;
    const bq_arch *arch = t->c->q->arch;
    bq_mat leaf = {0};
    if (is_mean(t->what)) leaf = bq_treesum_next(&t->sum);
    for (int m = 0; m < arch->sites; m++) {
        bq_mat in = bq_block_input(arch, t->c->work, m);
        if (t->what == BQ_CHANNEL_MEAN)
            dev->op->column_abs(dev, in, 0, part_of(arch, leaf, m));
        else if (t->what == BQ_CHANNEL_SQUARES)
            dev->op->column_squares(dev, in, part_of(arch, leaf, m));
        else
            dev->op->column_max(dev, in, t->what == BQ_CHANNEL_ABSMAX ? 0 : 1, t->act[m]);
        if (t->what == BQ_CHANNEL_RANGE) dev->op->column_max(dev, in, -1, t->low[m]);
    }
    if (is_mean(t->what)) bq_treesum_add(&t->sum, sample);
    if (t->also.visit) t->also.visit(t->also.ctx, sample, x, y);
    if (t->handed) t->c->target(t->c->ctx, sample, y);
}

static void finish_maxima(channels *t) {
    bq_dev *dev = t->c->dev;
    for (int m = 0; m < t->c->q->arch->sites; m++) {
        bq_comm_stage_max(t->c->comm, dev, t->act[m]);
        if (t->what != BQ_CHANNEL_RANGE) continue;
        bq_comm_stage_max(t->c->comm, dev, t->low[m]);
        dev->op->add(dev, t->low[m], t->act[m]);
    }
}

/* Means from the sums: each replica adds up its rows of the vector over all columns, then all get all
 * rows. */
static void finish_means(channels *t) {
    bq_pass_context *c = t->c;
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    bq_shard leaves[BQ_REPLICAS], own = bq_shard_of(columns(arch), c->comm->replica, c->comm->nreplica);
    for (int r = 0; r < c->comm->nreplica; r++) leaves[r] = bq_shard_of(c->samples, r, c->comm->nreplica);
    bq_mat all = bq_arena_push(&dev->mem, columns(arch), 1, BQ_F32);
    dev->op->scale(dev, bq_treesum_end(&t->sum, c->comm, leaves, own),
                   (float)(1 / ((double)c->samples * (double)c->tokens)),
                   bq_mat_rows(all, own.first, own.count));
    bq_comm_gather_rows(c->comm, dev, all);
    for (int m = 0; m < arch->sites; m++) dev->op->copy(dev, part_of(arch, all, m), t->act[m]);
}

void bq_channels(bq_pass_context *c, bq_channel_statistic what, const bq_mat *act, bq_onlooker also) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    channels t = {.c = c, .what = what, .act = act, .also = also};
    size_t mark = bq_arena_mark(&dev->mem);
    float start = what == BQ_CHANNEL_ABSMAX ? 0 : -FLT_MAX;
    for (int m = 0; m < arch->sites && !is_mean(what); m++) {
        dev->op->set(dev, act[m], start);
        if (what != BQ_CHANNEL_RANGE) continue;
        t.low[m] = bq_arena_push(&dev->mem, 1, arch->site[m].cols, BQ_F32);
        dev->op->set(dev, t.low[m], start);
    }
    if (is_mean(what)) {
        bq_shard mine = bq_shard_of(c->samples, c->comm->replica, c->comm->nreplica);
        int room = bq_treesum_buffers(mine.first, mine.count);
        bq_treesum_open(&t.sum, dev, room > 1 ? room : 1, bq_arena_push(&dev->mem, columns(arch), 1, BQ_F32));
    }
    t.handed = c->target && bq_prepare_stream(c->input) == BQ_STREAM_FP;
    bq_capture(c, bq_prepare_stream(c->input), bq_every, c->blk->w, also.output || t.handed, look, &t);
    if (is_mean(what))
        finish_means(&t);
    else
        finish_maxima(&t);
    bq_arena_reset(&dev->mem, mark);
}

/* Rows of linears that follow each other with the same group size are summed in one call, so that checkpoints
 * with fused and with separate linears give the same bits. */
static void relative_weights(bq_pass_context *c, int site, bq_mat out) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    const bq_site *m = &arch->site[site];
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat sum = bq_arena_push(&dev->mem, 1, out.cols, BQ_F32);
    dev->op->set(dev, out, 0);
    for (int i = m->first, next; i < m->first + m->linears; i = next) {
        int64_t groups = bq_linear_groups(arch, c->q->scheme, i), rows = arch->linear[i].rows;
        for (next = i + 1;
             next < m->first + m->linears && bq_linear_groups(arch, c->q->scheme, next) == groups; next++)
            rows += arch->linear[next].rows;
        dev->op->column_abs(dev, bq_mat_rows(c->blk->w[site], arch->linear[i].row, rows), out.cols / groups,
                            sum);
        dev->op->add(dev, sum, out);
    }
    dev->op->scale(dev, out, (float)(1 / (double)m->rows), out);
    bq_arena_reset(&dev->mem, mark);
}

void bq_channels_weight(bq_pass_context *c, int site, bool relative, bq_mat out) {
    if (relative) {
        relative_weights(c, site, out);
        return;
    }
    c->dev->op->set(c->dev, out, 0);
    c->dev->op->column_max(c->dev, c->blk->w[site], 0, out);
}

size_t bq_channels_need(const bq_arch *arch, int64_t samples, int replica, int nreplica) {
    bq_shard leaves[BQ_REPLICAS];
    for (int r = 0; r < nreplica; r++) leaves[r] = bq_shard_of(samples, r, nreplica);
    int room = bq_treesum_buffers(leaves[replica].first, leaves[replica].count);
    size_t sum = bq_channels_size(arch);
    sum += (size_t)(room > 1 ? room + 1 : 2) * bq_arena_need(columns(arch), 1, BQ_F32);
    return sum + bq_treesum_exchange(replica, nreplica, leaves, columns(arch), 1, BQ_F32);
}
