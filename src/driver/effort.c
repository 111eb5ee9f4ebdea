#include "driver/effort.h"

#include "base/shard.h"
#include "driver/methods.h"

#include <math.h>

typedef struct {
    const bq_recipe *r;
    const bq_arch *arch;
    double blocks, samples, replicas; /* of the busiest rank; of its stage */
    double weights;                   /* of a block */
    double tokens;
    double kept; /* samples, midway */
} share;

static void add(bq_effort *to, double times, bq_effort e) {
    to->flop += times * e.flop, to->flop64 += times * e.flop64, to->memory += times * e.memory;
    to->sent += times * e.sent, to->messages += times * e.messages, to->idle += times * e.idle;
    to->files += times * e.files;
}

/* Bytes of f32 arrays that ops other than GEMMs read and write for one sample in one block: norms, rope,
 * attention, gating, residuals; and the GEMMs their weights. */
static double traffic(const bq_arch *arch, double tokens) {
    const bq_model *m = &arch->model;
    return 4 * tokens * (double)(12 * m->hidden + 3 * m->inter + 3 * arch->rows[BQ_QKV]) +
           4 * (double)bq_arch_weights(arch);
}

/* One sample of T tokens through one block: linears, and causal attention. */
static bq_effort forward(const bq_arch *arch, double tokens) {
    const bq_model *m = &arch->model;
    return (bq_effort){.flop = 2 * tokens * (double)bq_arch_weights(arch) +
                               2 * tokens * tokens * (double)(m->heads * m->head_dim),
                       .memory = traffic(arch, tokens)};
}

/* The same to before matrix `to`. */
static bq_effort forward_to(const bq_arch *arch, double tokens, int to) {
    double rest = 0;
    bq_effort f = forward(arch, tokens);
    for (int m = to; m < BQ_MATS; m++) rest += 2 * tokens * (double)(arch->rows[m] * arch->cols[m]);
    if (to <= BQ_QKV) rest = f.flop;
    f.memory *= 1 - rest / f.flop;
    f.flop -= rest;
    return f;
}

/* To before matrix `to` from before the one ahead of it, where a sample is kept, else from the block's input.
 */
static void add_midway(bq_effort *e, const share *s, int to) {
    double kept = fmin(s->kept, s->samples);
    add(e, s->samples, forward_to(s->arch, s->tokens, to));
    if (to > BQ_O) add(e, -kept, forward_to(s->arch, s->tokens, to - 1));
}

/* Backward: all weight gradients, input gradients but for q, k, v, attention with recomputation. */
static bq_effort backward(const bq_arch *arch, double tokens) {
    const bq_model *m = &arch->model;
    double p = (double)bq_arch_weights(arch), p_qkv = (double)(arch->rows[BQ_QKV] * arch->cols[BQ_QKV]);
    return (bq_effort){.flop = 2 * tokens * (2 * p - p_qkv) +
                               5 * tokens * tokens * (double)(m->heads * m->head_dim),
                       .memory = 3 * traffic(arch, tokens)};
}

/* Sums over the matrices of rows^a cols^b. */
static double powers(const bq_arch *arch, double a, double b) {
    double sum = 0;
    for (int m = 0; m < BQ_MATS; m++) sum += pow((double)arch->rows[m], a) * pow((double)arch->cols[m], b);
    return sum;
}

/* Nodes of a tree sum that so many leaves end as, where their first is a multiple of their number. */
static double nodes(double leaves) { return __builtin_popcountl((unsigned long)leaves); }

/* Gram matrices of the samples: each sample's product, nodes to the others, rows to everybody. */
static bq_effort grams(const share *s) {
    double squares = powers(s->arch, 0, 2), others = (s->replicas - 1) / s->replicas;
    return (bq_effort){.flop = s->samples * s->tokens * squares,
                       .memory = s->samples * 12 * squares,
                       .sent = 4 * squares * others * (nodes(s->samples) + 1),
                       .messages = s->replicas > 1 ? 2 * BQ_MATS : 0};
}

