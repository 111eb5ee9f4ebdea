/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/phase.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "comm/treesum.h"
#include "driver/run/account.h"
#include "driver/run/experts.h"
#include "driver/run/passes.h"
#include "driver/streams/boundary.h"
#include "driver/load/device.h"
#include "driver/plan/grid.h"
#include "driver/recipe/traits.h"
#include "driver/streams/reference.h"
#include "driver/streams/stream_file.h"
#include "driver/streams/sweep.h"
#include "io/state/acts.h"
#include "io/files.h"
#include "kernels/mark.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOAD, TARGET, PASSES, ADVANCE, SAVE };

static void clock_to(bq_walk *w, int part, double *since) {
    double now = bq_seconds();
    w->seconds[part] += now - *since;
    *since = now;
}

/* Read my samples of the inputs of block b into the FP stream, or into the QT stream where that is the only
 * one. */
static void load_head(bq_walk *w, int b) {
    bq_run *s = w->s;
    bq_stream *to = w->follows ? &w->fp : &w->qt;
    const bq_recipe *r = &s->recipe;
    char path[BQ_PATH_MAX + 96], why[BQ_WHY];
    bq_acts *acts;
    uint64_t hash = bq_reference_file(s, b, path, sizeof path);
    bool good = bq_acts_open(&acts, path, r->calibration.samples, r->calibration.length,
                             s->src.arch.model.hidden, hash, why) == BQ_ACTS_OK;
    acts = bq_stream_file_join(s, acts);
    good = good && acts; /* NULL if they are joined and another replica has none */
    for (int64_t i = 0; good && i < w->share.count; i++) {
        good = bq_acts_read(acts, w->share.first + i, w->buffer[0].data);
        bq_stream_put(to, i, w->buffer[0]);
    }
    BQ_CHECK(good, "%s: %s", path,
             why[0] ? why : "a sample was damaged since the run began; the same command makes it again");
    bq_acts_close(acts);
}

/* A segment's QT stream starts as the boundary that the latest sweep before kept, or as the FP stream if
 * there is none. */
static void start_segment(bq_walk *w) {
    w->frozen = bq_sweep_frozen(w->s, w->sweep, w->block);
    if (w->frozen || !w->qt.open || bq_sweep_head(w->s, w->sweep, w->block, &w->qt, w->buffer[0])) return;
    for (int64_t i = 0; i < w->share.count && w->follows; i++)
        bq_stream_put(&w->qt, i, bq_stream_get(&w->fp, i, w->buffer[0]));
}

/* Keep the QT stream behind a segment's last block: the next segment starts from it in the next sweep. */
static void end_segment(bq_walk *w) {
    bq_run *s = w->s;
    int next = w->block + 1, blocks = s->src.arch.model.blocks;
    if (s->recipe.sweeps == 1 || w->phase + 1 < s->recipe.nphase || next == blocks ||
        !bq_grid_is_start(&s->grid, next))
        return;
    bq_walk_written(w); /* a kept head tells that the blocks before it are done */
    bq_sweep_keep(s, w->sweep, next, &w->qt, w->buffer[0]);
    double moved = bq_sweep_moved(s, w->sweep, next, &w->fp, w->buffer[0], w->buffer[1]);
    if (s->comm->replica == 0)
        bq_log_all(BQ_INFO, "sweep %d: the boundary before block %d moved by %.3g", w->sweep, next + 1,
                   moved);
}

/* All my samples of `from` through the block, or its core, with the matrices mats, into `to`. */
static void forward(bq_walk *w, const bq_mat *mats, bq_stream *from, bq_stream *to) {
    bq_dev *dev = &w->s->dev;
    bq_routed *routed = from == &w->qt ? &w->experts.qt : &w->experts.fp;
    for (int64_t i = 0; i < from->samples; i++) {
        dev->op->put(dev, bq_stream_get(from, i, w->buffer[0]), w->work.x);
        bq_block_forward(dev, &w->blk, mats, &w->work, w->work.x, w->work.y);
        if (w->blk.arch->experts) bq_routed_take(routed, i, &w->blk, &w->work);
        bq_walk_put(w, to, i, w->work.y);
    }
}

