/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/walk.h"

#include "base/die.h"
#include "comm/treesum.h"
#include "driver/load/device.h"
#include "driver/recipe/traits.h"
#include "driver/run/account.h"
#include "driver/run/restore.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void judge(bq_walk *w, const bq_stream *stream, int64_t i, bq_mat at, double apart) {
    bq_run_judge(w->s, at, apart, w->block, w->share.first + i, stream == &w->qt ? "quantized" : "original");
}

static void judge_all(bq_walk *w) {
    w->s->dev.op->wait(&w->s->dev);
    for (int k = 0; k < w->puts; k++)
        judge(w, w->put[k].stream, w->put[k].sample,
              bq_stream_get(w->put[k].stream, w->put[k].sample, w->buffer[BQ_STREAM_TARGET]),
              w->put[k].apart);
    w->puts = 0;
}

/* Is the file on disk, at the latest in so many seconds? */
static bool take(bq_walk_pending *p, double seconds) {
    bq_ckpt_cost cost;
    if (!bq_ckpt_end(p->out, seconds, &cost)) return false;
    p->out = NULL;
    p->seconds += cost.seconds, p->bytes += cost.written;
    return true;
}

void bq_walk_put(bq_walk *w, bq_stream *to, int64_t i, bq_mat y) {
    bq_dev *dev = &w->s->dev;
    bq_mat at = to->data ? bq_stream_get(to, i, y) : w->buffer[BQ_STREAM_TARGET];
    (at.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, y, at);
    if (to->data && y.place == BQ_DEVICE) {
        w->put[w->puts].stream = to, w->put[w->puts].sample = i;
        bq_run_ask_finite(w->s, y, &w->put[w->puts++].apart);
        if (w->puts == BQ_WALK_PUTS || i + 1 == to->samples) judge_all(w);
    } else {
        dev->op->wait(dev);
        judge(w, to, i, at, NAN);
        bq_stream_put(to, i, at);
    }
    bq_walk_poll(w);
}

void bq_walk_poll(bq_walk *w) {
    bq_walk_pending *p = &w->pending;
    bq_run_stopped(); /* for its heartbeat */
    bq_ahead_move(w->ahead);
    if (p->out && p->row[0] && take(p, 0)) bq_walk_settle(w);
}

void bq_walk_quantized(bq_walk *w, bool on) {
    const bool rounds = on && w->recipe->activations;
    bq_run_computes(w->s, on ? w->recipe->compute : w->s->recipe.reference);
    w->work.inputs = rounds ? bq_recipe_inputs(&w->s->recipe) : (bq_rounding){0};
    w->experts.work.inputs = w->work.inputs;
    w->work.raw_heads = rounds ? w->raw_heads : (bq_mat){0};
}

bool bq_walk_stops(const bq_walk *w) { return bq_comm_stage_any(w->s->comm, bq_run_stopped()); }

void bq_walk_restore(bq_walk *w, int phase, int sweep, bool fold) {
    char path[BQ_PATH_MAX + 64];
    int unit = bq_arch_unit(w->q.arch);
    if (unit)
        bq_ckpt_expert_path(path, sizeof path, w->s->dir, sweep, phase, w->block, unit - 1);
    else
        bq_ckpt_path(path, sizeof path, w->s->dir, sweep, phase, w->block);
    bq_restore(w->s, &w->s->dev, path, &w->blk, &w->q, fold);
}

/* Make *m a view of its copy behind the first `used` bytes of the room. */
static void keep(bq_walk *w, bq_mat *m, size_t *used) {
    bq_dev *dev = &w->s->dev;
    const size_t row = (size_t)m->cols * bq_type_size(m->type), bytes = (size_t)m->rows * row;
    if (!bytes) return;
    BQ_CHECK(*used + bytes <= w->s->plan.pending, "a checkpoint is larger than the plan says: %zu bytes",
             w->s->plan.pending);
    bq_mat room = bq_mat_host(w->pending.room + *used, m->rows, m->cols, m->type);
    if (m->place == BQ_DEVICE) dev->op->get(dev, *m, room);
    for (int64_t r = 0; r < m->rows && m->place != BQ_DEVICE; r++)
        memcpy(bq_mat_at(room, r, 0), bq_mat_at(*m, r, 0), row);
    *m = room, *used += bq_ckpt_room((int64_t)bytes);
}

static void keep_all(bq_walk *w, bq_ckpt *c) {
    size_t used = 0;
    bq_mat loss = bq_mat_host(c->loss, c->steps > 0, c->steps, BQ_F64);
    keep(w, &loss, &used);
    c->loss = loss.data;
    for (int i = 0; i < BQ_NORMS_FOLDED; i++) keep(w, &c->norm[i], &used);
    for (int i = 0; i < c->linears; i++) {
        bq_ckpt_linear *l = &c->linear[i];
        bq_mat *const all[] = {&l->fold, &l->code, &l->scale, &l->zero, &l->bias, &l->pre, &l->outer};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) keep(w, all[k], &used);
    }
    w->s->dev.op->wait(&w->s->dev);
}

void bq_walk_save(bq_walk *w, const char *path) {
    bq_run *s = w->s;
    bq_ckpt c = {.sweep = w->sweep,
                 .phase = w->phase,
                 .block = w->block,
                 .fingerprint = s->fingerprint,
                 .steps = w->steps,
                 .loss = w->loss};
    bq_restore_describe(&w->blk, &w->q, &c);
    for (int i = 0; i < c.linears && bq_recipe_continues(&s->recipe, w->phase, w->sweep); i++)
        c.linear[i].fold = bq_linear_view(w->q.arch, i, w->q.fold);
    bq_walk_settle(w);
    if (w->pending.room) keep_all(w, &c);
    w->pending.out = bq_ckpt_start(path, &c, w->pending.room);
    if (!w->pending.room) bq_walk_written(w);
}

void bq_walk_written(bq_walk *w) {
    while (w->pending.out && !take(&w->pending, 1)) bq_run_stopped(); /* for its heartbeat */
}

void bq_walk_settle(bq_walk *w) {
    bq_walk_pending *p = &w->pending;
    bq_walk_written(w);
    if (p->any && p->whole) bq_state_mark(w->s->state, w->sweep, w->phase, p->block);
    if (p->any && w->s->comm->replica == 0) bq_inside_remove(w->s->dir, p->block);
    p->any = false;
    if (p->row[0]) bq_account_settled(w);
}