/* A matrix is factored by one replica, different ones by different replicas: the largest is the least. */
static double factors(const share *s) {
    double largest = 0;
    for (int m = 0; m < BQ_MATS; m++) largest = fmax(largest, pow((double)s->arch->cols[m], 3));
    return 2.0 / 3 * fmax(largest, powers(s->arch, 0, 3) / s->replicas);
}

static bq_effort gather_rows(const share *s) {
    return (bq_effort){.sent = 4 * s->weights * (s->replicas - 1) / s->replicas,
                       .messages = s->replicas > 1 ? BQ_MATS : 0};
}

/* A search for scales on one sample: the statistics, about as many outputs of modules as candidates are
 * tried, and a second walk where the first does not hold all. */
static double looks(const share *s, int candidates, bq_search how) {
    int64_t samples = (int64_t)s->samples;
    int again = bq_scales_room(s->r->calibration.length, samples) < samples;
    return 1 + again + candidates * (how == BQ_SEARCH_HALVING ? 0.35 : 1);
}

/* A pass that does not train, on one block. */
static bq_effort one_pass(const bq_pass *p, const share *s) {
    bq_effort e = {0}, f = forward(s->arch, s->tokens);
    double column = powers(s->arch, 1, 2) / s->replicas; /* rows cols^2: rows are shared */
    switch (p->kind) {
    case BQ_PASS_SMOOTHQUANT: add(&e, s->samples, f); break;
    case BQ_PASS_AUTOSMOOTH: add(&e, looks(s, 10, p->autosmooth.search) * s->samples, f); break;
    case BQ_PASS_AWQ: add(&e, looks(s, BQ_CANDIDATES, p->awq.search) * s->samples, f); break;
    case BQ_PASS_SEQMSE:
        for (int m = BQ_QKV; m < BQ_MATS; m++) add_midway(&e, s, m);
        add(&e, 1, grams(s)), add(&e, 1, gather_rows(s));
        e.flop += 2 * p->seqmse.candidates * column;
        break;
    case BQ_PASS_GPTQ:
        for (int m = BQ_QKV; m < BQ_MATS && p->gptq.sequential; m++) add_midway(&e, s, m);
        if (!p->gptq.sequential) add(&e, s->samples, forward_to(s->arch, s->tokens, BQ_DOWN));
        for (int m = p->gptq.sequential ? BQ_QKV : BQ_GATE_UP; m < BQ_DOWN && p->gptq.qep > 0; m++)
            add(&e, s->samples, forward_to(s->arch, s->tokens, m));
        if (p->gptq.qep > 0) add(&e, 1, grams(s));
        add(&e, 1, grams(s)), add(&e, 1, gather_rows(s));
        e.flop += column, e.flop64 += factors(s);
        e.sent += s->replicas > 1 ? 4 * powers(s->arch, 0, 2) : 0;
        break;
    default: break;
    }
    return e;
}

/* AdaScale's steps on one block: samples of a batch, then weights and moments of my rows, 44 bytes a weight.
 */
static bq_effort steps(const bq_pass *p, const share *s, int64_t count) {
    bq_effort e = {0};
    double leaves = ceil((double)p->batch / s->replicas), others = (s->replicas - 1) / s->replicas;
    add(&e, leaves, forward(s->arch, s->tokens)), add(&e, leaves, backward(s->arch, s->tokens));
    e.memory += 44 * s->weights / s->replicas;
    if (s->replicas > 1) {
        double nodes = fmin(leaves, 1 + log2(fmax(leaves, 1)));
        bool mine =
            (double)p->batch >= s->replicas; /* else a few replicas have samples, and these alone send */
        e.memory += 12 * s->weights;         /* adding up what came */
        e.sent += 4 * s->weights * others * ((mine ? nodes : 1) + 1);
        e.messages += 2 * BQ_MATS + 1;
    }
    bq_effort all = {0};
    add(&all, (double)count, e);
    return all;
}