static void save_block(bq_walk *w) {
    bq_run *s = w->s;
    char path[BQ_PATH_MAX + 64];
    bool experts = w->blk.arch->experts > 0;
    (experts ? bq_ckpt_core_path : bq_ckpt_path)(path, sizeof path, s->dir, w->sweep, w->phase, w->block);
    if (s->comm->replica == 0)
        bq_walk_save(w, path);
    else
        bq_walk_settle(w);
    w->pending.any = true, w->pending.whole = !experts, w->pending.block = w->block;
}

static void open_walk(bq_walk *w, bq_run *s, int sweep, int phase, const bq_phase_hooks *hooks) {
    const bq_recipe *r = &s->recipe;
    const bq_arch *arch = bq_source_first(&s->src);
    bq_arena *mem = &s->dev.mem;
    int64_t t = r->calibration.length, h = arch->model.hidden;
    *w = (bq_walk){.s = s, .sweep = sweep, .phase = phase, .recipe = &r->phase[phase], .hooks = hooks};
    w->share = bq_run_share(s);
    w->blocks = bq_grid_blocks(&s->grid, s->comm->istage);
    int64_t n = w->share.count, tokens = arch->experts ? bq_recipe_expert_tokens(r) : 0;
    w->most = tokens / t >= r->calibration.samples ? tokens / t + 1 : r->calibration.samples;
    w->calibrated = bq_phase_calibrated(w->recipe);
    w->follows = bq_phase_follows(w->recipe, r->segments);
    bq_block_push(&w->blk, arch, mem);
    bq_quantized_push_any(&w->q, &s->layouts, bq_recipe_prescaled(r), mem);
    if (s->plan.ahead) w->ahead = bq_ahead_open(&s->src, &s->dev, s->plan.ahead);
    int64_t units = w->blocks.count; /* that this rank trains */
    for (int64_t b = w->blocks.first; b < w->blocks.first + w->blocks.count; b++)
        units += (bq_source_core(&s->src, (int)b)->experts + s->comm->nreplica - 1) / s->comm->nreplica;
    for (int i = 0; i < w->recipe->npass; i++) {
        const bq_pass *p = &w->recipe->pass[i];
        bq_training of = bq_pass_training(p, sweep);
        w->all += of.steps * units;
        w->limit = of.steps > w->limit ? of.steps : w->limit;
    }
    if (arch->experts) bq_experts_open(w);
    if (s->plan.pending) w->pending.room = malloc(s->plan.pending);
    BQ_CHECK(!s->plan.pending || w->pending.room, "no memory for a copy of a checkpoint of %zu bytes",
             s->plan.pending);
    if (!w->calibrated) return;
    bool backward = bq_phase_traits(w->recipe) & BQ_PASS_BACKWARD;
    bq_source_work(&s->src, arch, r->rope, &s->dev, t, backward, &w->work);
    if (w->recipe->activations && backward) w->raw_heads = bq_arena_push(mem, t, bq_arch_heads(arch), BQ_F32);
    w->loss = calloc((size_t)w->limit, sizeof *w->loss);
    w->batch = calloc((size_t)w->most + 2, sizeof *w->batch);
    BQ_CHECK(w->loss && w->batch, "no memory for the losses of %ld steps", (long)w->limit);
    w->room = bq_run_room(s, 3);
    for (int i = 0; i < 3; i++) w->buffer[i] = bq_mat_rows(w->room, i * t, t);
    if (w->follows) bq_stream_open(&w->fp, n, t, h, bq_run_home(s));
    if (w->follows) bq_stream_open(&w->target, n, t, h, bq_run_home(s));
    if (w->recipe->inputs != BQ_INPUTS_FP) bq_stream_open(&w->qt, n, t, h, bq_run_home(s));
}

static void close_walk(bq_walk *w, size_t mark) {
    bq_walk_settle(w);
    bq_progress_end();
    bq_ahead_close(w->ahead);
    bq_stream_close(&w->fp);
    bq_stream_close(&w->target);
    bq_stream_close(&w->qt);
    bq_experts_close(w);
    free(w->room.data);
    free(w->pending.room);
    free(w->loss);
    free(w->batch);
    bq_arena_reset(&w->s->dev.mem, mark);
}

/* What was done with a block. */
typedef enum { RESTORED, MADE, STOPPED } outcome;

