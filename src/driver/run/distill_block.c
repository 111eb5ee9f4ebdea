/* A block in distillation: its weights by the scales of now, forward, backward, and a step. */
#include "driver/run/distill_parts.h"

#include "base/die.h"
#include "driver/load/device.h"
#include "driver/run/restore.h"
#include "io/state/checkpoint.h"

#include <math.h>
#include <stdlib.h>

/* The block's number in the model. */
static int number(const bq_distilling *d, int64_t b) { return (int)(d->blocks.first + b); }

static int64_t scales_of(const bq_quantized *q, int i) {
    return q->arch->linear[i].rows * bq_linear_groups(q->arch, q->scheme, i);
}

/* As the phases left it. */
static void read_block(bq_distilling *d, int64_t b) {
    bq_run *s = d->s;
    char path[BQ_PATH_MAX + 64];
    bq_source_unit(&s->src, &s->dev, number(d, b), bq_source_core(&s->src, number(d, b)), &d->blk);
    bq_quantized_turn(&d->q, bq_run_layout(s, number(d, b), 0));
    bq_run_checkpoint(s, number(d, b), 0, path, sizeof path);
    bq_restore(s, &s->dev, path, &d->blk, &d->q, false);
}

void bq_distill_begin(bq_distilling *d, int64_t b) {
    bq_scales *to = &d->scales[b];
    bq_dev *dev = &d->s->dev;
    read_block(d, b);
    to->count = 0;
    for (int i = 0; i < d->q.arch->linears; i++) to->count += scales_of(&d->q, i);
    to->start = calloc((size_t)to->count * 4, sizeof *to->start);
    BQ_CHECK(to->start, "no memory for %ld scales and their moments", (long)to->count);
    to->u = to->start + to->count, to->m = to->u + to->count, to->v = to->m + to->count;
    for (int64_t i = 0, at = 0; i < d->q.arch->linears; i++) {
        const int64_t n = scales_of(&d->q, (int)i);
        dev->op->get(dev, d->q.scale[i], bq_mat_host(to->start + at, n, 1, BQ_F32));
        at += n;
    }
    dev->op->wait(dev);
}

void bq_distill_load(bq_distilling *d, int64_t b) {
    const bq_scales *from = &d->scales[b];
    bq_dev *dev = &d->s->dev;
    read_block(d, b);
    float *scale = malloc((size_t)from->count * sizeof *scale);
    BQ_CHECK(scale, "no memory for %ld scales", (long)from->count);
    for (int64_t i = 0, at = 0; i < d->q.arch->linears; i++) {
        const int64_t n = scales_of(&d->q, (int)i);
        for (int64_t k = at; k < at + n; k++)
            scale[k] = bq_scale_stored(from->start[k] * bq_exp(from->u[k]), d->q.scheme[i]);
        dev->op->put(dev, bq_mat_host(scale + at, n, 1, BQ_F32), d->q.scale[i]);
        at += n;
    }
    dev->op->wait(dev);
    free(scale);
    bq_quantized_decode(dev, &d->q);
}

void bq_distill_forward(bq_distilling *d, int64_t b, int64_t first, int64_t n) {
    for (int64_t k = first; k < first + n; k++) {
        bq_mat x = bq_stream_get(&d->inputs, b * d->kept + k, d->buffer);
        bq_mat y = d->inputs.data ? bq_stream_get(&d->inputs, (b + 1) * d->kept + k, x) : d->buffer;
        bq_block_sample(&d->s->dev, &d->blk, d->q.w_hat, &d->work, x, y);
        bq_stream_put(&d->inputs, (b + 1) * d->kept + k, y);
        bq_run_stopped(d->s); /* for its heartbeat */
    }
}

void bq_distill_keep(bq_distilling *d, bq_mat slope, int64_t k) {
    bq_dev *dev = &d->s->dev;
    bq_mat to = d->slopes.data ? bq_stream_get(&d->slopes, k, d->buffer) : d->buffer;
    (to.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, slope, to);
    dev->op->wait(dev);
    bq_stream_put(&d->slopes, k, to);
}

