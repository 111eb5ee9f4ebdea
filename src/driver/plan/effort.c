/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/effort.h"

#include "base/shard.h"
#include "block/common/cayley.h"
#include "driver/plan/distill.h"
#include "driver/plan/learned.h"
#include "driver/plan/mixed.h"
#include "driver/recipe/traits.h"

#include <math.h>

/* The units with one layout. */
typedef struct {
    const bq_recipe *r;
    bq_cost cost;    /* of the busiest rank */
    double blocks;   /* units that this rank quantizes, */
    double stage;    /* that its stage has, */
    double all;      /* that the model has */
    double part;     /* of the tokens that pass through such a unit */
    double replicas; /* of the stage */
} share;

/* A stage before the last one.  Each rank reads all units of the stage, and again for each micro-batch; a
 * block with experts, of which one unit is in memory, even where it is alone.  Its next stage waits for that,
 * too. */
static void count_reference(bq_effort *e, const share *s, const bq_comm *grid, double micro, bool split) {
    bq_effort f = bq_effort_as(bq_effort_forward(s->cost.arch, s->cost.tokens), s->r->reference);
    bool experts = s->cost.arch->experts || s->cost.arch->kind == BQ_UNIT_EXPERT;
    double samples = (double)bq_shard_of(s->r->calibration.samples, 0, grid->nreplica).count;
    if (grid->nstage == 1) return;
    if (split) {
        double all = s->stage * (grid->nstage - 1);
        samples = (double)bq_shard_of(s->r->calibration.samples, 0, grid->size).count;
        bq_effort_add(e, all * samples * s->part, f);
        e->files += all * 2 * s->cost.weights;
        return;
    }
    double walks = s->stage > 1 || experts ? ceil(samples / micro) : 1;
    bq_effort_add(e, s->stage * samples * s->part, f);
    e->files += (walks + (experts ? grid->nstage - 2 : 0)) * s->stage * 2 * s->cost.weights;
    e->idle += (grid->nstage - 2) * s->stage * micro * s->part * bq_effort_flop(&f);
    if (s->cost.arch->kind == BQ_UNIT_EXPERT) return;
    e->passed += 4 * s->cost.tokens * (double)s->cost.arch->model.hidden * samples;
    e->messages += ceil(samples / micro);
}

/* A forward of the block for each scheme at each site, shared by the ranks, and one of the original. */
static void count_schemes(bq_effort *e, const share *s, const bq_comm *grid, int sites) {
    double samples = (double)bq_mixed_samples(s->r),
           tries = 1 + ceil((double)sites * s->r->bits.mixed.count / grid->size);
    if (samples == 0) return;
    bq_effort_add(e, s->all * samples * s->part * tries, bq_effort_forward(s->cost.arch, s->cost.tokens));
    e->files += s->all * tries * 2 * s->cost.weights;
}

/* Steps of training rotations: the original and the rounded block forward, the latter backward; products of
 * all weights with a rotation, there and back, and of their gradients with D for each sample; gradients to
 * all ranks. */
static void count_rotations(bq_effort *e, const share *s, const bq_comm *grid) {
    const bq_model *m = &s->cost.arch->model;
    const bq_learned_size size = bq_learned_size_of(s->r, m);
    double samples = (double)bq_shard_of(bq_recipe_learn_batch(s->r), 0, grid->size).count,
           blocks = s->all * (double)size.steps, turns = 2 * s->cost.weights * (double)(size.h + size.d);
    if (blocks == 0) return;
    bq_effort_add(e, 2 * blocks * samples, bq_effort_forward(s->cost.arch, s->cost.tokens));
    bq_effort_add(e, blocks * samples, bq_effort_backward(s->cost.arch, s->cost.tokens));
    e->flop[BQ_RATE_PRODUCTS] += blocks * turns * (2 + samples);
    e->memory += blocks * 4 * s->cost.weights * 8;
    e->files += blocks * 2 * s->cost.weights;
    e->sent += grid->size > 1 ? blocks * 8 * (double)(bq_learned_rows(size) * bq_learned_cols(size)) : 0;
}

