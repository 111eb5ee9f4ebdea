/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/distill_parts.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "block/passes/train.h"
#include "driver/plan/distill.h"
#include "driver/recipe/keys.h"
#include "io/state/checkpoint.h"
#include "io/state/midblock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

bq_shard bq_distill_leaves(const bq_distilling *d, int replica) {
    return bq_train_leaves(d->samples, d->batch, d->step, replica, d->s->comm->nreplica);
}

/* ---- a step ---- */

static int64_t micro_of(const bq_distilling *d, int64_t at, int64_t count) {
    int64_t most = d->s->comm->nstage > 1 ? d->s->plan.micro : count;
    return count - at < most ? count - at : most;
}

/* Forward of the samples of d->list, in micro-batches; and back, after the loss of each. */
static void forward(bq_distilling *d, int64_t count) {
    if (d->units > d->blocks.count) bq_distill_load_norm(d);
    for (int64_t at = 0, n; at < count; at += n) {
        n = micro_of(d, at, count);
        for (int64_t k = at; k < at + n && bq_distill_first(d); k++)
            bq_run_embed(d->s, d->list[k], true, d->buffer, &d->inputs, k);
        if (!bq_distill_first(d)) bq_distill_receive(d, -1, &d->inputs, at, n);
        for (int64_t b = 0; b < d->blocks.count; b++) bq_distill_load(d, b), bq_distill_forward(d, b, at, n);
        if (!bq_distill_last(d)) bq_distill_send(d, 1, &d->inputs, d->blocks.count * d->kept + at, n);
    }
    bq_distill_settle(d);
}

static void backward(bq_distilling *d, int64_t count) {
    for (int64_t at = 0, n; at < count; at += n) {
        n = micro_of(d, at, count);
        if (!bq_distill_last(d)) bq_distill_receive(d, 1, &d->slopes, at, n);
        for (int64_t b = d->blocks.count; b-- > 0;) bq_distill_load(d, b), bq_distill_backward(d, b, at, n);
        if (!bq_distill_first(d)) bq_distill_send(d, -1, &d->slopes, at, n);
    }
    bq_distill_settle(d);
}

static void take_step(bq_distilling *d) {
    const bq_distill *o = &d->s->recipe.distill;
    bq_shard leaves = bq_distill_leaves(d, d->s->comm->replica);
    for (int64_t k = 0; k < leaves.count; k++) d->list[k] = bq_distill_sample(d, leaves.first + k);
    forward(d, leaves.count);
    double loss = d->losses[d->step] = bq_distill_loss(d, leaves.first, leaves.count, d->batch);
    if (bq_fault("loss_nan")) loss = NAN;
    if (!isfinite(loss))
        bq_refuse_job(BQ_DATA, "distillation: the loss of step %ld is %g: take a smaller distill.lr than %g",
                      (long)d->step, loss, o->lr);
    backward(d, leaves.count);
    const double done = (double)d->step, rise = o->warmup ? fmin(1, (done + 1) / (double)o->warmup) : 1,
                 rate = o->lr * rise * (1 + cos(PI * done / (double)o->steps)) / 2;
    for (int64_t b = 0; b < d->units; b++) bq_distill_update(d, b, rate);
    d->step++;
}

/* The mean KL of the samples that are held out, on all ranks. */
static double held_out(bq_distilling *d) {
    double sum = 0;
    const int64_t all = d->s->recipe.distill.held;
    const int64_t most = bq_shard_of(all, 0, d->s->comm->nreplica).count;
    for (int64_t at = 0; at < most; at += d->together) {
        int64_t count = d->held.count - at < d->together ? d->held.count - at : d->together;
        if (count < 0) count = 0;
        for (int64_t k = 0; k < count; k++) d->list[k] = d->samples + d->held.first + at + k;
        forward(d, count);
        sum += bq_distill_loss(d, d->held.first + at, count, all);
    }
    return sum;
}

/* ---- the whole ---- */