/* A block of a frozen segment: only the FP stream passes it, for the segments behind. */
static outcome pass_frozen(bq_walk *w) {
    bq_run *s = w->s;
    bq_ahead_take(w->ahead, &s->src, &s->dev, w->block, &w->blk);
    forward(w, w->blk.w, &w->fp, &w->target);
    if (w->blk.arch->experts && bq_experts_pass(w)) return STOPPED;
    bq_stream_swap(&w->fp, &w->target);
    return RESTORED;
}

/* Does anybody read the block's FP outputs?  Behind the last block of a piece they are read only by passes
 * with targets, and with several sweeps by bq_sweep_moved. */
static bool wants_target(const bq_walk *w) {
    return w->follows &&
           (w->block + 1 < w->end || w->s->recipe.sweeps > 1 || bq_phase_traits(w->recipe) & BQ_PASS_TARGETS);
}

/* Can the first pass compute the targets?  It must read the FP stream and the original weights, and compute
 * as the reference does. */
static bool pass_makes_target(const bq_walk *w) {
    const bq_dev *dev = &w->s->dev;
    bool same = bq_dev_compute(dev, w->recipe->compute) == bq_dev_compute(dev, w->s->recipe.reference);
    return !w->recipe->activations && w->phase == 0 && w->sweep == 0 && same && bq_phase_hands_on(w->recipe);
}

static outcome do_block(bq_walk *w) {
    bq_run *s = w->s;
    double start = bq_seconds(), now = start;
    memset(w->seconds, 0, sizeof w->seconds);
    w->advanced = false;
    bool done = bq_state_done(s->state, w->sweep, w->phase, w->block);
    bq_comm_stage_bcast(s->comm, &done, sizeof done); /* as replica 0 sees it */
    if (done && !w->calibrated) return RESTORED;
    bq_quantized_turn(&w->q, bq_run_layout(s, w->block, 0));
    bool experts = w->q.arch->experts > 0, targets = wants_target(w) || (experts && w->follows);
    if (bq_grid_is_start(&s->grid, w->block)) start_segment(w);
    if (w->frozen) return pass_frozen(w);
    bq_ahead_take(w->ahead, &s->src, &s->dev, w->block, &w->blk);
    bq_source_prefetch(&s->src, w->block + 1);
    bq_ahead_start(w->ahead, w->block + 1);
    clock_to(w, LOAD, &now);
    w->makes_target = targets && !done && !experts && pass_makes_target(w);
    if (targets && !w->makes_target) forward(w, w->blk.w, &w->fp, &w->target);
    clock_to(w, TARGET, &now);
    if (bq_walk_stops(w)) return STOPPED;
    bq_walk_quantized(w, true);
    bool there = done || (experts && bq_experts_core(w));
    int stopped = there ? 0 : bq_walk_passes(w);
    bq_walk_quantized(w, false);
    if (stopped) return STOPPED;
    if (done) bq_walk_restore(w, w->phase, w->sweep, false);
    clock_to(w, PASSES, &now);
    if (!there) save_block(w);
    clock_to(w, SAVE, &now);
    bq_walk_quantized(w, true);
    if (w->qt.open && !w->advanced) forward(w, w->q.w_hat, &w->qt, &w->qt);
    bq_walk_quantized(w, false);
    if (experts && bq_experts_run(w, wants_target(w))) return STOPPED;
    if (w->follows) bq_stream_swap(&w->fp, &w->target);
    if (w->qt.open) end_segment(w);
    clock_to(w, ADVANCE, &now);
    if (experts) w->seconds[PASSES] += w->experts.seconds, w->seconds[ADVANCE] -= w->experts.seconds;
    if (!done) bq_account_block(w, now - start);
    if (!w->pending.out) bq_walk_settle(w);
    return done ? RESTORED : MADE;
}

/* Load the streams before a piece's first block.  False: a stop came while it waited for them. */
static bool start_piece(bq_walk *w, bq_piece piece) {
    bq_run *s = w->s;
    bq_boundary head = {w->sweep, w->phase, piece.first};
    w->frozen = false;
    if (!w->calibrated) return true;
    load_head(w, piece.first);
    if (!piece.takes) return true;
    w->frozen = bq_sweep_frozen(s, w->sweep, bq_grid_unit_start(&s->grid, piece.first));
    if (w->frozen || !w->qt.open) return true;
    if (!bq_boundary_await(s, head)) return false;
    bq_boundary_load(s, head, &w->qt, w->buffer[0]);
    return true;
}

