#include "driver/run/distill_parts.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "block/passes/train.h"
#include "io/state/checkpoint.h"
#include "io/state/midblock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

bq_shard bq_distill_leaves(const bq_distilling *d, int replica) {
    return bq_train_leaves(d->samples, d->batch, d->step, replica, d->s->comm->nreplica);
}

static bool first_stage(const bq_distilling *d) { return d->s->comm->istage == 0; }
static bool last_stage(const bq_distilling *d) { return d->s->comm->istage + 1 == d->s->comm->nstage; }

/* ---- between stages ---- */

/* The rank of my replica in a stage `by` farther on. */
static int rank_at(const bq_distilling *d, int by) { return d->s->comm->rank + by * d->s->comm->nreplica; }

static void settle(bq_distilling *d) {
    if (d->sends) bq_comm_wait(d->s->comm, &d->sending, 1);
    d->sends = false;
}

/* Send samples [first, first + n) of a stream; receive them into one. */
static void send(bq_distilling *d, int by, const bq_stream *from, int64_t first, int64_t n) {
    const int64_t size = d->tokens * d->hidden;
    settle(d);
    for (int64_t k = 0; k < n; k++) {
        bq_mat x = bq_stream_host(from, first + k, d->buffer);
        memcpy(d->given + k * size, x.data, (size_t)size * sizeof(float));
    }
    bq_comm_send(d->s->comm, rank_at(d, by), d->given, n * size, &d->sending);
    d->sends = true;
}

static void receive(bq_distilling *d, int by, bq_stream *to, int64_t first, int64_t n) {
    const int64_t size = d->tokens * d->hidden;
    MPI_Request request;
    bq_comm_receive(d->s->comm, rank_at(d, by), d->taken, n * size, &request);
    bq_comm_wait(d->s->comm, &request, 1);
    for (int64_t k = 0; k < n; k++)
        bq_stream_put(to, first + k, bq_mat_host(d->taken + k * size, d->tokens, d->hidden, BQ_F32));
}

/* ---- the original ---- */

/* Samples [0, n) of the inputs through the original's blocks of my stage, in place. */
static void original_blocks(bq_distilling *d, int64_t n) {
    bq_run *s = d->s;
    for (int b = (int)d->blocks.first; b < d->blocks.first + d->blocks.count; b++) {
        bq_source_unit(&s->src, &s->dev, b, bq_source_core(&s->src, b), &d->blk);
        for (int64_t k = 0; k < n; k++) {
            bq_mat x = bq_stream_get(&d->inputs, k, d->buffer);
            bq_block_sample(&s->dev, &d->blk, d->blk.w, &d->work, x, x);
            bq_stream_put(&d->inputs, k, x);
            bq_run_stopped(s); /* for its heartbeat */
        }
    }
}

/* What the head of the original reads, of the samples of my share: through all stages, in micro-batches.  The
 * first inputs of the steps are room for one. */
static void run_original(bq_distilling *d) {
    bq_run *s = d->s;
    const bq_ops *op = s->dev.op;
    bq_shard share = bq_run_share(s);
    for (int64_t at = 0; at < share.count; at += d->kept) {
        int64_t n = share.count - at < d->kept ? share.count - at : d->kept;
        for (int64_t k = 0; k < n && first_stage(d); k++)
            bq_run_embed(d->s, share.first + at + k, false, d->buffer, &d->inputs, k);
        if (!first_stage(d)) receive(d, -1, &d->inputs, 0, n);
        original_blocks(d, n);
        if (!last_stage(d)) send(d, 1, &d->inputs, 0, n);
        for (int64_t k = 0; k < n && last_stage(d); k++) {
            op->put(&s->dev, bq_stream_get(&d->inputs, k, d->buffer), d->dx);
            op->rmsnorm(&s->dev, d->dx, d->norm, (float)s->src.arch.model.eps, d->right);
            op->get(&s->dev, d->right, d->buffer);
            op->wait(&s->dev);
            bq_stream_put(&d->teacher, at + k, d->buffer);
        }
    }
    settle(d);
}

