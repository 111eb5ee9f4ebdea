/* SPDX-License-Identifier: Apache-2.0 */
/* A block in distillation: its weights by the scales of now, forward, backward, and a step. */
#include "driver/run/distill_parts.h"

#include "base/die.h"
#include "driver/load/device.h"
#include "driver/plan/distill.h"
#include "driver/run/restore.h"
#include "io/state/checkpoint.h"

#include <string.h>

/* The block's number in the model. */
static int number(const bq_distilling *d, int64_t b) { return (int)(d->blocks.first + b); }

/* As the phases left it. */
static void read_block(bq_distilling *d, int64_t b) {
    bq_run *s = d->s;
    char path[BQ_PATH_MAX + 64];
    bq_source_vectors(&s->src, &s->dev, number(d, b), bq_source_core(&s->src, number(d, b)), &d->blk);
    bq_quantized_turn(&d->q, bq_run_layout(s, number(d, b), 0));
    bq_run_checkpoint(s, number(d, b), 0, path, sizeof path);
    bq_restore(s, &s->dev, path, &d->blk, &d->q, false);
    d->blk.folded |= s->recipe.distill.norms;
}

void bq_distill_begin(bq_distilling *d, int64_t b) {
    read_block(d, b);
    bq_distill_take(d, &d->numbers[b]);
}

void bq_distill_load(bq_distilling *d, int64_t b) {
    read_block(d, b);
    bq_distill_put(d, &d->numbers[b]);
    bq_quantized_decode(&d->s->dev, &d->q);
}

void bq_distill_forward(bq_distilling *d, int64_t b, int64_t first, int64_t n) {
    for (int64_t k = first; k < first + n; k++) {
        bq_mat x = bq_stream_get(&d->inputs, b * d->kept + k, d->buffer);
        bq_mat y = d->inputs.data ? bq_stream_get(&d->inputs, (b + 1) * d->kept + k, x) : d->buffer;
        bq_block_sample(&d->s->dev, &d->blk, d->q.w_hat, &d->work, x, y);
        bq_stream_put(&d->inputs, (b + 1) * d->kept + k, y);
        bq_run_stopped(); /* for its heartbeat */
    }
}

void bq_distill_keep(bq_distilling *d, bq_mat slope, int64_t k) {
    bq_dev *dev = &d->s->dev;
    bq_mat to = d->slopes.data ? bq_stream_get(&d->slopes, k, d->buffer) : d->buffer;
    (to.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, slope, to);
    dev->op->wait(dev);
    bq_stream_put(&d->slopes, k, to);
}

/* The backward writes the gradients of gains and biases to their places in `to`, and those of scales that
 * rows have: the scales of a site's linears follow each other, as its rows do. */
static void place(bq_distilling *d, const bq_part_of_block *part, int n, bq_mat to) {
    const bq_arch *arch = d->q.arch;
    memset(d->work.dgain, 0, sizeof d->work.dgain);
    memset(d->work.dbias, 0, sizeof d->work.dbias);
    memset(d->work.drow, 0, sizeof d->work.drow);
    for (int i = 0; i < n; i++) {
        bq_mat at = bq_mat_reshape(bq_mat_rows(to, part[i].first, part[i].count), part[i].count);
        const int site = part[i].kind == BQ_TRAINED_SCALE ? arch->linear[part[i].at].site : 0;
        if (part[i].kind == BQ_TRAINED_SCALE && part[i].at == arch->site[site].first &&
            bq_distill_by_rows(arch, d->q.scheme, site)) {
            const int64_t rows = arch->site[site].rows;
            d->work.drow[site] = bq_mat_reshape(bq_mat_rows(to, part[i].first, rows), rows);
        }
        if (part[i].kind == BQ_TRAINED_GAIN) d->work.dgain[part[i].at] = at;
        if (part[i].kind == BQ_TRAINED_BIAS) d->work.dbias[part[i].at] = at;
    }
}

/* Of scales the sums of dw w_hat over their weights, of zero points those of dw. */
static void sum_weights(bq_distilling *d, const bq_part_of_block *part, int n, bq_mat to) {
    bq_dev *dev = &d->s->dev;
    const bq_quantized *q = &d->q;
    for (int i = 0; i < n; i++) {
        const bq_part_of_block *p = &part[i];
        const bq_mat rows = bq_mat_rows(to, p->first, p->count);
        if (p->kind == BQ_TRAINED_GAIN || p->kind == BQ_TRAINED_BIAS) continue;
        if (d->work.drow[q->arch->linear[p->at].site].data) continue;
        const bq_mat dw = bq_linear_grouped(q->arch, q->scheme, p->at, q->fold);
        if (p->kind == BQ_TRAINED_SCALE)
            dev->op->dot_rows(dev, dw, bq_mat_rows(d->index, 0, p->count),
                              bq_linear_grouped(q->arch, q->scheme, p->at, q->w_hat), rows);
        else
            dev->op->dot_rows(dev, bq_mat_reshape(bq_mat_rows(d->ones, 0, dw.cols), dw.cols),
                              bq_mat_rows(d->zeros, 0, p->count), dw, rows);
    }
}