/* last: it is the last piece of the run on this stage. */
static int do_piece(bq_walk *w, bq_piece piece, bool last) {
    bq_run *s = w->s;
    bq_boundary end = {w->sweep, w->phase, piece.end};
    if (!start_piece(w, piece)) return BQ_STOPPED;
    if (piece.takes && w->frozen) return BQ_OK;
    w->end = piece.end;
    for (w->block = piece.first; w->block < piece.end; w->block++) {
        bq_mark_open("block %d", w->block + 1);
        outcome got = do_block(w);
        bq_mark_close();
        if (got == MADE) s->made++;
        if (got == RESTORED) w->units += w->all / w->blocks.count;
        if (got == MADE && s->made == s->args->stop_after && !(last && w->block + 1 == piece.end))
            bq_stop_wanted = 1;
        if (got == STOPPED) return BQ_STOPPED;
    }
    if (!piece.gives || !w->qt.open || w->frozen) return BQ_OK;
    bq_walk_written(w); /* the next stage goes on when the blocks before it are done */
    bq_boundary_keep(s, end, &w->qt, w->buffer[0]);
    return BQ_OK;
}

/* Has this stage nothing left to do: is every block made or frozen, and every boundary kept?  Collective over
 * stage. */
static bool all_done(const bq_run *s, int sweep, int phase, bq_shard blocks) {
    bool frozen = false, chained = s->recipe.sweeps > 1 && phase + 1 == s->recipe.nphase;
    int all = s->src.arch.model.blocks, end = (int)(blocks.first + blocks.count);
    bq_boundary give = {sweep, phase, end};
    if (!bq_grid_is_start(&s->grid, (int)blocks.first))
        frozen = bq_sweep_frozen(s, sweep, bq_grid_unit_start(&s->grid, (int)blocks.first));
    for (int b = (int)blocks.first; b < end; b++) {
        bool head = bq_grid_is_start(&s->grid, b);
        if (head && b > blocks.first && chained && !frozen && !bq_sweep_kept(s, sweep, b)) return false;
        if (head) frozen = bq_sweep_frozen(s, sweep, b);
        bool made = bq_state_done(s->state, sweep, phase, b);
        bq_comm_stage_bcast(s->comm, &made, sizeof made);
        if (!frozen && !made) return false;
    }
    if (frozen || end == all) return true;
    if (bq_grid_is_start(&s->grid, end)) return !chained || bq_sweep_kept(s, sweep, end);
    return s->recipe.phase[phase].inputs == BQ_INPUTS_FP || bq_boundary_kept(s, give);
}

/* Has the phase a pass that scales inputs? */
static bool scales_inputs(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++)
        any |= !(bq_pass_traits(&phase->pass[i]) & (BQ_PASS_QUANTIZES | BQ_PASS_SPARSE));
    return any;
}

int bq_phase_run(bq_run *s, int sweep, int phase, const bq_phase_hooks *hooks) {
    size_t mark = bq_arena_mark(&s->dev.mem);
    int code = BQ_OK;
    bq_shard blocks = bq_grid_blocks(&s->grid, s->comm->istage);
    if (all_done(s, sweep, phase, blocks)) return BQ_OK;
    bq_walk w;
    bq_piece piece[BQ_PIECES];
    bq_run_computes(s, s->recipe.reference);
    open_walk(&w, s, sweep, phase, hooks);
    if (s->recipe.phase[phase].name[0]) bq_log(BQ_INFO, "phase %s", s->recipe.phase[phase].name);
    if (scales_inputs(w.recipe) && s->src.arch.experts)
        bq_log(BQ_WARN, "the input of experts keeps its scale: one scale for all experts and their router is "
                        "not searched");
    int pieces = bq_grid_pieces(&s->grid, s->comm->istage, piece);
    for (int i = 0; i < pieces && code == BQ_OK; i++)
        code = do_piece(&w, piece[i],
                        sweep + 1 == s->recipe.sweeps && phase + 1 == s->recipe.nphase && i + 1 == pieces);
    close_walk(&w, mark);
    bq_run_computes(s, BQ_COMPUTE_F32);
    return code;
}