/* The step itself (cayley.h). */
static void count_cayley(bq_effort *e, const bq_recipe *r, const bq_model *m) {
    const bq_learned_size size = bq_learned_size_of(r, m);
    double cubes = pow((double)size.h, 3) + (double)size.blocks * pow((double)size.d, 3);
    e->flop[BQ_RATE_PRODUCTS] += (double)size.steps * 2 * BQ_CAYLEY_PRODUCTS * cubes;
}

/* Walks of all samples through a block for targets: none in a first sweep whose first pass makes them, none
 * for targets of a last block that no pass reads. */
static double targets(const share *s, const bq_phase *phase) {
    bool passes = phase == s->r->phase && phase->compute == s->r->reference && bq_phase_hands_on(phase);
    bool all = s->r->sweeps > 1 || bq_phase_traits(phase) & BQ_PASS_TARGETS;
    if (!bq_phase_follows(phase, s->r->segments)) return 0;
    return s->blocks * (s->r->sweeps - 1) + (passes ? 0 : s->blocks - !all);
}

/* Messages of experts: their weights to all replicas, original for targets and quantized for the quantized
 * stream; their tokens to the replica that quantizes them. */
static void count_messages(bq_effort *e, const share *s, const bq_phase *phase) {
    if (s->cost.arch->kind != BQ_UNIT_EXPERT || s->replicas == 1) return;
    double weights = 4 * s->cost.weights * s->stage * s->r->sweeps;
    double tokens = fmin(s->cost.samples * s->cost.tokens, (double)bq_recipe_expert_tokens(s->r));
    int streams = bq_phase_expert_rows(phase, BQ_STREAM_FP) + bq_phase_expert_rows(phase, BQ_STREAM_QT);
    e[BQ_WORK_TARGETS].sent += targets(s, phase) > 0 ? weights : 0;
    e[BQ_WORK_ADVANCE].sent += phase->inputs != BQ_INPUTS_FP ? weights : 0;
    e[BQ_WORK_PASSES].sent += 4 * streams * s->r->sweeps * s->blocks * tokens *
                              (double)s->cost.arch->model.hidden * (1 - 1 / s->replicas);
}

/* Bytes of a unit's checkpoint: packed codes, scales and zero points, and the fold where a later phase or
 * sweep reads it. */
static double checkpoint(const bq_layout *layout, bool fold) {
    double sum = 0;
    for (int i = 0; i < layout->arch->linears; i++) {
        const bq_linear *l = &layout->arch->linear[i];
        const bq_scheme s = layout->scheme[i];
        double scales = (double)(l->rows * bq_linear_groups(layout->arch, layout->scheme, i));
        sum += (double)(l->rows * l->cols) * (bq_code_bits(s) / 8.0 + (fold ? 4 : 0)) +
               4 * scales * (s.symmetric ? 1 : 2);
    }
    return sum;
}

/* The first replica writes those of its stage; of experts each writes its own. */
static void count_saves(bq_effort *e, const share *s, const bq_layout *layout) {
    bool expert = layout->arch->kind == BQ_UNIT_EXPERT;
    for (int p = 0; p < s->r->nphase; p++)
        for (int k = p + 1 < s->r->nphase ? s->r->sweeps - 1 : 0; k < s->r->sweeps; k++) {
            double units = expert ? s->blocks : s->stage;
            e->written += units * checkpoint(layout, bq_recipe_continues(s->r, p, k));
            e->saves += units;
        }
}

