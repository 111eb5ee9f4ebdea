/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/experts.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "comm/treesum.h"
#include "driver/recipe/traits.h"
#include "driver/run/passes.h"
#include "driver/run/restore.h"
#include "kernels/mark.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bq_experts_open(bq_walk *w) {
    bq_run *s = w->s;
    bq_walk_experts *x = &w->experts;
    const bq_arch *core = &s->src.core;
    int64_t t = s->recipe.calibration.length, n = bq_run_share(s).count, experts = core->experts;
    x->tokens = calloc((size_t)experts, sizeof *x->tokens);
    x->before = calloc((size_t)(s->comm->nreplica + 1) * (size_t)experts, sizeof *x->before);
    x->loss = calloc((size_t)w->limit + 1, sizeof *x->loss);
    BQ_CHECK(x->tokens && x->before && x->loss, "no memory to count the tokens of %ld experts",
             (long)experts);
    x->alone = *s->comm;
    x->alone.stage = MPI_COMM_SELF;
    x->alone.replica = 0, x->alone.nreplica = 1, x->alone.nccl = NULL;
    bq_arch_of_expert(&s->src.arch.model, 0, &x->arch);
    if (!w->calibrated) return;
    bool qt = w->recipe->inputs != BQ_INPUTS_FP;
    if (w->follows) bq_routed_open(&x->fp, core, n, t, &s->dev, bq_run_home(s));
    if (qt) bq_routed_open(&x->qt, core, n, t, &s->dev, bq_run_home(s));
    for (int k = 0; k < BQ_STREAMS; k++)
        if (bq_phase_expert_rows(w->recipe, (bq_stream_id)k))
            bq_stream_open(&x->rows[k], 1, bq_recipe_expert_tokens(&s->recipe), core->model.hidden,
                           bq_run_home(s));
    if (s->comm->nreplica > 1) bq_block_push(&x->guest, &x->arch, &s->dev.mem);
}

void bq_experts_close(bq_walk *w) {
    bq_walk_experts *x = &w->experts;
    bq_routed_close(&x->fp);
    bq_routed_close(&x->qt);
    for (int k = 0; k < BQ_STREAMS; k++) bq_stream_close(&x->rows[k]);
    free(x->tokens);
    free(x->before);
    free(x->loss);
}

/* Is the file of that unit there?  One that does not count is logged. */
static bool whole(const bq_walk *w, const char *path, int unit) {
    bq_ckpt_file *f;
    bq_ckpt head;
    char why[BQ_WHY];
    int found = bq_ckpt_open_at(&f, path, w->s->fingerprint, (bq_ckpt_at){w->sweep, w->phase, w->block, unit},
                                &head, why);
    bq_ckpt_close(f);
    if (found != BQ_CKPT_OK && found != BQ_CKPT_ABSENT)
        bq_log_all(BQ_WARN, "'%s' is made again: %s", path, why);
    return found == BQ_CKPT_OK;
}

bool bq_experts_core(bq_walk *w) {
    char path[BQ_PATH_MAX + 64];
    bq_run *s = w->s;
    void (*const name[])(char *, size_t, const char *, int, int, int) = {bq_ckpt_core_path, bq_ckpt_path};
    int found = 0; /* of replica 0 */
    for (bool there = s->comm->replica > 0; !there && found < 2; found += !there) {
        name[found](path, sizeof path, s->dir, w->sweep, w->phase, w->block);
        there = whole(w, path, 0);
    }
    bq_comm_stage_bcast(s->comm, &found, sizeof found);
    if (found == 2) return false;
    name[found](path, sizeof path, s->dir, w->sweep, w->phase, w->block);
    bq_restore(s, &s->dev, path, &w->blk, &w->q, false);
    return true;
}

/* ---- applying experts to the streams ---- */