/* The stages up to the last but one, a micro-batch behind the other; weights are read for each of them. */
static void count_reference(bq_effort *e, const share *s, const bq_comm *grid, double micro, bool split) {
    bq_effort f = forward(s->arch, s->tokens);
    if (grid->nstage == 1) return;
    if (split) {
        double samples = (double)bq_shard_of(s->r->calibration.samples, 0, grid->size).count;
        double all = s->blocks * (grid->nstage - 1);
        add(e, all * samples, f);
        e->files += all * 2 * s->weights;
        return;
    }
    add(e, s->blocks * s->samples, f);
    e->sent += 4 * s->tokens * (double)s->arch->model.hidden * s->samples;
    e->messages += ceil(s->samples / micro);
    e->idle += (grid->nstage - 2) * s->blocks * micro * f.flop;
    e->files += (s->blocks > 1 ? ceil(s->samples / micro) : 1) * s->blocks * 2 * s->weights;
}

/* Walks of the samples through a block for targets: none in the first sweep where the first pass makes them,
 * none of a last block's that nobody reads. */
static double targets(const share *s, const bq_phase *phase) {
    bool passes = phase == s->r->phase && phase->compute == BQ_COMPUTE_F32 && bq_phase_hands_on(phase);
    bool all = s->r->sweeps > 1 || bq_phase_targets(phase);
    if (!bq_phase_follows(phase, s->r->segments)) return 0;
    return s->blocks * (s->r->sweeps - 1) + (passes ? 0 : s->blocks - !all);
}

static void count_phase(bq_effort *e, const share *s, const bq_phase *phase) {
    int sweeps = s->r->sweeps;
    double walk = s->blocks * s->samples * sweeps;
    bq_effort f = forward(s->arch, s->tokens);
    add(&e[BQ_WORK_TARGETS], targets(s, phase) * s->samples, f);
    e[BQ_WORK_TARGETS].files += s->blocks * sweeps * 2 * s->weights;
    if (phase->inputs != BQ_INPUTS_FP && !bq_pass_advances(phase, phase->npass - 1))
        add(&e[BQ_WORK_ADVANCE], walk, f);
    else if (phase->inputs != BQ_INPUTS_FP) { /* the pass, in the first sweep */
        bq_effort out = {0};
        add_midway(&out, s, BQ_MATS);
        add(&e[BQ_WORK_ADVANCE], s->blocks, out);
        add(&e[BQ_WORK_ADVANCE], walk - s->blocks * s->samples, f);
    }
    for (int i = 0; i < phase->npass; i++) {
        const bq_pass *p = &phase->pass[i];
        int64_t all = bq_pass_steps(p, 0) + (sweeps - 1) * bq_pass_steps(p, 1);
        add(&e[BQ_WORK_PASSES], s->blocks, one_pass(p, s));
        if (all) add(&e[BQ_WORK_TRAINING], s->blocks, steps(p, s, all));
    }
}

void bq_effort_count(bq_effort e[BQ_WORKS], const bq_recipe *r, const bq_arch *arch, const bq_comm *grid,
                     int64_t micro, bool split, bool eval, int64_t keeps) {
    share s = {r,
               arch,
               ceil((double)arch->model.blocks / grid->nstage),
               (double)bq_shard_of(r->calibration.samples, 0, grid->nreplica).count,
               grid->nreplica,
               (double)bq_arch_weights(arch),
               (double)r->calibration.length,
               (double)keeps};
    bool calibrated = false;
    for (int k = 0; k < BQ_WORKS; k++) e[k] = (bq_effort){0};
    for (int p = 0; p < r->nphase; p++) {
        if (!bq_phase_calibrated(&r->phase[p])) continue;
        calibrated = true;
        count_phase(e, &s, &r->phase[p]);
    }
    if (calibrated) count_reference(&e[BQ_WORK_REFERENCE], &s, grid, (double)micro, split);
    if (!eval) return;
    double windows = (double)bq_shard_of(r->eval.windows, 0, grid->size).count, blocks = arch->model.blocks;
    add(&e[BQ_WORK_EVAL], 3 * windows * blocks, forward(arch, (double)r->eval.ctx));
    e[BQ_WORK_EVAL].flop += 3 * windows * 2 * (double)(r->eval.ctx * arch->model.vocab * arch->model.hidden);
    e[BQ_WORK_EVAL].files += 3 * blocks * 2 * s.weights;
}
