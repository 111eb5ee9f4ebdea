/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/passes.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "block/common/narrow.h"
#include "driver/recipe/traits.h"
#include "driver/streams/sweep.h"
#include "io/state/checkpoint.h"
#include "kernels/mark.h"

#include <math.h>
#include <stdio.h>

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    bq_walk *w = ctx;
    bq_stream *const from[] = {
        [BQ_STREAM_FP] = &w->fp, [BQ_STREAM_QT] = &w->qt, [BQ_STREAM_TARGET] = &w->target};
    return bq_stream_get(from[stream], sample - w->share.first, w->buffer[stream]);
}

static void advance(void *ctx, int64_t sample, bq_mat y) {
    bq_walk *w = ctx;
    bq_walk_put(w, &w->qt, sample - w->share.first, y);
    w->advanced = true;
}

static void target(void *ctx, int64_t sample, bq_mat y) {
    bq_walk *w = ctx;
    bq_walk_put(w, &w->target, sample - w->share.first, y);
}

static void step(void *ctx, int64_t at, int64_t steps, double loss) {
    bq_walk *w = ctx;
    char note[80];
    (void)steps;
    bq_walk_poll(w);
    w->units = w->before + at;
    int n = snprintf(note, sizeof note, "block %d/%d", w->block + 1, w->s->src.arch.model.blocks);
    if (!isnan(loss)) snprintf(note + n, sizeof note - (size_t)n, "  loss %.4g", loss);
    bq_progress(w->units, w->all, note);
}

static void trained(void *ctx, int linear, const bq_trained *values) {
    bq_walk *w = ctx;
    w->hooks->trained(w->hooks->ctx, w->block, linear, values);
}

void bq_walk_start(bq_walk *w, int *phase, int *sweep) {
    *phase = w->sweep ? w->phase : w->phase - 1;
    *sweep = *phase < 0 ? 0 : bq_sweep_start(w->s, *phase, w->block, w->sweep + (*phase < w->phase));
}

/* Restore what the passes start from.  False: they start from the model's weights, without a grid. */
static bool restore_start(bq_walk *w, int phase, int sweep) {
    bq_dev *dev = &w->s->dev;
    if (phase < 0) return false;
    bq_walk_restore(w, phase, sweep, true);
    for (int m = 0; m < w->q.arch->sites; m++) dev->op->copy(dev, w->q.fold[m], w->blk.w[m]);
    return true;
}

/* From the replica that quantizes the unit. */
static void warn_not_finite(const bq_walk *w, const char *pass) {
    char expert[24] = "";
    int unit = bq_arch_unit(w->q.arch);
    if (!unit && w->s->comm->replica) return;
    if (unit) snprintf(expert, sizeof expert, ", expert %d", unit - 1);
    bq_log_all(BQ_WARN, "block %d%s: the loss became NaN or infinite; %s left %s as it was", w->block + 1,
               expert, pass, unit ? "it" : "the block");
}

/* Run one pass.  w->steps changes only if the pass trains. */
static int64_t apply(bq_walk *w, bq_pass_context *c, const bq_pass *p) {
    const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
    w->before = w->units;
    bq_mark_open("%s", kind->name);
    int64_t steps = bq_pass_training(p, w->sweep).steps, done = kind->run(c, p->options);
    bq_mark_close();
    w->units = w->before + steps;
    if (done == BQ_PASS_NOT_FINITE) warn_not_finite(w, kind->name);
    if (steps) w->steps = done < 0 ? 0 : done;
    if (!(kind->traits & BQ_PASS_QUANTIZES) || done == BQ_PASS_STOPPED) return done;
    for (int m = 0; m < w->q.arch->sites; m++) c->dev->op->copy(c->dev, w->q.fold[m], w->blk.w[m]);
    c->grid = true;
    return done;
}

/* Once a phase, on its first block: log how products are computed if not in f32, and the error of that. */
static void say_compute(bq_walk *w, bq_pass_context *c) {
    bq_compute wanted = w->recipe->compute, used = bq_dev_compute(c->dev, wanted);
    double nmse[BQ_SITES];
    if (wanted == BQ_COMPUTE_F32 || !w->calibrated || w->said || c->comm->rank) return;
    w->said = true;
    if (used != wanted)
        bq_log(BQ_INFO, "compute: %s is made in %s here, which is not less exact", bq_compute_name(wanted),
               bq_compute_name(used));
    if (used == BQ_COMPUTE_F32) return;
    bq_narrow_error(c, used, nmse);
    char text[24 * BQ_SITES];
    for (int m = 0, n = 0; m < w->q.arch->sites; m++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s %s %.2g", m ? "," : "",
                      bq_role_name(w->q.arch->site[m].role), nmse[m]);
    bq_log(BQ_INFO, "compute: block %d's linears in %s, against f32: nmse%s", w->block + 1,
           bq_compute_name(used), text);
}