/* Give all replicas a matrix of one of them: mine, or `guest` where it comes to. */
static void share(bq_walk *w, int owner, bq_mat mine, bq_mat guest) {
    const bq_comm *c = w->s->comm;
    bq_mat m = c->replica == owner ? mine : guest;
    int64_t first[BQ_REPLICAS + 1];
    for (int r = 0; r <= c->nreplica; r++) first[r] = r > owner ? m.rows : 0;
    bq_comm_gather_slices(c, &w->s->dev, m, first);
}

/* Add the experts of a round to a stream; mats: my expert's matrices, with the biases of w->blk. */
static void add_round(bq_walk *w, int base, const bq_mat *mats, bq_routed *routed, bq_stream *to) {
    bq_run *s = w->s;
    bq_walk_experts *x = &w->experts;
    size_t mark = bq_arena_mark(&s->dev.mem);
    bq_work_push(&x->work, &x->arch, routed->n.tokens, false, &s->dev.mem);
    x->work.inputs = w->work.inputs;
    for (int r = 0; r < s->comm->nreplica && base + r < routed->experts; r++) {
        bool mine = r == s->comm->replica;
        if (s->comm->nreplica > 1) {
            bq_arch_of_expert(&s->src.arch.model, base + r, &x->other);
            bq_block_turn(&x->guest, &x->other, w->block);
            for (int m = 0; m < x->other.sites; m++) {
                share(w, r, mats[m], x->guest.w[m]);
                if (x->other.site[m].bias_rows) share(w, r, w->blk.bias[m], x->guest.bias[m]);
            }
        }
        for (int64_t i = 0; i < routed->n.samples; i++) {
            bq_routed_add(routed, i, mine ? &w->blk : &x->guest, mine ? mats : x->guest.w, &x->work, to);
            bq_run_stopped();
        }
    }
    bq_arena_reset(&s->dev.mem, mark);
}

static void check_stream(bq_walk *w, bq_stream *stream, const char *name) {
    for (int64_t i = 0; i < stream->samples; i++)
        bq_run_finite(w->s, bq_stream_get(stream, i, w->buffer[0]), w->block, w->share.first + i, name);
}

/* ---- making experts ---- */

/* What the original expert computes of its FP inputs. */
static void make_targets(bq_walk *w) {
    bq_walk_experts *x = &w->experts;
    bq_dev *dev = &w->s->dev;
    for (int64_t i = 0; i < x->samples; i++) {
        bq_mat in = bq_mat_rows(w->buffer[BQ_STREAM_FP], 0, x->length),
               out = bq_mat_rows(w->buffer[BQ_STREAM_TARGET], 0, x->length);
        in = bq_stream_get(&x->view[BQ_STREAM_FP], i, in);
        if (x->view[BQ_STREAM_TARGET].data) out = bq_stream_get(&x->view[BQ_STREAM_TARGET], i, out);
        bq_block_sample(dev, &w->blk, w->blk.w, &x->work, in, out);
        bq_stream_put(&x->view[BQ_STREAM_TARGET], i, out);
    }
}

/* Run the passes on my expert, whose original weights are in w->blk, and write its checkpoint.  Local. */
static int make(bq_walk *w, const char *path) {
    bq_run *s = w->s;
    bq_walk_experts *x = &w->experts;
    bool backward = bq_phase_traits(w->recipe) & BQ_PASS_BACKWARD;
    size_t mark = bq_arena_mark(&s->dev.mem);
    if (x->samples) bq_work_push(&x->work, &x->arch, x->length, backward, &s->dev.mem);
    if (x->samples && x->rows[BQ_STREAM_TARGET].open) make_targets(w);
    bq_walk_quantized(w, true);
    int code = bq_walk_passes_expert(w);
    bq_walk_quantized(w, false);
    bq_arena_reset(&s->dev.mem, mark);
    if (!code) bq_walk_save(w, path);
    return code;
}

