/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/plan.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/shard.h"
#include "block/common/narrow.h"
#include "driver/load/ahead.h"
#include "driver/load/source.h"
#include "driver/plan/pipeline.h"
#include "driver/plan/products.h"
#include "driver/recipe/traits.h"
#include "driver/plan/distill.h"
#include "driver/plan/learned.h"
#include "driver/plan/mixed.h"
#include "driver/score/observed.h"
#include "driver/score/score.h"
#include "io/out/export.h"
#include "io/state/stream.h"

#include <stdio.h>

/* Bytes of program and libraries: those resident when the plan is made, and later ones (2 to 5 MB were
 * measured with Open MPI 4.1 on one node); a minimum, so that plans do not differ from start to start. */
#define PROGRAM_LATER ((size_t)8 << 20)
#define PROGRAM_LEAST ((size_t)40 << 20)

enum { GPU_BYTES = 64 << 20 }; /* workspace of libraries, results */

static const char larger_machine[] = "this model needs a larger machine",
                  shorter_samples[] = "take shorter samples";

static void add(bq_plan *plan, const char *name, size_t bytes, bq_place place, const char *remedy) {
    if (bytes) plan->item[plan->items++] = (bq_plan_item){name, bytes, place, remedy};
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Measured once, so that all plans of a process agree. */
static size_t program(void) {
    static size_t bytes;
    if (!bytes) bytes = larger(bq_peak_rss() + PROGRAM_LATER, PROGRAM_LEAST);
    return bytes;
}

/* Bytes of the items so far in that place. */
size_t bq_plan_sum(const bq_plan *plan, bq_place place) {
    size_t sum = 0;
    for (int i = 0; i < plan->items; i++) sum += plan->item[i].place == place ? plan->item[i].bytes : 0;
    return sum;
}

/* Bytes of the process. */
static size_t process(const bq_plan *plan) {
    return bq_plan_sum(plan, BQ_HOST) + bq_plan_sum(plan, BQ_PINNED) +
           (plan->gpu ? 0 : bq_plan_sum(plan, BQ_DEVICE));
}

/* What decides how much a pass takes on a unit.  An expert is one replica's, with the samples that it has at
 * most. */
static bq_pass_size size_of(const bq_recipe *r, const bq_layout *layout, bq_pass_size of) {
    of.arch = layout->arch, of.scheme = layout->scheme;
    if (of.arch->kind != BQ_UNIT_EXPERT) return of;
    of.samples = (bq_recipe_expert_tokens(r) + of.tokens - 1) / of.tokens;
    of.replica = 0, of.nreplica = 1, of.keeps = 0;
    return of;
}

/* Bytes of the pass that needs most, and that pass. */
static size_t working_memory(const bq_recipe *r, const bq_layouts *layouts, bq_pass_size all,
                             const bq_pass **pass) {
    size_t most = 0;
    for (int p = 0; p < r->nphase * layouts->count; p++) {
        const bq_phase *phase = &r->phase[p / layouts->count];
        bq_pass_size of = size_of(r, &layouts->at[p % layouts->count], all);
        size_t compared = 0;
        if (phase->compute != BQ_COMPUTE_F32 && bq_phase_calibrated(phase))
            compared = bq_narrow_need(of.arch, of.tokens);
        for (int i = 0; i < phase->npass; i++) {
            size_t bytes = larger(bq_pass_need(&phase->pass[i], &of), compared);
            if (bytes > most) most = bytes, *pass = &phase->pass[i];
        }
    }
    return most;
}

/* Device bytes of activations: of a sample in the largest unit, and of what experts need beside it. */
static size_t activations(const bq_recipe *r, const bq_layouts *layouts, int64_t t, bool backward) {
    const bq_layout *last = &layouts->at[layouts->count - 1];
    size_t sum = bq_work_need(layouts->at[0].arch, t, backward);
    bool rounds = false; /* with a backward: then o is kept as it was */
    for (int i = 0; i < r->nphase && backward; i++) rounds |= r->phase[i].activations;
    if (rounds) sum += bq_arena_need(t, bq_arch_heads(layouts->at[0].arch), BQ_F32);
    if (last->arch->kind != BQ_UNIT_EXPERT) return sum;
    return sum + bq_work_need(last->arch, t, backward) + 2 * bq_routed_need(t);
}

/* Bytes of the hidden states of a phase: its streams; with experts their inputs in each stream, and the
 * tokens of the expert at hand. */
static size_t streams_of(const bq_recipe *r, const bq_phase *phase, const bq_arch *arch, int nreplica) {
    int64_t t = r->calibration.length, h = arch->model.hidden;
    int n = bq_phase_streams(phase, r->segments), rows = 0;
    size_t one = bq_stream_need(bq_shard_of(r->calibration.samples, 0, nreplica).count, t, h);
    for (int k = 0; k < BQ_STREAMS && arch->experts; k++) rows += bq_phase_expert_rows(phase, k);
    if (arch->experts) n += bq_phase_routes(phase, r->segments);
    return (size_t)n * one + (size_t)rows * bq_stream_need(1, bq_recipe_expert_tokens(r), h);
}

/* The device arena of the phases: all that one unit of a block needs. */
static size_t plan_phases(bq_plan *plan, const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm,
                          bq_pass_size of) {
    const bq_arch *arch = layouts->at[0].arch, *last = layouts->at[layouts->count - 1].arch;
    int64_t t = of.tokens;
    const bq_pass *pass = NULL; /* which needs most */
    size_t most = working_memory(r, layouts, of, &pass), factors = 0;
    unsigned traits = bq_recipe_traits(r) | (r->distill.steps ? BQ_PASS_CALIBRATED | BQ_PASS_BACKWARD : 0);
    bool prescaled = traits & BQ_PASS_PRESCALES, learns = bq_recipe_learns(r),
         observed = bq_observed_wanted(r) || r->bits.mixed.count || learns;
    for (int i = 0; i < layouts->count && prescaled; i++)
        factors = larger(factors, bq_block_pre_scratch(layouts->at[i].arch, t));
    add(plan, arch->experts ? "weights of one unit of a block, FP32" : "weights of one block, FP32",
        bq_block_need(arch), BQ_DEVICE, larger_machine);
    add(plan, "its quantized form and gradients", bq_quantized_need_any(layouts, prescaled), BQ_DEVICE,
        larger_machine);
    add(plan, "numbers of a unit's inputs", bq_observed_need(r, layouts), BQ_DEVICE, larger_machine);
    if (traits & BQ_PASS_CALIBRATED || observed) {
        add(plan, "activations of one sample",
            activations(r, layouts, t, learns || traits & BQ_PASS_BACKWARD), BQ_DEVICE, shorter_samples);
        add(plan, "op scratch", bq_op_scratch(t, arch->attention, 1) + bq_products_need(r, layouts),
            BQ_DEVICE, shorter_samples);
        add(plan, "outputs that schemes are compared by", bq_mixed_need(r, arch), BQ_DEVICE, shorter_samples);
        add(plan, "rotations that are learned", bq_learned_need(r, layouts, comm->rank, comm->size),
            BQ_DEVICE, larger_machine);
        add(plan, "inputs times factors", factors, BQ_DEVICE, shorter_samples);
        if (of.nreplica > 1 && arch->experts)
            add(plan, "weights of another rank's expert", bq_block_need(last), BQ_DEVICE, larger_machine);
    }
    size_t distilled = bq_distill_need(r, layouts, comm);
    bool behind = distilled > most; /* it comes behind the passes */
    snprintf(plan->pass, sizeof plan->pass, "working memory of %s",
             behind ? "distillation"
             : pass ? bq_pass_kind_at(pass->kind)->name
                    : "passes");
    add(plan, plan->pass, larger(most, distilled), BQ_DEVICE,
        behind || !pass ? larger_machine : bq_pass_remedy(pass));
    return bq_plan_sum(plan, BQ_DEVICE);
}

/* Host memory beside arena and streams, of which only one is taken at a time: three samples, a rotary table
 * and losses in the phases; codes, scales, zero points and factors of a tensor, and what it is read
 * and copied through, in the export; a window, its table and losses in the evaluation.  */
static size_t buffers(const bq_recipe *r, const bq_layouts *layouts, const bq_evals *evals,
                      const bq_comm *comm) {
    const bq_arch *arch = layouts->at[0].arch;
    int64_t sample = r->calibration.length * (3 * arch->model.hidden + arch->model.head_dim), steps = 0;
    for (int p = 0; p < r->nphase; p++)
        for (int i = 0; i < r->phase[p].npass; i++)
            steps = (int64_t)larger((size_t)steps, (size_t)bq_pass_training(&r->phase[p].pass[i], 0).steps);
    int64_t share = bq_shard_of(r->calibration.samples, 0, comm->nreplica).count;
    size_t most = (size_t)sample * sizeof(float) + (size_t)steps * sizeof(double) +
                  2 * bq_routed_host(arch, share, r->calibration.length);
    bq_linear_most one = bq_rounded_most(r, layouts);
    size_t rows = (size_t)(bq_round_rows(arch->model.hidden) * arch->model.hidden) * sizeof(float);
    if (r->noutput)
        most =
            larger(most, one.codes + (2 * one.scales + one.cols) * sizeof(float) + rows + BQ_EXPORT_BUFFER);
    most = larger(most + bq_mixed_host(r) + bq_learned_host(r, &arch->model),
                  (size_t)sample * sizeof(float) + bq_distill_host(r, layouts, comm));
    most = larger(most, bq_score_host(arch, evals, comm->size));
    return most + bq_observed_host(r, layouts, comm->size);
}

/* The copy of a checkpoint that a thread writes behind the work on the next block.  A GPU's is copied anyway;
 * a host without room for it writes at once. */
static void plan_pending(bq_plan *plan, const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm) {
    size_t bytes = bq_plan_checkpoint(r, layouts);
    if (comm->replica && !layouts->at[0].arch->experts) return; /* replica 0 writes it */
    if (!plan->gpu && process(plan) + bytes > plan->limit) return;
    plan->pending = bytes;
    add(plan, "a checkpoint that is being written", bytes, BQ_HOST, larger_machine);
}

/* Host copies of what is on a GPU, for files and messages. */
static void add_copies(bq_plan *plan, const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm) {
    const bq_arch *arch = layouts->at[0].arch;
    size_t most = 0;
    add(plan, "a piece of weights being read", bq_source_need(arch, r->ntransform > 0), BQ_HOST,
        larger_machine);
    for (int k = 0; k < layouts->count; k++)
        for (int m = 0; m < layouts->at[k].arch->sites; m++) {
            const bq_site *site = &layouts->at[k].arch->site[m];
            most = larger(most, (size_t)(site->rows * site->cols) * sizeof(float));
        }
    add(plan, "a matrix read from a checkpoint", most, BQ_HOST, larger_machine);
    plan_pending(plan, r, layouts, comm);
    if (comm->nreplica > 1)
        add(plan, "pinned memory for messages", 2 * most, BQ_PINNED, "start fewer ranks on a node");
}

/* The next block's weights, if a GPU arena of `arena` bytes fits.  Returns their bytes, or 0. */
static size_t plan_ahead(bq_plan *plan, const bq_arch *arch, bool rotated, size_t arena) {
    size_t next = bq_block_need(arch);
    if (arch->experts) return 0; /* the units come too fast for it */
    if (arena + GPU_BYTES > plan->gpu) return 0;
    plan->ahead = bq_source_piece_most(arch, rotated);
    add(plan, "weights of the next block", next, BQ_DEVICE, larger_machine);
    add(plan, "buffers to read them ahead", BQ_AHEAD_SLOTS * (size_t)plan->ahead * sizeof(float), BQ_PINNED,
        larger_machine);
    return next;
}

/* Micro-batches of the reference on the GPU, if it has room for them. */
static void plan_direct(bq_plan *plan, const bq_recipe *r, const bq_layouts *layouts) {
    size_t need = bq_pipeline_device(r, layouts->at[0].arch, plan->micro) + bq_products_reference(r, layouts);
    plan->direct = larger(need, plan->arena) + GPU_BYTES <= plan->gpu;
    if (!plan->direct || need <= plan->arena) return;
    add(plan, "micro-batches of the reference beyond that", need - plan->arena, BQ_DEVICE,
        "take a smaller --micro");
    plan->arena = need;
}

/* Streams, planned after all else, in the first place where they fit: in the arena, then of `there` bytes; or
 * outside, with `beside` bytes. */
static void place_streams(bq_plan *plan, size_t there, size_t beside, const char *scratch) {
    bool fits = process(plan) + beside <= plan->limit;
    if (plan->gpu && there + GPU_BYTES <= plan->gpu)
        plan->home.place = BQ_DEVICE, beside = there - plan->arena, plan->arena = there;
    else if (plan->gpu && fits)
        plan->home.place = BQ_PINNED;
    else if (!fits)
        plan->home.scratch = scratch;
    if (!plan->home.scratch)
        add(plan, "streams of hidden states", beside, plan->home.place,
            "offer --scratch DIR, or take fewer samples");
}

/* States inside a block that passes keep to save time: planned last, with half of the memory that is left. */
static void plan_midway(bq_plan *plan, const bq_recipe *r, const bq_layouts *layouts, bq_pass_size of) {
    const bq_pass *pass;
    int64_t share = bq_shard_of(of.samples, of.replica, of.nreplica).count;
    size_t used = plan->gpu ? plan->arena + GPU_BYTES : process(plan);
    size_t limit = plan->gpu ? plan->gpu : plan->limit, room = used < limit ? (limit - used) / 2 : 0;
    if (!(bq_recipe_traits(r) & BQ_PASS_KEEPS)) return;
    size_t without = working_memory(r, layouts, of, &pass);
    for (int64_t least = 0, most = share; least <= most;) { /* more samples need more bytes */
        of.keeps = least + (most - least) / 2;
        if (working_memory(r, layouts, of, &pass) > without + room)
            most = of.keeps - 1;
        else
            plan->keeps = of.keeps, least = of.keeps + 1;
    }
    of.keeps = plan->keeps;
    size_t kept = working_memory(r, layouts, of, &pass) - without;
    snprintf(plan->midway, sizeof plan->midway, "%ld of %ld samples midway in a block", (long)of.keeps,
             (long)share);
    add(plan, plan->midway, kept, BQ_DEVICE, "start more ranks a stage");
    plan->arena += kept;
}

void bq_plan_make(bq_plan *plan, const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm,
                  const bq_args *args, const bq_evals *evals, size_t gpu) {
    *plan = (bq_plan){.gpu = gpu, .nstage = comm->nstage, .nreplica = comm->nreplica};
    plan->limit = args->memory ? args->memory : bq_memory_available() / (size_t)comm->locals;
    const bq_arch *arch = layouts->at[0].arch;
    plan->micro = bq_pipeline_micro(r, arch, comm->nstage, comm->nreplica, args->micro);
    bq_pass_size of = {.tokens = r->calibration.length, .samples = r->calibration.samples};
    of.replica = comm->replica, of.nreplica = comm->nreplica;
    size_t phases = plan_phases(plan, r, layouts, comm, of), calibration = 0;
    size_t evaluation = bq_score_need(layouts, true, bq_recipe_prescaled(r), evals);
    size_t windows = bq_score_stream(arch, evals, comm->size);
    for (int p = 0; p < r->nphase; p++)
        calibration = larger(calibration, streams_of(r, &r->phase[p], arch, comm->nreplica));
    calibration = larger(calibration, bq_observed_stream(r, arch, comm->size));
    calibration = larger(calibration, bq_mixed_stream(r, arch));
    calibration = larger(calibration, bq_learned_stream(r, &arch->model, comm->size));
    calibration = larger(calibration, bq_distill_stream(r, layouts, comm));
    phases += plan_ahead(plan, arch, r->ntransform > 0, larger(phases + bq_block_need(arch), evaluation));
    if (evaluation > phases)
        add(plan, "evaluation (head, activations) beyond that", evaluation - phases, BQ_DEVICE,
            "take a smaller eval.ctx, or --no-eval");
    plan->arena = larger(phases, evaluation);
    add(plan, "rotations", bq_rotated_need(r, arch), BQ_HOST, larger_machine);
    add(plan, "buffers of samples, of an exported linear", buffers(r, layouts, evals, comm), BQ_HOST,
        shorter_samples);
    if (comm->nstage > 1)
        add(plan, "micro-batches on their way", bq_pipeline_host(r, arch, plan->micro), BQ_HOST,
            "take a smaller --micro");
    add(plan, "program, libraries, tokens", program(), BQ_HOST, "give it more");
    if (gpu)
        add_copies(plan, r, layouts, comm);
    else
        add(plan, "operands of products, packed", bq_cpu_packing(args->threads), BQ_HOST,
            "take fewer --threads");
    if (comm->nstage > 1 && calibration && !args->split_reference) plan_direct(plan, r, layouts);
    /* Phases and evaluation have their streams and their use of the arena at different times. */
    size_t there = larger(larger(phases + calibration, evaluation + windows), plan->arena);
    size_t beside = gpu ? larger(calibration, windows)
                        : larger(phases + calibration, plan->arena + windows) - plan->arena;
    place_streams(plan, there, beside, args->scratch);
    if (!gpu) plan_pending(plan, r, layouts, comm);
    plan_midway(plan, r, layouts, of);
    plan->total = process(plan);
    bq_effort_count(plan->effort, r, layouts, comm, plan->micro, args->split_reference, evals, plan->keeps);
}

int bq_plan_largest(const bq_plan *plan, const bool *printed) {
    int best = -1;
    for (int i = 0; i < plan->items; i++)
        if (!printed[i] && (best < 0 || plan->item[i].bytes > plan->item[best].bytes)) best = i;
    return best;
}

size_t bq_plan_on_gpu(const bq_plan *plan) { return plan->gpu ? plan->arena + GPU_BYTES : 0; }

bool bq_plan_fits(const bq_plan *plan) {
    return bq_plan_on_gpu(plan) <= plan->gpu && plan->total <= plan->limit;
}

int bq_plan_check(const bq_plan *plan) {
    if (bq_plan_on_gpu(plan) > plan->gpu)
        return bq_refuse(
            BQ_USAGE,
            "the run needs %.0f MB of the GPU, %.0f MB are free: take shorter samples or --device cpu",
            (double)bq_plan_on_gpu(plan) / 1e6, (double)plan->gpu / 1e6);
    if (bq_plan_fits(plan)) return BQ_OK;
    int top = bq_plan_largest(plan, (bool[BQ_PLAN_ITEMS]){0});
    return bq_refuse(BQ_USAGE,
                     "the run needs %.0f MB, %.0f MB may be used; the largest part is %s with %.0f MB: %s",
                     (double)plan->total / 1e6, (double)plan->limit / 1e6, plan->item[top].name,
                     (double)plan->item[top].bytes / 1e6, plan->item[top].remedy);
}

int bq_plan_evaluation(size_t arena, size_t stream, size_t limit, const bq_comm *comm, const char *scratch,
                       const char **use) {
    if (!limit) limit = bq_memory_available() / (size_t)comm->locals;
    size_t total = arena + stream + program() + bq_cpu_packing(0);
    *use = total > limit ? scratch : NULL;
    if (total <= limit || (scratch && total - stream <= limit)) return BQ_OK;
    return bq_refuse(
        BQ_USAGE,
        "the evaluation needs %.0f MB, %.0f MB may be used: take shorter texts, as by a smaller --ctx%s",
        (double)total / 1e6, (double)limit / 1e6, scratch ? "" : ", or offer --scratch DIR");
}

/* A larger probe of the host would be only a little closer to the run. */
#define PROBE_HOST ((size_t)64 << 20)
#define PROBE_GPU  ((size_t)1 << 30)

size_t bq_plan_probe(const bq_plan *plan) {
    size_t used = bq_peak_rss(), room = used < plan->limit ? plan->limit - used : 0;
    if (plan->gpu) return plan->gpu < PROBE_GPU ? plan->gpu : PROBE_GPU;
    return room < PROBE_HOST ? room : PROBE_HOST;
}