/* du = sum of dw w_hat over the weights of a scale, since w_hat is proportional to exp(u). */
static void gradients(bq_distilling *d, bq_mat to) {
    bq_dev *dev = &d->s->dev;
    const bq_quantized *q = &d->q;
    for (int64_t i = 0, at = 0; i < q->arch->linears; i++) {
        const int64_t n = scales_of(q, (int)i);
        dev->op->dot_rows(dev, bq_linear_grouped(q->arch, q->scheme, (int)i, q->fold),
                          bq_mat_rows(d->index, 0, n),
                          bq_linear_grouped(q->arch, q->scheme, (int)i, q->w_hat), bq_mat_rows(to, at, n));
        at += n;
    }
}

void bq_distill_backward(bq_distilling *d, int64_t b, int64_t first, int64_t n) {
    bq_dev *dev = &d->s->dev;
    const bq_ops *op = dev->op;
    const int64_t leaf = bq_distill_leaves(d, d->s->comm->replica).first;
    for (int64_t k = first; k < first + n; k++) {
        op->put(dev, bq_stream_get(&d->inputs, b * d->kept + k, d->buffer), d->work.x);
        op->wait(dev); /* the buffer is used again */
        op->put(dev, bq_stream_get(&d->slopes, k, d->buffer), d->dy);
        bq_block_forward(dev, &d->blk, d->q.w_hat, &d->work, d->work.x, d->work.y);
        bq_block_backward(dev, &d->blk, d->q.w_hat, &d->work, d->work.x, d->dy, d->q.fold, d->dx);
        gradients(d, bq_treesum_next(&d->scales[b].sum));
        bq_treesum_add(&d->scales[b].sum, leaf + k);
        bq_distill_keep(d, d->dx, k);
        bq_run_stopped(d->s); /* for its heartbeat */
    }
}

/* Adam, in double. */
static void adam(bq_scales *v, const float *g, int64_t step, double rate) {
    const double b1 = 0.9, b2 = 0.999, c1 = 1 - pow(b1, (double)step), c2 = 1 - pow(b2, (double)step);
    for (int64_t k = 0; k < v->count; k++) {
        const double x = (double)g[k];
        v->m[k] = (float)(b1 * (double)v->m[k] + (1 - b1) * x);
        v->v[k] = (float)(b2 * (double)v->v[k] + (1 - b2) * x * x);
        v->u[k] =
            (float)((double)v->u[k] - rate * ((double)v->m[k] / c1) / (sqrt((double)v->v[k] / c2) + 1e-8));
    }
}

void bq_distill_update(bq_distilling *d, int64_t b, double rate) {
    bq_dev *dev = &d->s->dev;
    const bq_comm *comm = d->s->comm;
    bq_scales *v = &d->scales[b];
    bq_shard leaves[BQ_REPLICAS], own = bq_shard_of(v->count, comm->replica, comm->nreplica);
    size_t mark = bq_arena_mark(&dev->mem);
    for (int r = 0; r < comm->nreplica; r++) leaves[r] = bq_distill_leaves(d, r);
    bq_mat sum = bq_treesum_end(&v->sum, comm, leaves, own), all = bq_mat_rows(d->gradient, 0, v->count);
    dev->op->copy(dev, sum, bq_mat_rows(all, own.first, own.count));
    bq_comm_gather_rows(comm, dev, all);
    bq_device_fetch(dev, &all);
    adam(v, all.data, d->step + 1, rate);
    bq_device_drop(dev, &all);
    bq_arena_reset(&dev->mem, mark);
}

void bq_distill_write(bq_distilling *d, int64_t b) {
    bq_run *s = d->s;
    bq_ckpt c = {.phase = s->recipe.nphase, .block = number(d, b), .fingerprint = s->fingerprint};
    char path[BQ_PATH_MAX + 64];
    bq_distill_load(d, b);
    bq_restore_describe(&d->blk, &d->q, &c);
    bq_mat *part[2 + 7 * BQ_MAX_LINEAR];
    int n = 0;
    for (int i = 0; i < BQ_NORMS_FOLDED; i++) part[n++] = &c.norm[i];
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
