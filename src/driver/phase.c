#include "driver/session.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "block/adascale.h"
#include "comm/treesum.h"
#include "driver/grid.h"
#include "driver/inside.h"
#include "driver/reference.h"
#include "driver/sweep.h"
#include "io/acts.h"
#include "io/checkpoint.h"
#include "io/files.h"
#include "io/stream.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One phase on its way over the blocks. */
typedef struct {
    bq_session *s;
    int sweep, phase, block;
    const bq_phase *recipe;
    const bq_phase_hooks *hooks;
    bool calibrated, frozen; /* frozen: nothing of this segment is trained in this sweep */
    bq_shard share, blocks;  /* my samples, my stage's blocks */
    bq_block blk;
    bq_quantized q;
    bq_work work;
    bq_stream fp, target, qt;
    bq_mat x, y;                /* device (T, H) */
    float *memory;              /* of the buffers */
    bq_mat buffer[3];           /* host (T, H), one a stream */
    double *loss, *batch;       /* of the pass that trained last, a value a step; of one batch */
    int64_t steps, limit, most; /* entries of loss; its size; that of batch */
    double seconds[5];          /* load, target, passes, advance, save: of this block */
    int64_t units, all;         /* progress: optimizer steps done and in all, */
    int64_t before;             /* and before this pass */
    bq_inside_keep inside;      /* this block in the midst of its training */
} walk;

enum { LOAD, TARGET, PASSES, ADVANCE, SAVE };

static void clock_to(walk *w, int part, double *since) {
    double now = bq_seconds();
    w->seconds[part] += now - *since;
    *since = now;
}

/* My samples of the inputs of the stage's first block. */
static void load_heads(walk *w) {
    bq_session *s = w->s;
    const bq_recipe *r = &s->recipe;
    char path[BQ_PATH_MAX + 32], why[BQ_WHY];
    bq_acts *acts;
    bq_reference_path(s, (int)w->blocks.first, path, sizeof path);
    bool good =
        bq_acts_open(&acts, path, r->calibration.samples, r->calibration.length, s->src.arch.model.hidden,
                     bq_reference_hash(s, (int)w->blocks.first), why) == BQ_ACTS_OK;
    for (int64_t i = 0; good && i < w->share.count; i++) {
        good = bq_acts_read(acts, w->share.first + i, w->buffer[0].data);
        bq_stream_put(&w->fp, i, w->buffer[0]);
    }
    BQ_CHECK(good, "%s: %s", path,
             why[0] ? why : "a sample was damaged since the run began; the same command makes it again");
    bq_acts_close(acts);
}

/* At a segment's head the quantized stream is the boundary that the sweep before kept, at first the FP
 * stream. */
static void start_segment(walk *w) {
    w->frozen = bq_sweep_frozen(w->s, w->sweep, w->block);
    bq_comm_stage_bcast(w->s->comm, &w->frozen, sizeof w->frozen);
    if (w->frozen || !w->qt.open || bq_sweep_head(w->s, w->sweep, w->block, &w->qt, w->buffer[0])) return;
    for (int64_t i = 0; i < w->share.count; i++)
        bq_stream_put(&w->qt, i, bq_stream_get(&w->fp, i, w->buffer[0]));
}

/* After its last block a segment's quantized stream is the next one's head in the next sweep. */
static void end_segment(walk *w) {
    bq_session *s = w->s;
    int next = w->block + 1, blocks = s->src.arch.model.blocks;
    if (s->recipe.sweeps == 1 || next == blocks || !bq_grid_is_start(&s->recipe, blocks, next)) return;
    bq_sweep_keep(s, w->sweep, next, &w->qt, w->buffer[0]);
    double moved = bq_sweep_moved(s, w->sweep, next, &w->fp, w->buffer[0], w->buffer[1]);
    if (s->comm->replica == 0)
        bq_log_all(BQ_INFO, "sweep %d: the boundary before block %d moved by %.3g", w->sweep, next + 1,
                   moved);
}

static void forward(walk *w, const bq_mat mats[BQ_MATS], bq_stream *from, bq_stream *to) {
    bq_dev *dev = &w->s->dev;
    for (int64_t i = 0; i < from->samples; i++) {
        dev->op->put(dev, bq_stream_get(from, i, w->buffer[0]), w->x);
        bq_block_forward(dev, &w->blk, mats, &w->work, w->x, w->y);
        dev->op->get(dev, w->y, w->buffer[1]);
        dev->op->wait(dev);
        bq_stream_put(to, i, w->buffer[1]);
        bq_session_stopped(w->s);
    }
}

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    walk *w = ctx;
    bq_stream *const from[] = {
        [BQ_STREAM_FP] = &w->fp, [BQ_STREAM_QT] = &w->qt, [BQ_STREAM_TARGET] = &w->target};
    return bq_stream_get(from[stream], sample - w->share.first, w->buffer[stream]);
}