static void open_device(bq_distilling *d, bq_run *s) {
    const bq_arch *arch = bq_source_first(&s->src);
    bq_arena *mem = &s->dev.mem;
    bq_block_push(&d->blk, arch, mem);
    bq_quantized_push_any(&d->q, &s->layouts, false, mem);
    bq_source_work(&s->src, arch, s->recipe.rope, &s->dev, d->tokens, true, &d->work);
    const bq_model *m = &arch->model;
    if (!d->work.raw_qk.data && !m->kv_rank)
        d->work.raw_qk = bq_arena_push(mem, d->tokens, (m->heads + m->kv_heads) * m->head_dim, BQ_F32);
    bq_mat *const views[] = {&d->dy, &d->dx, &d->normed, &d->right, &d->some};
    for (int k = 0; k < (bq_distill_last(d) ? 5 : 2); k++)
        *views[k] = bq_arena_push(mem, k < 2 ? d->tokens : d->positions, d->hidden, BQ_F32);
    if (!bq_distill_last(d)) return;
    d->norm = bq_arena_push(mem, 1, d->hidden, BQ_F32);
    d->head = bq_arena_push(mem, arch->model.vocab, d->hidden, BQ_F32);
    d->chosen = bq_arena_push(mem, d->positions, 1, BQ_I32);
    bq_source_head(&s->src, &s->dev, false, d->norm, d->head);
}

static void open_streams(bq_distilling *d, bq_run *s) {
    const int64_t share = d->share.count + d->held.count;
    d->piece = bq_distill_piece(share, s->comm->nstage);
    bq_stream_open(&d->inputs, (d->blocks.count + 1) * d->kept, d->tokens, d->hidden, bq_run_home(s));
    bq_stream_open(&d->slopes, d->kept, d->tokens, d->hidden, bq_run_home(s));
    bq_stream_open(&d->original, bq_distill_last(d) ? share : d->piece, d->tokens, d->hidden, bq_run_home(s));
}

/* The most samples of a step that I have; and that each replica has. */
static void count_samples(bq_distilling *d, const bq_comm *comm) {
    d->together = INT64_MAX;
    for (int r = 0; r < comm->nreplica; r++) {
        int64_t most = 1;
        for (d->step = 0; d->step < d->samples / d->batch; d->step++) {
            const int64_t n = bq_distill_leaves(d, r).count;
            most = n > most ? n : most;
        }
        if (r == comm->replica) d->kept = most;
        d->together = most < d->together ? most : d->together;
    }
    d->step = 0;
}

static void open_all(bq_distilling *d, bq_run *s) {
    const bq_recipe *r = &s->recipe;
    *d = (bq_distilling){.s = s, .samples = r->calibration.samples, .batch = r->distill.batch};
    d->tokens = r->calibration.length, d->hidden = s->src.arch.model.hidden;
    d->positions = bq_distill_positions(r);
    d->blocks = bq_grid_blocks(&s->grid, s->comm->istage);
    count_samples(d, s->comm);
    d->share = bq_shard_of(d->samples, s->comm->replica, s->comm->nreplica);
    d->held = bq_shard_of(r->distill.held, s->comm->replica, s->comm->nreplica);
    d->buffer = bq_run_room(s, 1);
    open_device(d, s);
    open_streams(d, s);
    size_t values = (size_t)(d->kept * d->tokens * d->hidden);
    d->given = malloc(2 * values * sizeof *d->given);
    d->losses = calloc((size_t)r->distill.steps, sizeof *d->losses);
    d->units = d->blocks.count + (bq_distill_last(d) && r->distill.norms);
    d->numbers = calloc((size_t)d->blocks.count + 1, sizeof *d->numbers);
    d->list = calloc((size_t)d->kept, sizeof *d->list);
    BQ_CHECK(d->given && d->losses && d->numbers && d->list, "no memory for %ld samples of a step",
             (long)d->kept);
    d->taken = d->given + values;
}

