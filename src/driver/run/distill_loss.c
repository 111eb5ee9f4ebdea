/* SPDX-License-Identifier: Apache-2.0 */
/* The loss of distillation, and its gradient by what the last block puts out. */
#include "driver/run/distill_parts.h"

#include "base/die.h"

#include <stdlib.h>

#define PLACE 255 /* sweep and phase of the random numbers: no pass has these */

/* The tokens that count, ascending: those at the first places of a random order. */
static void choose(bq_distilling *d, int64_t sample) {
    const uint32_t step =
        sample < d->samples ? (uint32_t)d->step : UINT32_MAX; /* held out: always the same */
    int32_t *token = malloc((size_t)(2 * d->tokens) * sizeof *token), *chosen = token + d->tokens;
    int64_t n = 0;
    BQ_CHECK(token, "no memory for %ld tokens", (long)d->tokens);
    for (int64_t t = 0; t < d->tokens; t++) token[t] = (int32_t)t;
    for (int64_t t = 0; t < d->positions && d->positions < d->tokens; t++) {
        uint32_t word[4];
        bq_philox((bq_rng_key){d->s->recipe.seed, PLACE, PLACE, 0, step, (uint32_t)sample}, (uint32_t)(t / 4),
                  word);
        const int64_t other = t + (int64_t)((uint64_t)word[t % 4] * (uint64_t)(d->tokens - t) >> 32);
        const int32_t one = token[t];
        token[t] = token[other], token[other] = one;
    }
    for (int64_t t = 0; t < d->tokens; t++) chosen[t] = 0;
    for (int64_t t = 0; t < d->positions; t++) chosen[token[t]] = 1;
    for (int32_t t = 0; t < d->tokens; t++)
        if (chosen[t]) token[n++] = t;
    d->s->dev.op->put(&d->s->dev, bq_mat_host(token, d->positions, 1, BQ_I32), d->chosen);
    d->s->dev.op->wait(&d->s->dev);
    free(token);
}

/* The KL of the k-th sample of d->list; and the gradient of the blocks' outputs for it, as of one in a
 * batch. */
static double differentiate(bq_distilling *d, int64_t k, int64_t leaf, double *kl) {
    bq_dev *dev = &d->s->dev;
    const bq_ops *op = dev->op;
    const bq_model *m = &d->s->src.arch.model;
    const int64_t sample = d->list[k], mine = sample < d->samples
                                                  ? sample - d->share.first
                                                  : sample - d->samples - d->held.first + d->share.count;
    const bq_mat none = {0}, ones = bq_mat_rows(d->ones, 0, d->positions);
    const double count = (double)d->positions * (double)d->batch;
    double sum = 0;
    choose(d, sample);
    op->put(dev, bq_stream_get(&d->original, mine, d->buffer), d->work.x);
    op->gather_rows(dev, d->work.x, d->chosen, none, d->right);
    op->wait(dev); /* the buffer is used again */
    op->put(dev, bq_stream_get(&d->inputs, d->blocks.count * d->kept + k, d->buffer), d->work.x);
    op->gather_rows(dev, d->work.x, d->chosen, none, d->some);
    op->rmsnorm(dev, d->some, d->norm, (float)m->eps, d->normed);
    op->distill(dev, d->normed, d->right, d->head, (float)m->logit_cap, 1 / count, d->normed, kl);
    if (d->units > d->blocks.count && sample < d->samples) {
        op->rmsnorm(dev, d->some, d->norm, (float)m->eps, d->right);
        bq_distill_backward_norm(d, d->normed, d->right, leaf);
    }
    op->zero(dev, d->right);
    op->rmsnorm_bwd(dev, d->some, d->norm, (float)m->eps, d->normed, d->right);
    op->zero(dev, d->dy);
    op->scatter_add_rows(dev, d->right, d->chosen, ones, d->dy);
    op->wait(dev);
    bq_distill_keep(d, d->dy, k);
    for (int64_t t = 0; t < d->positions; t++) sum += kl[t];
    return sum / (double)d->positions;
}

double bq_distill_loss(bq_distilling *d, int64_t first, int64_t count, int64_t all) {
    const bq_comm *comm = d->s->comm;
    double *of = calloc((size_t)(all + d->tokens + comm->size), sizeof *of), *kl = of + all,
           *said = kl + d->tokens, sum = 0;
    BQ_CHECK(of, "no memory for the losses of %ld samples", (long)all);
    for (int64_t k = 0; k < count && bq_distill_last(d); k++)
        of[first + k] = differentiate(d, k, first + k, kl);
    if (bq_distill_last(d)) bq_comm_fill(comm, of, all);
    for (int64_t k = 0; k < all; k++) sum += of[k];
    said[comm->rank] = sum / (double)all;
    bq_comm_gather(comm, said, comm->size);
    sum = said[comm->size - 1];
    bq_comm_bcast(comm, &sum, sizeof sum);
    free(of);
    return sum;
}