static void step(void *ctx, int64_t at, int64_t steps, double loss) {
    walk *w = ctx;
    char note[80];
    (void)steps;
    bq_session_stopped(w->s);
    w->units = w->before + at;
    snprintf(note, sizeof note, "block %d/%d  loss %.4g", w->block + 1, w->s->src.arch.model.blocks, loss);
    bq_progress(w->units, w->all, note);
}

static void trained(void *ctx, int linear, const bq_adascale *values) {
    walk *w = ctx;
    w->hooks->trained(w->hooks->ctx, w->block, linear, values);
}

static int64_t steps_of(const bq_pass *p, int sweep) {
    if (sweep == 0) return p->iterations;
    return p->sweep_iterations ? p->sweep_iterations : (p->iterations + 3) / 4;
}

static void restore(walk *w, int sweep, bool fold) {
    char path[BQ_PATH_MAX + 64];
    bq_ckpt_path(path, sizeof path, w->s->dir, sweep, w->phase, w->block);
    BQ_CHECK(bq_session_restore(w->s, &w->s->dev, path, &w->q, fold), "%s was whole a moment ago", path);
}

/* False when a signal ended it. */
static bool adascale(walk *w, bq_pass_context *c, const bq_pass *p) {
    bq_adascale_options o = {.iterations = steps_of(p, w->sweep),
                             .batch = p->batch,
                             .lr_clip = p->lr_clip,
                             .lr_weight = p->lr_weight,
                             .loss = p->loss,
                             .warm = w->sweep > 0,
                             .early_stop = p->early_stop,
                             .check_interval = p->check_interval,
                             .window = p->window,
                             .threshold = p->threshold};
    w->before = w->units;
    if (w->hooks) c->trained = trained;
    w->steps = bq_pass_adascale(c, &o, w->loss);
    w->units = w->before + o.iterations;
    if (w->steps >= 0 || w->steps == BQ_PASS_STOPPED) return w->steps >= 0;
    bq_log(BQ_WARN, "block %d: the loss stopped being a number; the block is left %s", w->block,
           w->sweep ? "as the sweep before made it" : "rounded to nearest");
    if (w->sweep) restore(w, bq_sweep_latest(w->s, w->phase, w->block, w->sweep), true);
    w->steps = 0;
    return true;
}

static bool apply_passes(walk *w) {
    bq_session *s = w->s;
    const bq_recipe *r = &s->recipe;
    bq_pass_context c = {.comm = s->comm,
                         .batch = w->batch,
                         .dev = &s->dev,
                         .blk = &w->blk,
                         .work = &w->work,
                         .q = &w->q,
                         .samples = r->calibration.samples,
                         .tokens = r->calibration.length,
                         .input = w->recipe->inputs,
                         .mix = w->recipe->mix,
                         .fetch = fetch,
                         .step = step,
                         .stop = &bq_stop_wanted,
                         .ctx = w};
    if (w->sweep) { /* from the result of the sweep before: its folded weights stand in for the original ones
                     */
        restore(w, bq_sweep_latest(s, w->phase, w->block, w->sweep), true);
        for (int m = 0; m < BQ_MATS; m++) s->dev.op->copy(&s->dev, w->q.fold[m], w->blk.w[m]);
    }
    c.at = (bq_rng_key){.seed = r->seed,
                        .sweep = (uint32_t)w->sweep,
                        .phase = (uint32_t)w->phase,
                        .block = (uint32_t)w->block};
    w->steps = 0;
    bq_inside_begin(&w->inside, s, &w->q, w->sweep, w->phase, w->block, w->limit);
    for (int i = 0; i < w->recipe->npass; i++) {
        const bq_pass *p = &w->recipe->pass[i];
        c.keeper = bq_inside_pass(&w->inside, i);
        if (!c.keeper) continue;
        if (p->kind == BQ_PASS_RTN) {
            if (w->sweep == 0) bq_pass_rtn(&c); /* later sweeps only train */
        } else if (!adascale(w, &c, p)) {
            return false;
        }
    }
    return true;
}