/* index, zeros and ones. */
static void open_constants(bq_distilling *d, int64_t scales) {
    bq_dev *dev = &d->s->dev;
    const int64_t cols = (int64_t)bq_linear_most_of(&d->s->layouts).cols;
    int32_t *numbers = malloc((size_t)scales * sizeof *numbers);
    BQ_CHECK(numbers, "no memory for %ld numbers", (long)scales);
    for (int64_t i = 0; i < scales; i++) numbers[i] = (int32_t)i;
    d->index = bq_arena_push(&dev->mem, scales, 1, BQ_I32);
    d->zeros = bq_arena_push(&dev->mem, scales, 1, BQ_I32);
    d->ones = bq_arena_push(&dev->mem, cols > d->tokens ? cols : d->tokens, 1, BQ_F32);
    dev->op->put(dev, bq_mat_host(numbers, scales, 1, BQ_I32), d->index);
    dev->op->zero(dev, d->zeros);
    dev->op->set(dev, d->ones, 1);
    dev->op->wait(dev);
    free(numbers);
}

static void open_numbers(bq_distilling *d) {
    const bq_comm *comm = d->s->comm;
    bq_arena *mem = &d->s->dev.mem;
    int64_t most = 1, linear = 1;
    for (int64_t b = 0; b < d->blocks.count; b++) {
        bq_distill_begin(d, b);
        most = d->numbers[b].count > most ? d->numbers[b].count : most;
        for (int i = 0; i < d->q.arch->linears; i++)
            linear = d->q.scale[i].rows > linear ? d->q.scale[i].rows : linear;
    }
    if (d->units > d->blocks.count) bq_distill_begin_norm(d);
    if (most < d->hidden) most = d->hidden;
    d->gradient = bq_arena_push(mem, most, 1, BQ_F32);
    open_constants(d, linear);
    int buffers = bq_train_buffers(d->samples, d->batch, comm->replica, comm->nreplica);
    for (int64_t b = 0; b < d->units; b++)
        bq_treesum_open(&d->numbers[b].sum, &d->s->dev, buffers,
                        bq_arena_push(mem, d->numbers[b].count, 1, BQ_F32));
}

static void close_all(bq_distilling *d) {
    for (int64_t b = 0; b < d->units; b++) free(d->numbers[b].start);
    bq_stream_close(&d->original);
    bq_stream_close(&d->slopes);
    bq_stream_close(&d->inputs);
    free(d->numbers);
    free(d->list);
    free(d->losses);
    free(d->given);
    free(d->buffer.data);
}

/* All steps that are left.  False on all ranks: a stop came to one, and the state is saved. */
static bool steps(bq_distilling *d) {
    bq_run *s = d->s;
    double since = bq_seconds(), every = s->args->save_every;
    while (d->step < s->recipe.distill.steps) {
        char note[48];
        take_step(d);
        snprintf(note, sizeof note, "distill  KL %.5g", d->losses[d->step - 1]);
        if (s->comm->rank == 0) bq_progress(d->step, s->recipe.distill.steps, note);
        bool late = s->comm->rank == 0 && every > 0 && bq_seconds() - since >= every;
        int wanted = bq_comm_agree(s->comm, bq_run_stopped() ? 2 : late);
        if (!wanted || d->step == s->recipe.distill.steps) continue;
        bq_distill_save(d);
        since = bq_seconds();
        if (wanted == 2) return false;
    }
    return true;
}

void bq_distill_tag(bq_run *s) {
    json_t *recipe = bq_keys_json(&s->recipe, false), *said = json_object_get(recipe, "distill");
    char *text = said ? json_dumps(said, JSON_COMPACT) : NULL;
    const uint64_t of[] = {s->fingerprint, bq_hash_text(text ? text : "")};
    s->distill_tag = bq_hash_bytes(of, sizeof of);
    free(text);
    json_decref(recipe);
}

