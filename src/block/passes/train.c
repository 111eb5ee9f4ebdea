/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/train.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "block/passes/midblock.h"
#include "comm/heartbeat.h"
#include "comm/treesum.h"
#include "kernels/mark.h"

#include <math.h>
#include <string.h>

typedef struct {
    const bq_train_kind *kind;
    bq_shard own[BQ_SITES];             /* the rows of each site that this replica trains */
    bq_trained linear[BQ_ARCH_LINEARS]; /* the values of my rows of a linear */
    bq_mat w[BQ_SITES];     /* what the forward multiplies by: w_hat or, in the same memory, its codes */
    bq_mat scale[BQ_SITES]; /* (1, rows): of rows of codes */
    bq_mat grid[2][BQ_ARCH_LINEARS]; /* scales and zero points of the pass before, if there are any */
    bq_treesum sum[BQ_SITES];        /* dL/dw_hat over the batch */
    bq_mat fp, qt;                   /* (T, H) */
    bq_mat adam;                     /* the numbers of this step (adam.h) */
    bq_mat loss;                     /* (1, 1) f64, of the current sample */
    bq_mat ring;                     /* (BQ_TRAIN_AHEAD, batch) f64: losses of the steps since `read` */
    int64_t read;                    /* the steps whose losses the host has */
    int64_t flat;                    /* the step at which a plateau was found; 0: none so far */
    double least;                    /* the least loss of a step; the values of that step are kept */
} training;

/* Those rows of m as rows of one group each.  The first row of m has number `base` in the matrix. */
static bq_mat part(const bq_quantized *q, int i, bq_mat m, int64_t base, bq_shard rows) {
    int64_t group = q->arch->linear[i].cols / bq_linear_groups(q->arch, q->scheme, i);
    return bq_mat_reshape(bq_mat_rows(m, rows.first - base, rows.count), group);
}

/* The scales, or zero points, of those rows of linear i. */
static bq_mat grid_part(const bq_quantized *q, int i, bq_mat m, bq_shard rows) {
    int64_t groups = bq_linear_groups(q->arch, q->scheme, i);
    return m.data ? bq_mat_rows(m, (rows.first - q->arch->linear[i].row) * groups, rows.count * groups) : m;
}

static void start_linear(bq_pass_context *c, training *t, int i, bq_mat element[][BQ_SITES]) {
    bq_dev *dev = c->dev;
    bq_quantized *q = c->q;
    bq_trained *v = &t->linear[i];
    int m = q->arch->linear[i].site;
    bq_shard rows = bq_train_rows(&q->arch->linear[i], t->own[m]);
    *v = (bq_trained){.kind = t->kind, .scheme = q->scheme[i]};
    v->row = bq_arena_push(&dev->mem, rows.count * bq_linear_groups(q->arch, q->scheme, i),
                           bq_train_count(t->kind->row), BQ_F32);
    if (rows.count == 0) return;
    v->w = part(q, i, c->blk->w[m], 0, rows);
    for (int k = 0; t->kind->element[k]; k++)
        v->element[k] = part(q, i, element[k][m], t->own[m].first, rows);
    dev->op->zero(dev, v->row);
    t->kind->begin(dev, v, grid_part(q, i, q->scale[i], rows), grid_part(q, i, q->zero[i], rows), c->grid);
    if (t->kind->reset) t->kind->reset(dev, v);
}

static void start(bq_pass_context *c, const bq_train_options *o, training *t) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    bq_type type = bq_train_type(c, t->kind);
    bq_mat element[BQ_TRAIN_ELEMENTS][BQ_SITES];
    for (int m = 0; m < arch->sites; m++) dev->op->copy(dev, c->blk->w[m], c->q->fold[m]);
    if (!c->grid) bq_quantized_outer(dev, c->q);
    int room = bq_train_buffers(c->samples, o->batch, c->comm->replica, c->comm->nreplica);
    for (int m = 0; m < arch->sites; m++) {
        t->own[m] = bq_shard_of(arch->site[m].rows, c->comm->replica, c->comm->nreplica);
        for (int k = 0; t->kind->element[k]; k++) {
            element[k][m] = bq_arena_push(&dev->mem, t->own[m].count, arch->site[m].cols, BQ_F32);
            dev->op->zero(dev, element[k][m]);
        }
        bq_treesum_open(&t->sum[m], dev, room, c->q->fold[m]);
        t->w[m] = c->q->w_hat[m], t->w[m].type = type;
        t->scale[m] = bq_arena_push(&dev->mem, 1, arch->site[m].rows, BQ_F32);
    }
    c->blk->row_scale = t->scale;
    for (int i = 0; i < 2 * arch->linears && c->grid; i++) {
        bq_mat from = i % 2 ? c->q->zero[i / 2] : c->q->scale[i / 2], *to = &t->grid[i % 2][i / 2];
        if (from.data) *to = bq_arena_push(&dev->mem, from.rows, 1, BQ_F32), dev->op->copy(dev, from, *to);
    }
    for (int i = 0; i < arch->linears; i++) start_linear(c, t, i, element);
    t->fp = bq_arena_push(&dev->mem, c->tokens, arch->model.hidden, BQ_F32);
    t->qt = bq_arena_push(&dev->mem, c->tokens, arch->model.hidden, BQ_F32);
    t->adam = bq_arena_push(&dev->mem, 1, BQ_ADAM_NUMBERS, BQ_F32);
    t->loss = bq_arena_push(&dev->mem, 1, 1, BQ_F64);
    t->ring = bq_arena_push(&dev->mem, BQ_TRAIN_AHEAD, o->batch, BQ_F64);
}