static void save_block(walk *w) {
    bq_session *s = w->s;
    const bq_arch *arch = &s->src.arch;
    char path[BQ_PATH_MAX + 64];
    bq_ckpt c = {.sweep = w->sweep,
                 .phase = w->phase,
                 .block = w->block,
                 .fingerprint = s->fingerprint,
                 .linears = arch->linears,
                 .steps = w->steps,
                 .loss = w->loss};
    for (int i = 0; i < arch->linears; i++) {
        bq_ckpt_linear *l = &c.linear[i];
        snprintf(l->name, sizeof l->name, "%s", arch->linear[i].module);
        l->scheme = w->q.scheme[i];
        l->fold = bq_linear_view(arch, i, w->q.fold);
        l->code = bq_linear_view(arch, i, w->q.code);
        l->scale = bq_mat_reshape(w->q.scale[i], bq_linear_groups(arch, w->q.scheme, i));
    }
    bq_ckpt_path(path, sizeof path, s->dir, w->sweep, w->phase, w->block);
    if (s->comm->replica == 0) bq_ckpt_write(path, &c);
    bq_state_mark(s->state, w->sweep, w->phase, w->block);
    bq_inside_end(&w->inside);
}

static double mean(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return n ? sum / (double)n : 0;
}

/* One row a block for machines, one line for people.  First and last loss are means over one round of the
 * samples, at most over half of the steps each. */
static void report(walk *w, double seconds) {
    bq_session *s = w->s;
    char path[BQ_PATH_MAX + 16], row[512];
    int64_t n =
        w->steps / 2 < s->recipe.calibration.samples ? (w->steps + 1) / 2 : s->recipe.calibration.samples;
    double first = mean(w->loss, n), last = mean(w->loss + w->steps - n, n);
    if (s->comm->replica) return;
    snprintf(path, sizeof path, "%s/run.csv", s->dir);
    int length = snprintf(row, sizeof row, "%d,%d,%d,%d,%ld,%.9g,%.9g,%.4f,%.4f,%.4f,%.4f,%.4f,%zu,%zu\n",
                          w->sweep, w->phase, w->block, s->comm->istage, (long)w->steps, first, last,
                          w->seconds[LOAD], w->seconds[TARGET], w->seconds[PASSES], w->seconds[ADVANCE],
                          w->seconds[SAVE], bq_peak_rss(), s->dev.mem.peak);
    int error = bq_file_append(path, row, (size_t)length);
    BQ_CHECK(error == 0, "write of '%s' failed: %s", path, strerror(error));
    if (w->steps)
        bq_log_all(BQ_INFO, "block %d/%d: loss %.5g -> %.5g in %ld steps, %.1f s", w->block + 1,
                   s->src.arch.model.blocks, first, last, (long)w->steps, seconds);
    else
        bq_log_all(BQ_INFO, "block %d/%d: %.1f s", w->block + 1, s->src.arch.model.blocks, seconds);
}

static void open_walk(walk *w, bq_session *s, int sweep, int phase, const bq_phase_hooks *hooks) {
    const bq_recipe *r = &s->recipe;
    const bq_arch *arch = &s->src.arch;
    bq_arena *mem = &s->dev.mem;
    int64_t t = r->calibration.length, h = arch->model.hidden;
    *w = (walk){.s = s, .sweep = sweep, .phase = phase, .recipe = &r->phase[phase], .hooks = hooks};
    w->share = bq_shard_of(r->calibration.samples, s->comm->replica, s->comm->nreplica);
    w->blocks = bq_grid_blocks(r, arch->model.blocks, s->comm->istage, s->comm->nstage);
    int64_t n = w->share.count;
    w->calibrated = bq_phase_calibrated(w->recipe);
    bq_block_push(&w->blk, arch, mem);
    bq_quantized_push(&w->q, arch, s->scheme, mem);
    for (int i = 0; i < w->recipe->npass; i++) {
        const bq_pass *p = &w->recipe->pass[i];
        if (p->kind != BQ_PASS_ADASCALE) continue;
        w->all += steps_of(p, sweep) * w->blocks.count;
        w->most = p->batch > w->most ? p->batch : w->most;
        w->limit = steps_of(p, sweep) > w->limit ? steps_of(p, sweep) : w->limit;
    }
    if (!w->calibrated) return;
    bq_work_push(&w->work, arch, t, true, mem);
    bq_source_rope(&s->src, r->rope, &s->dev, &w->work);
    w->x = bq_arena_push(mem, t, h, BQ_F32);
    w->y = bq_arena_push(mem, t, h, BQ_F32);
    w->loss = calloc((size_t)w->limit, sizeof *w->loss);
    w->batch = calloc((size_t)w->most + 2, sizeof *w->batch);
    w->memory = malloc((size_t)(3 * t * h) * sizeof *w->memory);
    BQ_CHECK(w->loss && w->batch && w->memory, "no memory for sample buffers of %ld x %ld", (long)t, (long)h);
    for (int i = 0; i < 3; i++) w->buffer[i] = bq_mat_host(w->memory + i * t * h, t, h, BQ_F32);
    bq_stream_open(&w->fp, n, t, h, s->plan.scratch);
    bq_stream_open(&w->target, n, t, h, s->plan.scratch);
    if (w->recipe->inputs != BQ_INPUTS_FP) bq_stream_open(&w->qt, n, t, h, s->plan.scratch);
    load_heads(w);
}