/* The samples of an expert. */
static bq_mat fetch_expert(void *ctx, bq_stream_id stream, int64_t sample) {
    bq_walk *w = ctx;
    const bq_walk_experts *x = &w->experts;
    return bq_stream_get(&x->view[stream], sample, bq_mat_rows(w->buffer[stream], 0, x->length));
}

static bq_pass_context context_of(bq_walk *w) {
    bq_run *s = w->s;
    const bq_recipe *r = &s->recipe;
    return (bq_pass_context){.comm = s->comm,
                             .batch = w->batch,
                             .losses = w->loss,
                             .dev = &s->dev,
                             .blk = &w->blk,
                             .work = &w->work,
                             .q = &w->q,
                             .samples = r->calibration.samples,
                             .tokens = r->calibration.length,
                             .keeps = s->plan.keeps,
                             .input = w->recipe->inputs,
                             .mix = w->recipe->mix,
                             .fetch = fetch,
                             .step = step,
                             .stop = &bq_stop_wanted,
                             .trained = w->hooks ? trained : NULL,
                             .ctx = w};
}

/* Pass i, unless it does not run in this sweep. */
static int64_t run_pass(bq_walk *w, bq_pass_context *c, int i, uint64_t seed) {
    const bq_pass *p = &w->recipe->pass[i];
    if (w->sweep && !(bq_pass_traits(p) & BQ_PASS_TRAINS)) return 0; /* later sweeps only train */
    c->at = (bq_rng_key){.seed = seed,
                         .sweep = (uint32_t)w->sweep,
                         .phase = (uint32_t)(w->phase + BQ_RNG_PASS_STRIDE * i),
                         .block = (uint32_t)w->block};
    return apply(w, c, p);
}

int bq_walk_passes(bq_walk *w) {
    bq_run *s = w->s;
    bq_pass_context c = context_of(w);
    bool experts = w->q.arch->experts > 0;
    int phase, sweep;
    say_compute(w, &c);
    bq_walk_start(w, &phase, &sweep);
    c.grid = restore_start(w, phase, sweep);
    w->steps = 0;
    bq_midblock_begin(&w->inside, s, &w->q, w->sweep, w->phase, w->block, w->limit);
    for (int i = 0; i < w->recipe->npass; i++) {
        if (i && bq_walk_stops(w)) return BQ_STOPPED;
        c.keeper = bq_midblock_pass(&w->inside, i);
        c.advance = !experts && bq_pass_advances(w->recipe, i) ? advance : NULL;
        c.target = i == 0 && w->makes_target ? target : NULL;
        if (run_pass(w, &c, i, s->recipe.seed) == BQ_PASS_STOPPED) return BQ_STOPPED;
    }
    return BQ_OK;
}

int bq_walk_passes_expert(bq_walk *w) {
    bq_walk_experts *x = &w->experts;
    const bq_recipe *r = &w->s->recipe;
    const uint64_t seed[] = {r->seed, (uint64_t)bq_arch_unit(&x->arch)};
    bq_pass_context c = context_of(w);
    c.comm = &x->alone;
    c.work = &x->work, c.fetch = fetch_expert, c.samples = x->samples, c.tokens = x->length, c.keeps = 0;
    c.trained = NULL;
    c.grid = restore_start(w, x->from_phase, x->from_sweep);
    w->steps = 0;
    bool blind = w->calibrated && !x->samples; /* passes without data run all the same */
    if (blind && !c.grid) bq_pass_rtn(&c);
    for (int i = 0; i < w->recipe->npass; i++) {
        if (i && bq_run_stopped()) return BQ_STOPPED;
        const bq_pass *p = &w->recipe->pass[i];
        void (*alone)(bq_pass_context *, const void *) = bq_pass_kind_at(p->kind)->blind;
        if (blind && alone) alone(&c, p->options);
        if (blind && (alone || bq_pass_traits(p) & BQ_PASS_CALIBRATED)) continue;
        if (run_pass(w, &c, i, bq_hash_bytes(seed, sizeof seed)) == BQ_PASS_STOPPED) return BQ_STOPPED;
    }
    return BQ_OK;
}