/* Compute what the forward multiplies by from the trained values of my rows; `last`: w_hat, scales and the
 * fold. */
static void my_weights(bq_pass_context *c, training *t, bool last) {
    bq_quantized *q = c->q;
    for (int i = 0; i < q->arch->linears; i++) {
        int m = q->arch->linear[i].site;
        bq_shard rows = bq_train_rows(&q->arch->linear[i], t->own[m]);
        bool codes = !last && t->w[m].type != BQ_F32;
        bq_mat scale = codes ? bq_mat_rows(bq_mat_reshape(t->scale[m], 1), rows.first, rows.count)
                             : grid_part(q, i, q->scale[i], rows);
        if (rows.count)
            t->kind->weights(c->dev, &t->linear[i], part(q, i, last ? q->w_hat[m] : t->w[m], 0, rows), scale,
                             grid_part(q, i, q->zero[i], rows),
                             last ? part(q, i, q->fold[m], 0, rows) : (bq_mat){0});
    }
}

/* The parts of a step that a device may replay.  Two calls of a part differ only in the matrices that hold
 * the gradients. */
enum { WEIGHTS, SAMPLE, UPDATE };
static uint64_t key_of(int part, int sites, const bq_mat *gradient) {
    uint64_t key[1 + BQ_SITES] = {(uint64_t)part};
    for (int m = 0; m < sites; m++) key[1 + m] = (uintptr_t)gradient[m].data;
    return bq_hash_bytes(key, sizeof key);
}

/* Compute w_hat of all linears: each replica its rows, then all get all rows. */
static void weights(bq_pass_context *c, training *t) {
    if (!c->dev->op->replay(c->dev, key_of(WEIGHTS, 0, NULL))) {
        my_weights(c, t, false);
        c->dev->op->recorded(c->dev);
    }
    for (int m = 0; m < c->q->arch->sites; m++) {
        bq_mat w = t->w[m];
        if (w.type != BQ_F32) { /* two codes as a float: they are only copied */
            bq_comm_gather_rows(c->comm, c->dev, bq_mat_reshape(t->scale[m], 1));
            w.type = BQ_F32, w.cols /= 2, w.ld /= 2;
        }
        bq_comm_gather_rows(c->comm, c->dev, w);
    }
}

/* Leave fold, scales, codes and w_hat of all linears in c->q, on all replicas. */
static void result(bq_pass_context *c, training *t) {
    bq_quantized *q = c->q;
    bq_mat *grids[] = {q->scale, q->zero};
    for (int i = 0; i < 2 * q->arch->linears && c->comm->nreplica > 1; i++)
        if (grids[i % 2][i / 2].data)
            c->dev->op->zero(c->dev, grids[i % 2][i / 2]); /* fill_scales needs 0 in the rows of others */
    my_weights(c, t, true);
    for (int i = 0; i < 2 * q->arch->linears; i++)
        if (grids[i % 2][i / 2].data) bq_comm_fill_scales(c->comm, c->dev, grids[i % 2][i / 2]);
    for (int m = 0; m < q->arch->sites; m++) bq_comm_gather_rows(c->comm, c->dev, q->fold[m]);
    bq_quantized_encode(c->dev, q);
}