/* ---- a step ---- */

/* The loss of my k-th sample, and the gradient of the blocks' outputs for it. */
static double differentiate(bq_distilling *d, int64_t k, int64_t leaf, double *kl) {
    bq_dev *dev = &d->s->dev;
    const bq_ops *op = dev->op;
    const bq_model *m = &d->s->src.arch.model;
    const int64_t sample = bq_distill_sample(d, leaf), mine = sample - bq_run_share(d->s).first;
    const double tokens = (double)d->tokens;
    double sum = 0;
    op->put(dev, bq_stream_get(&d->inputs, d->blocks.count * d->kept + k, d->buffer), d->work.x);
    op->wait(dev); /* the buffer is used again */
    op->put(dev, bq_stream_get(&d->teacher, mine, d->buffer), d->right);
    op->rmsnorm(dev, d->work.x, d->norm, (float)m->eps, d->normed);
    op->distill(dev, d->normed, d->right, d->head, (float)m->logit_cap, 1 / (tokens * (double)d->batch),
                d->dx, kl);
    op->zero(dev, d->dy);
    op->rmsnorm_bwd(dev, d->work.x, d->norm, (float)m->eps, d->dx, d->dy);
    op->wait(dev);
    bq_distill_keep(d, d->dy, k);
    for (int64_t t = 0; t < d->tokens; t++) sum += kl[t];
    return sum / tokens / (double)d->batch;
}

static int64_t micro_of(const bq_distilling *d, int64_t at, int64_t count) {
    int64_t most = d->s->comm->nstage > 1 ? d->s->plan.micro : count;
    return count - at < most ? count - at : most;
}

/* Forward of my samples of a step, in micro-batches; then the loss of each; then back. */
static void forward(bq_distilling *d, bq_shard leaves) {
    for (int64_t at = 0, n; at < leaves.count; at += n) {
        n = micro_of(d, at, leaves.count);
        for (int64_t k = at; k < at + n && first_stage(d); k++)
            bq_run_embed(d->s, bq_distill_sample(d, leaves.first + k), true, d->buffer, &d->inputs, k);
        if (!first_stage(d)) receive(d, -1, &d->inputs, at, n);
        for (int64_t b = 0; b < d->blocks.count; b++) bq_distill_load(d, b), bq_distill_forward(d, b, at, n);
        if (!last_stage(d)) send(d, 1, &d->inputs, d->blocks.count * d->kept + at, n);
    }
}

static void backward(bq_distilling *d, bq_shard leaves) {
    for (int64_t at = 0, n; at < leaves.count; at += n) {
        n = micro_of(d, at, leaves.count);
        if (!last_stage(d)) receive(d, 1, &d->slopes, at, n);
        for (int64_t b = d->blocks.count; b-- > 0;) bq_distill_load(d, b), bq_distill_backward(d, b, at, n);
        if (!first_stage(d)) send(d, -1, &d->slopes, at, n);
    }
    settle(d);
}

/* The loss of the step, on all ranks: that of the last stage. */
static double losses(bq_distilling *d, bq_shard leaves) {
    const bq_comm *comm = d->s->comm;
    double *of = calloc((size_t)(d->batch + d->tokens + comm->size), sizeof *of), *kl = of + d->batch,
           *said = kl + d->tokens, sum = 0;
    BQ_CHECK(of, "no memory for the losses of %ld samples", (long)d->batch);
    for (int64_t k = 0; k < leaves.count && last_stage(d); k++)
        of[leaves.first + k] = differentiate(d, k, leaves.first + k, kl);
    if (last_stage(d)) bq_comm_fill(comm, of, d->batch);
    for (int64_t k = 0; k < d->batch; k++) sum += of[k];
    if (bq_fault("loss_nan")) sum = NAN;
    said[comm->rank] = sum;
    bq_comm_gather(comm, said, comm->size);
    sum = said[comm->size - 1];
    bq_comm_bcast(comm, &sum, sizeof sum);
    free(of);
    return sum;
}