static void count_phase(bq_effort *e, const share *s, const bq_phase *phase) {
    int sweeps = s->r->sweeps;
    double walk = s->blocks * s->cost.samples * sweeps;
    bq_effort one = bq_effort_forward(s->cost.arch, s->cost.tokens), f = bq_effort_as(one, phase->compute);
    bq_effort_add(&e[BQ_WORK_TARGETS], targets(s, phase) * s->cost.samples,
                  bq_effort_as(one, s->r->reference));
    e[BQ_WORK_TARGETS].files += s->blocks * sweeps * 2 * s->cost.weights;
    if (phase->inputs != BQ_INPUTS_FP && !bq_pass_advances(phase, phase->npass - 1))
        bq_effort_add(&e[BQ_WORK_ADVANCE], walk, f);
    else if (phase->inputs != BQ_INPUTS_FP) { /* the pass, in the first sweep */
        bq_effort_add(&e[BQ_WORK_ADVANCE], s->blocks,
                      bq_effort_as(bq_effort_midway(&s->cost, s->cost.arch->sites), phase->compute));
        bq_effort_add(&e[BQ_WORK_ADVANCE], walk - s->blocks * s->cost.samples, f);
    }
    for (int i = 0; i < phase->npass; i++) {
        const bq_pass *p = &phase->pass[i];
        const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
        int64_t all = bq_pass_training(p, 0).steps + (sweeps - 1) * bq_pass_training(p, 1).steps;
        if (kind->cost)
            bq_effort_add(&e[BQ_WORK_PASSES], s->blocks,
                          bq_effort_as(kind->cost(p->options, &s->cost), phase->compute));
        if (kind->step_cost)
            bq_effort_add(&e[BQ_WORK_TRAINING], s->blocks * (double)all,
                          bq_effort_as(kind->step_cost(p->options, &s->cost), phase->compute));
    }
    count_messages(e, s, phase);
}

/* A step of a stage: two forwards and a backward of each sample, in micro-batches, for which the blocks are
 * read twice; other stages wait for the first and the last of them.  Once the original's forward of all
 * samples. */
static void count_distill(bq_effort *e, const share *s, const bq_comm *grid, double micro) {
    const bq_distill *o = &s->r->distill;
    double steps = (double)o->steps, samples = ceil((double)o->batch / grid->nreplica),
           walks = grid->nstage > 1 ? ceil(samples / micro) : 1, hidden = (double)s->cost.arch->model.hidden;
    bq_effort f = bq_effort_as(bq_effort_forward(s->cost.arch, s->cost.tokens), o->compute),
              b = bq_effort_as(bq_effort_backward(s->cost.arch, s->cost.tokens), o->compute);
    if (!o->steps) return;
    bq_effort_add(e, s->stage * (s->cost.samples + 2 * steps * samples), f);
    bq_effort_add(e, s->stage * steps * samples, b);
    e->files += s->stage * (4 + 2 * steps * walks) * s->cost.weights; /* the original's, and codes */
    e->memory += s->stage * 2 * steps * walks * 16 * s->cost.weights;
    if (grid->nstage == 1) return;
    e->passed += 4 * s->cost.tokens * hidden * (s->cost.samples + 2 * steps * samples);
    e->idle += (grid->nstage - 1) * s->stage * steps * fmin(micro, samples) *
               (2 * bq_effort_flop(&f) + bq_effort_flop(&b));
}

/* Logits of both models, and the gradient, at the last stage. */
static double head_flop(const bq_recipe *r, const bq_model *m, const bq_comm *grid) {
    double tokens = (double)bq_distill_positions(r) * ceil((double)r->distill.batch / grid->nreplica);
    return r->distill.steps ? (double)r->distill.steps * 6 * tokens * (double)(m->vocab * m->hidden) : 0;
}

/* Original, round to nearest and result. */
static void count_eval(bq_effort *e, const share *s, const bq_comm *grid, const bq_eval *eval) {
    const bq_arch *arch = s->cost.arch;
    double sequences = (double)bq_shard_of(eval->sequences, 0, grid->size).count;
    bq_effort_add(e, 3 * sequences * s->part * s->all, bq_effort_forward(arch, (double)eval->ctx));
    e->files += 3 * s->all * 2 * s->cost.weights;
}