void bq_distill_backward(bq_distilling *d, int64_t b, int64_t first, int64_t n) {
    bq_dev *dev = &d->s->dev;
    const bq_ops *op = dev->op;
    const int64_t leaf = bq_distill_leaves(d, d->s->comm->replica).first;
    bq_part_of_block part[BQ_TRAINED_PARTS];
    const int parts = bq_distill_parts(d, part);
    for (int64_t k = first; k < first + n; k++) {
        op->put(dev, bq_stream_get(&d->inputs, b * d->kept + k, d->buffer), d->work.x);
        op->wait(dev); /* the buffer is used again */
        op->put(dev, bq_stream_get(&d->slopes, k, d->buffer), d->dy);
        bq_block_forward(dev, &d->blk, d->q.w_hat, &d->work, d->work.x, d->work.y);
        const bq_mat sums = bq_treesum_next(&d->numbers[b].sum);
        place(d, part, parts, sums);
        bq_block_backward(dev, &d->blk, d->q.w_hat, &d->work, d->work.x, d->dy, d->q.fold, d->dx);
        sum_weights(d, part, parts, sums);
        bq_treesum_add(&d->numbers[b].sum, leaf + k);
        bq_distill_keep(d, d->dx, k);
        bq_run_stopped(); /* for its heartbeat */
    }
}

void bq_distill_update(bq_distilling *d, int64_t b, double rate) {
    bq_dev *dev = &d->s->dev;
    const bq_comm *comm = d->s->comm;
    bq_numbers *v = &d->numbers[b];
    bq_shard leaves[BQ_REPLICAS], own = bq_shard_of(v->count, comm->replica, comm->nreplica);
    size_t mark = bq_arena_mark(&dev->mem);
    for (int r = 0; r < comm->nreplica; r++) leaves[r] = bq_distill_leaves(d, r);
    bq_mat sum = bq_treesum_end(&v->sum, comm, leaves, own), all = bq_mat_rows(d->gradient, 0, v->count);
    dev->op->copy(dev, sum, bq_mat_rows(all, own.first, own.count));
    bq_comm_gather_rows(comm, dev, all);
    bq_device_fetch(dev, &all);
    if (b < d->blocks.count) {
        bq_quantized_turn(&d->q, bq_run_layout(d->s, number(d, b), 0));
        bq_block_turn(&d->blk, bq_source_core(&d->s->src, number(d, b)), number(d, b));
    }
    bq_distill_adam(d, v, all.data, rate);
    bq_device_drop(dev, &all);
    bq_arena_reset(&dev->mem, mark);
}

void bq_distill_write(bq_distilling *d, int64_t b) {
    bq_run *s = d->s;
    bq_ckpt c = {.phase = s->recipe.nphase, .block = number(d, b), .fingerprint = s->distill_tag};
    char path[BQ_PATH_MAX + 64];
    bq_distill_load(d, b);
    bq_restore_describe(&d->blk, &d->q, &c);
    bq_mat *part[BQ_CKPT_NORMS + 7 * BQ_MAX_LINEAR];
    int n = 0;
    if (d->units > d->blocks.count && b + 1 == d->blocks.count) bq_distill_load_norm(d), c.norm[2] = d->norm;
    for (int i = 0; i < BQ_CKPT_NORMS; i++) part[n++] = &c.norm[i];
    for (int i = 0; i < c.linears; i++) {
        bq_ckpt_linear *l = &c.linear[i];
        bq_mat *const all[] = {&l->code, &l->scale, &l->zero, &l->bias};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) part[n++] = all[k];
    }
    for (int i = 0; i < n; i++)
        if (part[i]->rows) bq_device_fetch(&s->dev, part[i]);
    bq_ckpt_path(path, sizeof path, s->dir, 0, c.phase, c.block);
    bq_ckpt_write(path, &c);
    for (int i = 0; i < n; i++)
        if (part[i]->rows) bq_device_drop(&s->dev, part[i]);
}