static void take_step(bq_distilling *d) {
    const bq_distill *o = &d->s->recipe.distill;
    bq_shard leaves = bq_distill_leaves(d, d->s->comm->replica);
    forward(d, leaves);
    settle(d);
    double loss = d->losses[d->step] = losses(d, leaves);
    if (!isfinite(loss))
        bq_refuse_job(BQ_DATA, "distillation: the loss of step %ld is %g: take a smaller distill.lr than %g",
                      (long)d->step, loss, o->lr);
    backward(d, leaves);
    double rate = o->lr * (1 + cos(PI * (double)d->step / (double)o->steps)) / 2;
    for (int64_t b = 0; b < d->blocks.count; b++) bq_distill_update(d, b, rate);
    d->step++;
}

/* ---- the whole ---- */

static void open_all(bq_distilling *d, bq_run *s) {
    const bq_recipe *r = &s->recipe;
    const bq_arch *arch = bq_source_first(&s->src);
    bq_arena *mem = &s->dev.mem;
    *d = (bq_distilling){.s = s, .samples = r->calibration.samples, .batch = r->distill.batch};
    d->tokens = r->calibration.length, d->hidden = arch->model.hidden;
    d->blocks = bq_grid_blocks(&s->grid, s->comm->istage);
    for (; d->step < d->samples / d->batch; d->step++) {
        int64_t n = bq_distill_leaves(d, s->comm->replica).count;
        d->kept = n > d->kept ? n : d->kept;
    }
    d->step = 0;
    d->buffer = bq_run_room(s, 1);
    bq_block_push(&d->blk, arch, mem);
    bq_quantized_push_any(&d->q, &s->layouts, false, mem);
    bq_source_work(&s->src, arch, r->rope, &s->dev, d->tokens, true, &d->work);
    bq_mat *const views[] = {&d->dy, &d->dx, &d->normed, &d->right};
    for (int k = 0; k < 4; k++) *views[k] = bq_arena_push(mem, d->tokens, d->hidden, BQ_F32);
    d->norm = bq_arena_push(mem, 1, d->hidden, BQ_F32);
    if (last_stage(d)) d->head = bq_arena_push(mem, arch->model.vocab, d->hidden, BQ_F32);
    if (last_stage(d)) bq_source_head(&s->src, &s->dev, false, d->norm, d->head);
    bq_stream_open(&d->inputs, (d->blocks.count + 1) * d->kept, d->tokens, d->hidden, bq_run_home(s));
    bq_stream_open(&d->slopes, d->kept, d->tokens, d->hidden, bq_run_home(s));
    if (last_stage(d))
        bq_stream_open(&d->teacher, bq_run_share(s).count, d->tokens, d->hidden, bq_run_home(s));
    size_t values = (size_t)(d->kept * d->tokens * d->hidden);
    d->given = malloc(2 * values * sizeof *d->given);
    d->losses = calloc((size_t)r->distill.steps, sizeof *d->losses);
    d->scales = calloc((size_t)d->blocks.count, sizeof *d->scales);
    BQ_CHECK(d->given && d->losses && d->scales, "no memory for %ld samples of a step", (long)d->kept);
    d->taken = d->given + values;
}