void bq_distill_final(bq_run *s) {
    char path[BQ_PATH_MAX + 64], why[BQ_WHY];
    bq_ckpt_file *f;
    bq_ckpt head;
    if (!s->distilled || !s->recipe.distill.norms) return;
    bq_run_checkpoint(s, s->src.arch.model.blocks - 1, 0, path, sizeof path);
    int found = bq_ckpt_open(&f, path, s->distill_tag, &head, why);
    BQ_CHECK(found == BQ_CKPT_OK, "%s: damaged since the run began: %s; `blockq run` makes it again", path,
             why);
    s->final_norm = malloc((size_t)s->src.arch.model.hidden * sizeof *s->final_norm);
    BQ_CHECK(s->final_norm, "no memory for a norm");
    bq_ckpt_read_norm(f, 2, bq_mat_host(s->final_norm, 1, s->src.arch.model.hidden, BQ_F32));
    bq_ckpt_close(f);
}

bool bq_distill_done(const bq_run *s) {
    char path[BQ_PATH_MAX + 64];
    for (int b = 0; b < s->src.arch.model.blocks; b++) {
        bq_ckpt_path(path, sizeof path, s->dir, 0, s->recipe.nphase, b);
        if (bq_ckpt_peek(path, s->distill_tag) != BQ_CKPT_OK) return false;
    }
    return true;
}

/* What was done.  before, after: KL of the samples that are held out. */
static void say(const bq_distilling *d, double before, double after, double seconds) {
    const bq_distill *o = &d->s->recipe.distill;
    const double first = d->losses[0], last = d->losses[o->steps - 1];
    char held[64] = "";
    if (o->held) snprintf(held, sizeof held, ", held out %.5g -> %.5g", before, after);
    bq_log(BQ_INFO, "distillation: KL %.5g -> %.5g in %ld steps%s, %.1f s", first, last, (long)o->steps, held,
           seconds);
    if (o->held ? after > before : last > first)
        bq_log(BQ_WARN,
               "distillation has made the model worse: take a smaller distill.lr than %g, or leave it out",
               o->lr);
}

/* Train, and write the results. */
static bool distill(bq_run *s) {
    size_t mark = bq_arena_mark(&s->dev.mem);
    double since = bq_seconds();
    bq_distilling d;
    bq_run_computes(s, s->recipe.distill.compute);
    open_all(&d, s);
    open_numbers(&d);
    bq_distill_original(&d);
    const double before = held_out(&d);
    bq_distill_restore(&d);
    bool whole = steps(&d);
    bq_progress_end();
    if (whole) say(&d, before, held_out(&d), bq_seconds() - since);
    for (int64_t b = 0; b < d.blocks.count && whole && s->comm->replica == 0; b++) bq_distill_write(&d, b);
    close_all(&d);
    bq_run_computes(s, BQ_COMPUTE_F32);
    bq_arena_reset(&s->dev.mem, mark);
    return whole;
}

/* Every byte of my share of the results: a damaged one is made again, with all others. */
static bool whole_results(const bq_run *s) {
    char path[BQ_PATH_MAX + 64], why[BQ_WHY];
    bool whole = bq_distill_done(s);
    for (int b = s->comm->rank; b < s->src.arch.model.blocks && whole; b += s->comm->size) {
        bq_ckpt_file *f;
        bq_ckpt head;
        bq_ckpt_path(path, sizeof path, s->dir, 0, s->recipe.nphase, b);
        whole = bq_ckpt_open_at(&f, path, s->distill_tag, (bq_ckpt_at){0, s->recipe.nphase, b, 0}, &head,
                                why) == BQ_CKPT_OK;
        if (!whole) bq_log_all(BQ_WARN, "%s: %s: distillation is done again", path, why);
        bq_ckpt_close(f);
        bq_run_stopped(); /* for its heartbeat */
    }
    return whole;
}

int bq_distill_run(bq_run *s) {
    if (!s->recipe.distill.steps) return BQ_OK;
    bool done = !bq_comm_agree(s->comm, !whole_results(s));
    if (!done && !distill(s)) return BQ_STOPPED;
    bq_comm_barrier(s->comm);
    for (int b = 0; b <= s->src.arch.model.blocks && s->comm->rank == 0; b++) bq_inside_remove(s->dir, b);
    s->distilled = true;
    bq_distill_final(s);
    return BQ_OK;
}