/* The input of the block for a sample: FP, QT, or a mix with the random numbers of the step. */
static bq_mat block_input(bq_pass_context *c, training *t, int64_t step, int64_t sample) {
    const bq_ops *op = c->dev->op;
    if (c->input != BQ_INPUTS_QT) op->put(c->dev, c->fetch(c->ctx, BQ_STREAM_FP, sample), t->fp);
    if (c->input == BQ_INPUTS_FP) return t->fp;
    op->put(c->dev, c->fetch(c->ctx, BQ_STREAM_QT, sample), t->qt);
    if (c->input == BQ_INPUTS_QT) return t->qt;
    bq_rng_key at = c->at;
    at.iteration = (uint32_t)step, at.sample = (uint32_t)sample;
    op->mix(c->dev, t->fp, t->qt, c->mix, at, c->work->x);
    return c->work->x;
}

/* Forward and backward of a sample: t->loss, and the gradients of the matrices in dw, unless it is NULL. */
static void differentiate(bq_pass_context *c, const bq_train_options *o, training *t, bq_mat x, bq_mat target,
                          const bq_mat *dw) {
    double elements = (double)o->batch * (double)x.cols;
    if (o->loss == BQ_LOSS_MEAN) elements *= (double)x.rows;
    bq_mat y = c->work->y;
    bq_block_forward(c->dev, c->blk, t->w, c->work, x, y);
    c->dev->op->mse_there(c->dev, y, target, 1 / elements, o->loss == BQ_LOSS_RELATIVE, dw ? y : (bq_mat){0},
                          t->loss);
    if (dw) bq_block_backward(c->dev, c->blk, t->w, c->work, x, y, dw, (bq_mat){0});
}

/* The input and the target of a sample. */
static bq_mat fetch(bq_pass_context *c, training *t, int64_t step, int64_t sample, bq_mat *target) {
    bq_mat x = block_input(c, t, step, sample);
    *target = x.data == t->qt.data ? t->fp : t->qt; /* a buffer that x does not use */
    c->dev->op->put(c->dev, c->fetch(c->ctx, BQ_STREAM_TARGET, sample), *target);
    return x;
}

/* The mean loss of all samples with the values as they are, on all replicas; 0 where nobody asks. */
static double mean_loss(bq_pass_context *c, const bq_train_options *o, training *t) {
    if (!o->only_if_better) return 0;
    bq_shard mine = bq_shard_of(c->samples, c->comm->replica, c->comm->nreplica);
    double *loss = c->batch, sum = 0;
    for (int64_t k = 0; k < c->samples; k++) loss[k] = 0;
    weights(c, t);
    for (int64_t k = mine.first; k < mine.first + mine.count; k++) {
        bq_mat target, x = fetch(c, t, 0, k, &target);
        differentiate(c, o, t, x, target, NULL);
        c->dev->op->get(c->dev, t->loss, bq_mat_host(loss + k, 1, 1, BQ_F64));
        c->dev->op->wait(c->dev);
        bq_heartbeat();
    }
    bq_comm_fill(c->comm, loss, c->samples);
    for (int64_t k = 0; k < c->samples; k++) sum += loss[k] / (double)c->samples;
    return sum;
}

/* Leave the loss of one sample of the batch in the ring, and add its gradients to the sums. */
static void sample_step(bq_pass_context *c, const bq_train_options *o, training *t, int64_t step,
                        int64_t leaf) {
    bq_dev *dev = c->dev;
    int64_t stride = c->samples / o->batch, sample = step % stride + leaf * stride;
    int sites = c->q->arch->sites;
    bq_mat target, x = fetch(c, t, step, sample, &target), dw[BQ_SITES];
    for (int m = 0; m < sites; m++) dw[m] = bq_treesum_next(&t->sum[m]);
    if (!dev->op->replay(dev, key_of(SAMPLE, sites, dw))) {
        differentiate(c, o, t, x, target, dw);
        dev->op->recorded(dev);
    }
    for (int m = 0; m < sites; m++) bq_treesum_add(&t->sum[m], leaf);
    dev->op->copy(dev, t->loss, bq_mat_cols(bq_mat_rows(t->ring, step - t->read, 1), leaf, 1));
}