/* Read my expert of a round.  False: the round has none for me. */
static bool read_expert(bq_walk *w, int base) {
    bq_run *s = w->s;
    bq_walk_experts *x = &w->experts;
    int e = base + s->comm->replica, experts = s->src.core.experts;
    x->samples = x->length = 0;
    if (e >= experts) return false;
    bq_arch_of_expert(&s->src.arch.model, e, &x->arch);
    x->layout = *bq_run_layout(s, w->block, 1);
    x->layout.arch = &x->arch;
    bq_quantized_turn(&w->q, &x->layout);
    bq_source_unit(&s->src, &s->dev, w->block, &x->arch, &w->blk);
    if (e + s->comm->nreplica < experts) {
        bq_arch_of_expert(&s->src.arch.model, e + s->comm->nreplica, &x->other);
        bq_source_prefetch_unit(&s->src, w->block, &x->other);
    }
    return true;
}

static int round_of(bq_walk *w, int base, bool targets) {
    bq_run *s = w->s;
    bq_walk_experts *x = &w->experts;
    char path[BQ_PATH_MAX + 64];
    double wants[BQ_REPLICAS] = {0};
    bool mine = read_expert(w, base), stopped = false;
    bq_ckpt_expert_path(path, sizeof path, s->dir, w->sweep, w->phase, w->block, base + s->comm->replica);
    bool there = mine && whole(w, path, bq_arch_unit(&x->arch));
    wants[s->comm->replica] = mine && !there;
    bq_comm_fill(s->comm, wants, s->comm->nreplica);
    if (w->calibrated) bq_experts_collect(w, base, wants);
    if (targets) add_round(w, base, w->blk.w, &x->fp, &w->target);
    if (there) bq_restore(s, &s->dev, path, &w->blk, &w->q, false);
    bq_mark_open("expert %d", base + s->comm->replica);
    double start = bq_seconds();
    if (mine && !there) stopped = make(w, path) != BQ_OK;
    x->seconds += bq_seconds() - start;
    bq_mark_close();
    if (bq_comm_stage_any(s->comm, stopped || bq_run_stopped())) return BQ_STOPPED;
    if (!w->qt.open) return BQ_OK;
    bq_walk_quantized(w, true);
    add_round(w, base, w->q.w_hat, &x->qt, &w->qt);
    bq_walk_quantized(w, false);
    return BQ_OK;
}

/* All files are there, when the last ones are on disk. */
static void finish(bq_walk *w) {
    bq_run *s = w->s;
    bq_walk_settle(w);
    bq_comm_stage_barrier(s->comm);
    if (s->comm->replica == 0) bq_ckpt_finish(s->dir, w->sweep, w->phase, w->block);
    bq_comm_stage_barrier(s->comm);
    bq_state_mark(s->state, w->sweep, w->phase, w->block);
}

int bq_experts_run(bq_walk *w, bool targets) {
    bq_walk_experts *x = &w->experts;
    int code = BQ_OK;
    double *loss = w->loss;
    x->seconds = 0;
    int64_t steps = w->steps;
    if (w->calibrated) bq_experts_count(w);
    bq_walk_start(w, &x->from_phase, &x->from_sweep);
    w->loss = x->loss; /* w->loss keeps those of the core */
    for (int base = 0; base < w->s->src.core.experts && !code; base += w->s->comm->nreplica)
        code = round_of(w, base, targets);
    w->loss = loss, w->steps = steps;
    if (code) return code;
    if (targets) check_stream(w, &w->target, "original");
    if (w->qt.open) check_stream(w, &w->qt, "quantized");
    finish(w);
    return BQ_OK;
}

int bq_experts_pass(bq_walk *w) {
    const bq_comm *c = w->s->comm;
    for (int base = 0; base < w->s->src.core.experts; base += c->nreplica) {
        read_expert(w, base);
        add_round(w, base, w->blk.w, &w->experts.fp, &w->target);
        if (bq_walk_stops(w)) return BQ_STOPPED;
    }
    check_stream(w, &w->target, "original");
    return BQ_OK;
}