static void close_walk(walk *w, size_t mark) {
    bq_progress_clear();
    bq_stream_close(&w->fp);
    bq_stream_close(&w->target);
    bq_stream_close(&w->qt);
    free(w->memory);
    free(w->loss);
    free(w->batch);
    bq_arena_reset(&w->s->dev.mem, mark);
}

/* Block b: its FP outputs, its quantized form (restored or made), the streams moved past it. */
typedef enum { RESTORED, MADE, STOPPED } outcome;

/* Only the FP stream moves on, for the segments behind. */
static outcome pass_frozen(walk *w) {
    bq_session *s = w->s;
    bq_source_block(&s->src, &s->dev, w->block, &w->blk);
    forward(w, w->blk.w, &w->fp, &w->target);
    bq_stream_swap(&w->fp, &w->target);
    return RESTORED;
}

static bool stop_agreed(const walk *w) {
    double wanted = bq_session_stopped(w->s);
    bq_comm_fill(w->s->comm, &wanted, 1);
    return wanted > 0;
}

static outcome do_block(walk *w) {
    bq_session *s = w->s;
    double start = bq_seconds(), now = start;
    memset(w->seconds, 0, sizeof w->seconds);
    bool done = bq_state_done(s->state, w->sweep, w->phase, w->block);
    bq_comm_stage_bcast(s->comm, &done, sizeof done); /* replica 0 has looked last */
    if (done && !w->calibrated) return RESTORED;
    if (bq_grid_is_start(&s->recipe, s->src.arch.model.blocks, w->block)) start_segment(w);
    if (w->frozen) return pass_frozen(w);
    bq_source_block(&s->src, &s->dev, w->block, &w->blk);
    clock_to(w, LOAD, &now);
    if (w->calibrated) forward(w, w->blk.w, &w->fp, &w->target);
    clock_to(w, TARGET, &now);
    if (stop_agreed(w)) return STOPPED;
    if (done)
        restore(w, w->sweep, false);
    else if (!apply_passes(w))
        return STOPPED;
    clock_to(w, PASSES, &now);
    if (!done) save_block(w);
    clock_to(w, SAVE, &now);
    if (w->qt.open) forward(w, w->q.what, &w->qt, &w->qt);
    if (w->calibrated) bq_stream_swap(&w->fp, &w->target);
    if (w->qt.open) end_segment(w);
    clock_to(w, ADVANCE, &now);
    if (!done) report(w, now - start);
    return done ? RESTORED : MADE;
}

/* Nothing is left to do for this stage: every block is made or frozen, every boundary kept. */
static bool all_done(const bq_session *s, int sweep, int phase, bq_shard blocks) {
    bool frozen = false, chained = s->recipe.sweeps > 1;
    int end = (int)(blocks.first + blocks.count);
    for (int b = (int)blocks.first; b < end; b++) {
        bool head = bq_grid_is_start(&s->recipe, s->src.arch.model.blocks, b);
        if (head && b > blocks.first && chained && !frozen && !bq_sweep_kept(s, sweep, b)) return false;
        if (head) frozen = bq_sweep_frozen(s, sweep, b);
        if (!frozen && !bq_state_done(s->state, sweep, phase, b)) return false;
    }
    return !chained || frozen || end == s->src.arch.model.blocks || bq_sweep_kept(s, sweep, end);
}

int bq_session_phase(bq_session *s, int sweep, int phase, const bq_phase_hooks *hooks) {
    size_t mark = bq_arena_mark(&s->dev.mem);
    bq_shard blocks = bq_grid_blocks(&s->recipe, s->src.arch.model.blocks, s->comm->istage, s->comm->nstage);
    int code = BQ_OK, end = (int)(blocks.first + blocks.count);
    bool done = all_done(s, sweep, phase, blocks);
    bq_comm_stage_bcast(s->comm, &done, sizeof done);
    if (done) return BQ_OK;
    walk w;
    open_walk(&w, s, sweep, phase, hooks);
    if (s->recipe.phase[phase].name[0]) bq_log(BQ_INFO, "phase %s", s->recipe.phase[phase].name);
    for (w.block = (int)blocks.first; w.block < end && code == BQ_OK; w.block++) {
        outcome got = do_block(&w);
        if (got == MADE) s->made++;
        if (got == RESTORED) w.units += w.all / blocks.count;
        bool last = w.block + 1 == end && phase + 1 == s->recipe.nphase;
        if (got == STOPPED || (s->args->stop_after && s->made == s->args->stop_after && !last))
            code = BQ_STOPPED;
    }
    close_walk(&w, mark);
    return code;
}
