/* SPDX-License-Identifier: Apache-2.0 */
/* Hidden states between the stages of distillation, and the original's way through them. */
#include "driver/run/distill_parts.h"

#include <string.h>

/* The rank of my replica in a stage `by` farther on. */
static int rank_at(const bq_distilling *d, int by) { return d->s->comm->rank + by * d->s->comm->nreplica; }

void bq_distill_settle(bq_distilling *d) {
    if (d->sends) bq_comm_wait(&d->sending, 1);
    d->sends = false;
}

void bq_distill_send(bq_distilling *d, int by, const bq_stream *from, int64_t first, int64_t n) {
    const int64_t size = d->tokens * d->hidden;
    bq_distill_settle(d);
    for (int64_t k = 0; k < n; k++) {
        bq_mat x = bq_stream_host(from, first + k, d->buffer);
        memcpy(d->given + k * size, x.data, (size_t)size * sizeof(float));
    }
    bq_comm_send(d->s->comm, rank_at(d, by), d->given, n * size, &d->sending);
    d->sends = true;
}

void bq_distill_receive(bq_distilling *d, int by, bq_stream *to, int64_t first, int64_t n) {
    const int64_t size = d->tokens * d->hidden;
    MPI_Request request;
    bq_comm_receive(d->s->comm, rank_at(d, by), d->taken, n * size, &request);
    bq_comm_wait(&request, 1);
    for (int64_t k = 0; k < n; k++)
        bq_stream_put(to, first + k, bq_mat_host(d->taken + k * size, d->tokens, d->hidden, BQ_F32));
}

/* Samples [at, at + n) of d->original through the original's blocks of my stage, in place. */
static void blocks(bq_distilling *d, int64_t at, int64_t n) {
    bq_run *s = d->s;
    for (int b = (int)d->blocks.first; b < d->blocks.first + d->blocks.count; b++) {
        bq_source_unit(&s->src, &s->dev, b, bq_source_core(&s->src, b), &d->blk);
        for (int64_t k = at; k < at + n; k++) {
            bq_mat x = bq_stream_get(&d->original, k, d->buffer);
            bq_block_sample(&s->dev, &d->blk, d->blk.w, &d->work, x, x);
            bq_stream_put(&d->original, k, x);
            bq_run_stopped(); /* for its heartbeat */
        }
    }
}

/* What the head reads, of the k-th sample of d->original. */
static void norm(bq_distilling *d, int64_t k) {
    bq_dev *dev = &d->s->dev;
    bq_mat to = d->original.data ? bq_stream_get(&d->original, k, d->buffer) : d->buffer;
    dev->op->put(dev, bq_stream_get(&d->original, k, d->buffer), d->dx);
    dev->op->wait(dev); /* the buffer is used again */
    dev->op->rmsnorm(dev, d->dx, d->norm, (float)d->s->src.arch.model.eps, d->dy);
    (to.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, d->dy, to);
    dev->op->wait(dev);
    bq_stream_put(&d->original, k, to);
}

/* My k-th sample: first those that are trained on, then those that are held out. */
static int64_t sample_of(const bq_distilling *d, int64_t k) {
    return k < d->share.count ? d->share.first + k : d->samples + d->held.first + k - d->share.count;
}

void bq_distill_original(bq_distilling *d) {
    bq_run *s = d->s;
    const int64_t all = d->share.count + d->held.count;
    for (int64_t at = 0; at < all; at += d->piece) {
        const int64_t n = all - at < d->piece ? all - at : d->piece, room = bq_distill_last(d) ? at : 0;
        for (int64_t k = 0; k < n; k++)
            if (bq_distill_first(d))
                bq_run_embed(s, sample_of(d, at + k), false, d->buffer, &d->original, room + k);
            else
                bq_distill_receive(d, -1, &d->original, room + k, 1);
        blocks(d, room, n);
        for (int64_t k = 0; k < n; k++)
            if (bq_distill_last(d))
                norm(d, room + k);
            else
                bq_distill_send(d, 1, &d->original, room + k, 1);
    }
    bq_distill_settle(d);
}