/* Sum the gradients of my rows over the replicas, and take a step with these rows. */
static void update(bq_pass_context *c, const bq_train_options *o, training *t, int64_t step) {
    bq_dev *dev = c->dev;
    bq_quantized *q = c->q;
    double rate = bq_train_rate(o, t->flat, step);
    bq_adam adam = {.lr_clip = (float)(o->lr_clip * rate),
                    .lr_weight = (float)(o->lr_weight * rate),
                    .beta1 = t->kind->optimizer == BQ_MOMENTUM ? o->momentum : 0.9,
                    .beta2 = 0.999,
                    .eps = 1e-8f,
                    .step = step + 1,
                    .decay = (float)o->decay};
    bq_shard leaves[BQ_REPLICAS];
    bq_mat sum[BQ_SITES];
    size_t mark = bq_arena_mark(&dev->mem);
    bq_adam_put(dev, adam, t->adam);
    bq_train_all_leaves(c->samples, o->batch, step, c->comm->nreplica, leaves);
    for (int m = 0; m < q->arch->sites; m++) sum[m] = bq_treesum_end(&t->sum[m], c->comm, leaves, t->own[m]);
    bool again = dev->op->replay(dev, key_of(UPDATE, q->arch->sites, sum));
    for (int i = 0; i < q->arch->linears && !again; i++) {
        int m = q->arch->linear[i].site;
        bq_shard rows = bq_train_rows(&q->arch->linear[i], t->own[m]);
        if (rows.count)
            t->kind->step(dev, &t->linear[i], grid_part(q, i, q->scale[i], rows),
                          grid_part(q, i, q->zero[i], rows), part(q, i, sum[m], t->own[m].first, rows),
                          t->adam);
    }
    if (!again) dev->op->recorded(dev);
    bq_arena_reset(&dev->mem, mark);
}

/* After `step` steps: look for a plateau, unless one was found before. */
static void look(const bq_train_options *o, training *t, bq_train_state *s, int64_t step) {
    if (!t->flat && bq_train_plateau(o, s->losses, step, &s->previous)) t->flat = step;
}

/* Take the losses of the only step that was not read yet into c->batch.  All replicas get those of all
 * samples. */
static void take_batch(bq_pass_context *c, const bq_train_options *o, training *t) {
    bq_shard mine = bq_train_leaves(c->samples, o->batch, t->read, c->comm->replica, c->comm->nreplica);
    bq_mat row = bq_mat_cols(bq_mat_rows(t->ring, 0, 1), mine.first, mine.count);
    for (int64_t k = 0; k < o->batch; k++) c->batch[k] = 0;
    if (mine.count) c->dev->op->get(c->dev, row, bq_mat_host(c->batch + mine.first, 1, mine.count, BQ_F64));
    c->dev->op->wait(c->dev);
    for (int64_t k = mine.first; k < mine.first + mine.count; k++)
        if (bq_fault("loss_nan")) c->batch[k] = NAN;
}

/* Whether to stop and whether to save, behind the losses of the batch: one exchange tells all. */
static void exchange(bq_pass_context *c, const bq_train_options *o) {
    c->batch[o->batch] = c->stop && *c->stop;
    c->batch[o->batch + 1] = c->keeper && c->comm->replica == 0 && c->keeper->due(c->keeper->ctx);
    bq_comm_fill(c->comm, c->batch, o->batch + 2);
}

/* Save the state if the exchange of this step said so.  True: stop here.  After the last step nothing needs
 * to be saved. */
static bool keep(bq_pass_context *c, const bq_train_options *o, const training *t, bq_train_state *s) {
    bool stop = c->batch[o->batch] > 0, save = c->batch[o->batch + 1] > 0;
    if (s->step == bq_train_end(o, t->flat)) return false;
    if (c->keeper && (stop || save)) c->keeper->save(c->keeper->ctx, s, stop);
    return stop;
}

/* Keep the values of this step, or take those that were kept. */
static void best(bq_pass_context *c, training *t, bool take) {
    int elements = t->kind->best_elements, rows = t->kind->best_rows;
    for (int i = 0; i < c->q->arch->linears; i++) {
        const bq_trained *v = &t->linear[i];
        bq_mat now = bq_mat_cols(v->row, 0, rows), kept = bq_mat_cols(v->row, rows, rows);
        for (int k = 0; k < elements && v->w.rows; k++)
            c->dev->op->copy(c->dev, v->element[take ? elements + k : k],
                             v->element[take ? k : elements + k]);
        if (rows && v->w.rows) c->dev->op->copy(c->dev, take ? kept : now, take ? now : kept);
    }
}

/* Take the losses of all steps up to `end`; of several, each has one sample.  False: one is not finite, and
 * those behind it are not taken. */