static void open_scales(bq_distilling *d) {
    const bq_comm *comm = d->s->comm;
    bq_arena *mem = &d->s->dev.mem;
    int64_t most = 1, linear = 1;
    for (int64_t b = 0; b < d->blocks.count; b++) {
        bq_distill_begin(d, b);
        most = d->scales[b].count > most ? d->scales[b].count : most;
        for (int i = 0; i < d->q.arch->linears; i++)
            linear = d->q.scale[i].rows > linear ? d->q.scale[i].rows : linear;
    }
    d->gradient = bq_arena_push(mem, most, 1, BQ_F32);
    d->index = bq_arena_push(mem, linear, 1, BQ_I32);
    int32_t *numbers = malloc((size_t)linear * sizeof *numbers);
    BQ_CHECK(numbers, "no memory for %ld numbers", (long)linear);
    for (int64_t i = 0; i < linear; i++) numbers[i] = (int32_t)i;
    d->s->dev.op->put(&d->s->dev, bq_mat_host(numbers, linear, 1, BQ_I32), d->index);
    d->s->dev.op->wait(&d->s->dev);
    free(numbers);
    int buffers = bq_train_buffers(d->samples, d->batch, comm->replica, comm->nreplica);
    for (int64_t b = 0; b < d->blocks.count; b++)
        bq_treesum_open(&d->scales[b].sum, &d->s->dev, buffers,
                        bq_arena_push(mem, d->scales[b].count, 1, BQ_F32));
}

static void close_all(bq_distilling *d) {
    for (int64_t b = 0; b < d->blocks.count; b++) free(d->scales[b].start);
    bq_stream_close(&d->teacher);
    bq_stream_close(&d->slopes);
    bq_stream_close(&d->inputs);
    free(d->scales);
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
        int wanted = bq_comm_agree(s->comm, bq_run_stopped(s) ? 2 : late);
        if (!wanted || d->step == s->recipe.distill.steps) continue;
        bq_distill_save(d);
        since = bq_seconds();
        if (wanted == 2) return false;
    }
    return true;
}

bool bq_distill_done(const bq_run *s) {
    char path[BQ_PATH_MAX + 64];
    for (int b = 0; b < s->src.arch.model.blocks; b++) {
        bq_ckpt_path(path, sizeof path, s->dir, 0, s->recipe.nphase, b);
        if (bq_ckpt_peek(path, s->fingerprint) != BQ_CKPT_OK) return false;
    }
    return true;
}

/* Train, and write the results. */
static bool distill(bq_run *s) {
    size_t mark = bq_arena_mark(&s->dev.mem);
    double since = bq_seconds();
    bq_distilling d;
    open_all(&d, s);
    open_scales(&d);
    bq_distill_restore(&d);
    run_original(&d);
    bool whole = steps(&d);
    bq_progress_end();
    for (int64_t b = 0; b < d.blocks.count && whole && s->comm->replica == 0; b++) bq_distill_write(&d, b);
    const int64_t n = s->recipe.distill.steps;
    if (whole)
        bq_log(BQ_INFO, "distillation: KL %.5g -> %.5g in %ld steps, %.1f s", d.losses[0], d.losses[n - 1],
               (long)n, bq_seconds() - since);
    if (whole && d.losses[n - 1] > d.losses[0])
        bq_log(BQ_WARN,
               "distillation has made the model worse: take a smaller distill.lr than %g, or leave it out",
               s->recipe.distill.lr);
    close_all(&d);
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
        whole = bq_ckpt_open_at(&f, path, s->fingerprint, (bq_ckpt_at){0, s->recipe.nphase, b, 0}, &head,
                                why) == BQ_CKPT_OK;
        if (!whole) bq_log_all(BQ_WARN, "%s: %s: distillation is done again", path, why);
        bq_ckpt_close(f);
        bq_run_stopped(s); /* for its heartbeat */
    }
    return whole;
}

int bq_distill_run(bq_run *s) {
    if (!s->recipe.distill.steps) return BQ_OK;
    bool done = !bq_comm_agree(s->comm, !whole_results(s));
    if (!done && !distill(s)) return BQ_STOPPED;
    bq_comm_barrier(s->comm);
    for (int b = 0; b < s->src.arch.model.blocks && s->comm->rank == 0; b++) bq_inside_remove(s->dir, b);
    s->distilled = true;
    return BQ_OK;
}