static void count_head(bq_effort *e, const bq_model *m, const bq_comm *grid, const bq_eval *eval) {
    double sequences = (double)bq_shard_of(eval->sequences, 0, grid->size).count;
    e->flop[BQ_RATE_PRODUCTS] += 3 * sequences * 2 * (double)(eval->ctx * m->vocab * m->hidden);
}

/* An expert is one replica's. */
static void make_experts(share *s, const bq_model *m) {
    s->part = (double)m->chosen / m->experts, s->all *= m->experts, s->stage *= m->experts;
    s->cost.samples = (double)s->r->calibration.samples * s->part;
    s->blocks = ceil(s->stage / s->replicas);
    s->cost.replicas = 1, s->cost.kept = 0;
}

/* The sites of a block with a unit of that layout. */
static int sites_of(const bq_layouts *layouts, const bq_arch *arch) {
    bool experts = arch->experts || arch->kind == BQ_UNIT_EXPERT;
    return experts ? layouts->at[0].arch->sites + layouts->at[layouts->count - 1].arch->sites : arch->sites;
}

/* Number of the model's blocks with that layout. */
static int blocks_of(const bq_layouts *layouts, const bq_arch *arch) {
    const bq_model *m = &layouts->at[0].arch->model;
    int dense = 0;
    for (int b = 0; b < m->blocks && m->experts; b++) dense += m->dense[b];
    return m->experts && !arch->experts && arch->kind == BQ_UNIT_BLOCK ? dense : m->blocks - dense;
}

void bq_effort_count(bq_effort e[BQ_WORKS], const bq_recipe *r, const bq_layouts *layouts,
                     const bq_comm *grid, int64_t micro, bool split, const bq_evals *evals, int64_t keeps) {
    const bq_model *m = &layouts->at[0].arch->model;
    for (int k = 0; k < BQ_WORKS; k++) e[k] = (bq_effort){0};
    for (int k = 0; k < layouts->count; k++) {
        const bq_arch *arch = layouts->at[k].arch;
        int blocks = blocks_of(layouts, arch);
        share s = {.r = r,
                   .blocks = ceil((double)blocks / grid->nstage),
                   .stage = ceil((double)blocks / grid->nstage),
                   .all = blocks,
                   .replicas = grid->nreplica,
                   .part = 1,
                   .cost = {.arch = arch,
                            .samples = (double)bq_shard_of(r->calibration.samples, 0, grid->nreplica).count,
                            .replicas = grid->nreplica,
                            .weights = (double)bq_arch_weights(arch),
                            .tokens = (double)r->calibration.length,
                            .kept = (double)keeps}};
        if (arch->kind == BQ_UNIT_EXPERT) make_experts(&s, m);
        bool calibrated = false;
        count_saves(&e[BQ_WORK_SAVE], &s, &layouts->at[k]);
        for (int p = 0; p < r->nphase; p++) {
            if (!bq_phase_calibrated(&r->phase[p])) continue;
            calibrated = true;
            count_phase(e, &s, &r->phase[p]);
        }
        count_rotations(&e[BQ_WORK_ROTATIONS], &s, grid);
        count_distill(&e[BQ_WORK_DISTILL], &s, grid, (double)micro);
        count_schemes(&e[BQ_WORK_SCHEMES], &s, grid, sites_of(layouts, arch));
        if (calibrated) count_reference(&e[BQ_WORK_REFERENCE], &s, grid, (double)micro, split);
        for (int i = 0; i < evals->count; i++) count_eval(&e[BQ_WORK_EVAL], &s, grid, &evals->eval[i]);
    }
    count_cayley(&e[BQ_WORK_ROTATIONS], r, m);
    e[BQ_WORK_DISTILL].flop[BQ_RATE_PRODUCTS + r->distill.compute] += head_flop(r, m, grid);
    for (int i = 0; i < evals->count; i++) count_head(&e[BQ_WORK_EVAL], m, grid, &evals->eval[i]);
}