static bool read_losses(bq_pass_context *c, const bq_train_options *o, training *t, bq_train_state *s,
                        int64_t end) {
    int64_t steps = end - t->read;
    double *loss = s->losses + t->read;
    if (steps == 1) {
        take_batch(c, o, t);
        exchange(c, o);
        loss[0] = 0;
        for (int64_t k = 0; k < o->batch; k++) loss[0] += c->batch[k];
    } else {
        c->dev->op->get(c->dev, bq_mat_rows(t->ring, 0, steps), bq_mat_host(loss, steps, 1, BQ_F64));
        c->dev->op->wait(c->dev);
        exchange(c, o);
    }
    for (int64_t k = 0; k < steps; k++, t->read++) {
        if (steps > 1 && bq_fault("loss_nan")) loss[k] = NAN;
        if (isfinite(loss[k])) continue;
        if (steps > 1) c->batch[0] = loss[k];
        bq_train_say_where(c, o, t->read);
        return false;
    }
    return true;
}

/* May the losses of the steps so far be read later?  Not where something must be decided by them. */
static bool later(const bq_pass_context *c, const bq_train_options *o, const training *t,
                  const bq_train_state *s) {
    bool checked = o->early_stop && !t->flat && s->step % o->check_interval == 0;
    return c->dev->mem.place == BQ_DEVICE && c->comm->nreplica == 1 && o->batch == 1 &&
           s->step - t->read < BQ_TRAIN_AHEAD && !checked && s->step < bq_train_end(o, t->flat) &&
           !(c->stop && *c->stop) && !(c->keeper && c->keeper->due(c->keeper->ctx));
}

/* False: a loss was not finite.  The losses are read before the update where all replicas must know them, or
 * where the values that gave the least are kept. */
static bool one_step(bq_pass_context *c, const bq_train_options *o, training *t, bq_train_state *s) {
    bq_shard mine = bq_train_leaves(c->samples, o->batch, s->step, c->comm->replica, c->comm->nreplica);
    bool keeps = t->kind->best_elements || t->kind->best_rows, before = c->comm->nreplica > 1 || keeps,
         finite = true;
    bq_mark_open("step %ld", (long)s->step);
    weights(c, t);
    for (int64_t k = mine.first; k < mine.first + mine.count; k++) sample_step(c, o, t, s->step, k);
    if (before) finite = read_losses(c, o, t, s, s->step + 1);
    if (finite && keeps && s->losses[s->step] < t->least) {
        t->least = s->losses[s->step];
        best(c, t, false);
    }
    if (finite) update(c, o, t, s->step++);
    if (!before && !later(c, o, t, s)) finite = read_losses(c, o, t, s, s->step);
    bq_mark_close();
    return finite;
}

/* Go on from a state of an earlier process, if there is one. */
static void restore(bq_pass_context *c, const bq_train_options *o, training *t, bq_train_state *s) {
    if (!c->keeper || !c->keeper->restore(c->keeper->ctx, s)) return;
    s->previous = NAN;
    for (int64_t k = 1; k <= s->step; k++) {
        look(o, t, s, k);
        t->least = fmin(t->least, s->losses[k - 1]);
    }
}

int64_t bq_train(bq_pass_context *c, const bq_train_kind *kind, const bq_train_options *o) {
    double *losses = c->losses;
    size_t mark = bq_arena_mark(&c->dev->mem);
    training t = {.kind = kind, .least = INFINITY};
    bq_train_state s = {c->dev, c->comm, c->q, kind, t.linear, 0, NAN, losses};
    bool finite = true, stopped = false, better = true;
    start(c, o, &t);
    double before = mean_loss(c, o, &t);
    restore(c, o, &t, &s);
    t.read = s.step;
    while (s.step < bq_train_end(o, t.flat) && !stopped) {
        finite = one_step(c, o, &t, &s);
        if (!finite) break;
        if (c->step) c->step(c->ctx, s.step, o->iterations, t.read ? losses[t.read - 1] : NAN);
        if (t.read < s.step) continue;
        look(o, &t, &s, s.step);
        stopped = keep(c, o, &t, &s);
    }
    if (finite && !stopped) {
        best(c, &t, true);
        double after = mean_loss(c, o, &t);
        better = !o->only_if_better || after < before;
        if (!better && c->comm->replica == 0)
            bq_log_all(BQ_INFO, "block %u: left as it was: the mean loss was %g, and training made it %g",
                       c->at.block + 1, before, after);
    }
    for (int i = 0; c->trained && i < c->q->arch->linears; i++) c->trained(c->ctx, i, &t.linear[i]);
    if (!finite || !better)
        bq_train_undo(c, t.grid);
    else if (!stopped)
        result(c, &t);
    c->dev->op->forget(c->dev);
    c->blk->row_scale = NULL;
    bq_arena_reset(&c->dev->mem, mark);
    return stopped ? BQ_PASS_STOPPED : finite ? s.step : BQ_PASS_NOT_FINITE;
}
