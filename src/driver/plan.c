#include "driver/plan.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/shard.h"
#include "block/narrow.h"
#include "driver/methods.h"
#include "driver/perplexity.h"
#include "driver/reference.h"
#include "driver/rotated.h"
#include "io/stream.h"

#include <stdio.h>

/* Code, libraries, MPI's and HDF5's buffers: measured 30 to 45 MB with Open MPI 4.1 on one node. */
#define PROGRAM_BYTES ((size_t)40 << 20)

static void add(bq_plan *plan, const char *name, size_t bytes, bool device, const char *remedy) {
    if (bytes) plan->item[plan->items++] = (bq_plan_item){name, bytes, device, remedy};
}

int bq_plan_schemes(const bq_recipe *recipe, const bq_arch *arch, bq_scheme *scheme) {
    const char *names[BQ_ARCH_LINEARS];
    for (int i = 0; i < arch->linears; i++) names[i] = arch->linear[i].name;
    int code = bq_recipe_fits(recipe, arch->linears, names);
    for (int i = 0; i < arch->linears && !code; i++) {
        scheme[i] = bq_recipe_scheme(recipe, names[i]);
        if (scheme[i].group > 0 && arch->linear[i].cols % scheme[i].group)
            code = bq_refuse(BQ_USAGE, "bits: group %ld does not divide the %ld input columns of %s",
                             (long)scheme[i].group, (long)arch->linear[i].cols, names[i]);
    }
    return code;
}

/* Scratch of the products that a phase makes otherwise than in f32: of linears, forward and backward; of
 * moments of inputs; of weights' errors with such moments. */
static size_t product_scratch(const bq_phase *phase, const bq_arch *arch, int64_t t) {
    size_t most = 0;
    int shapes = 4;
    for (int i = 0; i < phase->npass; i++)
        if (phase->pass[i].kind == BQ_PASS_GPTQ || phase->pass[i].kind == BQ_PASS_SEQMSE) shapes = 5;
    for (int m = 0; m < BQ_MATS; m++) {
        int64_t n = arch->rows[m], k = arch->cols[m];
        const int64_t shape[][3] = {{t, n, k}, {t, k, n}, {n, k, t}, {k, k, t}, {n, k, k}};
        for (int i = 0; i < shapes; i++) {
            size_t one = bq_gemm_scratch(phase->compute, shape[i][0], shape[i][1], shape[i][2]);
            most = one > most ? one : most;
        }
    }
    return most;
}

/* The device arena of the phases: everything one block of training needs, whatever the depth. */
static size_t plan_phases(bq_plan *plan, const bq_recipe *r, const bq_arch *arch, const bq_scheme *scheme,
                          const bq_comm *comm) {
    int64_t t = r->calibration.length;
    bq_pass_size of = {arch, scheme, t, r->calibration.samples, comm->replica, comm->nreplica};
    const bq_method *method = NULL; /* of the pass that takes the most */
    size_t most = 0, products = 0;
    bool calibrated = false, backward = false;
    for (int p = 0; p < r->nphase; p++) {
        const bq_phase *phase = &r->phase[p];
        size_t scratch = product_scratch(phase, arch, t), compared = 0;
        calibrated |= bq_phase_calibrated(phase);
        backward |= bq_phase_backward(phase);
        products = scratch > products ? scratch : products;
        if (phase->compute != BQ_COMPUTE_F32 && bq_phase_calibrated(phase))
            compared = bq_narrow_need(arch, t);
        for (int i = 0; i < phase->npass; i++) {
            const bq_method *one = &bq_methods[phase->pass[i].kind];
            size_t bytes = bq_pass_need(&phase->pass[i], &of);
            if (compared > bytes) bytes = compared;
            if (bytes > most) most = bytes, method = one;
        }
    }
    int first = plan->items;
    add(plan, "weights of one block, FP32", bq_block_need(arch), true, "this model needs a larger machine");
    add(plan, "its quantized form and gradients", bq_quantized_need(arch, scheme), true,
        "this model needs a larger machine");
    if (calibrated) {
        add(plan, "activations of one sample", bq_work_need(arch, t, backward), true, "take shorter samples");
        add(plan, "block inputs and outputs", 2 * bq_arena_need(t, arch->model.hidden, BQ_F32), true,
            "take shorter samples");
        add(plan, "op scratch", bq_op_scratch(t, arch->attention, 1) + products, true,
            "take shorter samples");
        if (bq_recipe_prescaled(r))
            add(plan, "factors of inputs, inputs times them",
                bq_quantized_need_pre(arch) + bq_block_pre_scratch(arch, t), true, "take shorter samples");
    }
    if (method) {
        snprintf(plan->pass, sizeof plan->pass, "working memory of %s", method->name);
        add(plan, plan->pass, most, true, method->remedy);
    }
    size_t sum = 0;
    for (int i = first; i < plan->items; i++) sum += plan->item[i].bytes;
    return sum;
}

void bq_plan_make(bq_plan *plan, const bq_recipe *r, const bq_arch *arch, const bq_scheme *scheme,
                  const bq_comm *comm, int64_t micro, size_t limit, const char *scratch, bool split,
                  bool eval) {
    *plan = (bq_plan){.limit = limit ? limit : bq_memory_available() / (size_t)comm->locals};
    int64_t h = arch->model.hidden, streams = 0;
    size_t phases = plan_phases(plan, r, arch, scheme, comm), evaluation = 0, eval_host = 0;
    for (int p = 0; p < r->nphase; p++)
        if (bq_phase_calibrated(&r->phase[p])) {
            int64_t n = r->phase[p].inputs == BQ_INPUTS_FP ? 2 : 3;
            streams = n > streams ? n : streams;
        }
    if (eval) {
        evaluation = bq_perplexity_need(arch, scheme, bq_recipe_prescaled(r), r->eval.ctx);
        eval_host = bq_perplexity_host(arch, r->eval.ctx, r->eval.windows, comm->size);
        if (evaluation > phases)
            add(plan, "evaluation (head, activations) beyond that", evaluation - phases, true,
                "take a smaller eval.ctx, or --no-eval");
    }
    plan->arena = phases > evaluation ? phases : evaluation;
    size_t calibration =
        (size_t)streams * bq_stream_bytes(bq_shard_of(r->calibration.samples, 0, comm->nreplica).count,
                                          r->calibration.length, h);
    /* The streams of the phases and of the evaluation are never there at once, nor is the arena full in both.
     */
    size_t training = phases + calibration, after = plan->arena + eval_host;
    size_t held = (training > after ? training : after) - plan->arena;
    size_t buffers = (size_t)(3 * r->calibration.length * h) * sizeof(float);
    size_t rotated = bq_rotated_need(r, arch);
    if (plan->arena + held + buffers + rotated + PROGRAM_BYTES > plan->limit && scratch)
        plan->scratch = scratch;
    if (!plan->scratch)
        add(plan, "streams of hidden states", held, false, "offer --scratch DIR, or take fewer samples");
    add(plan, "rotations, a matrix being rotated", rotated, false, "this model needs a larger machine");
    add(plan, "sample buffers", buffers, false, "take shorter samples");
    if (comm->nstage > 1)
        add(plan, "micro-batches on their way", bq_reference_host(r, arch, micro), false,
            "take a smaller --micro");
    add(plan, "program and libraries", PROGRAM_BYTES, false, "give it more");
    for (int i = 0; i < plan->items; i++) plan->total += plan->item[i].bytes;
    bq_effort_count(plan->effort, r, arch, comm, micro, split, eval);
}

enum { GPU_BYTES = 64 << 20 }; /* workspace of libraries, results */

void bq_plan_on_gpu(bq_plan *plan, const bq_arch *arch, const bq_scheme *scheme, const bq_comm *comm,
                    size_t bytes) {
    size_t most = 0;
    for (int m = 0; m < BQ_MATS; m++) {
        size_t one = (size_t)(arch->rows[m] * arch->cols[m]) * sizeof(float);
        most = one > most ? one : most;
    }
    add(plan, "copies of a block for its checkpoint", bq_quantized_need(arch, scheme), false,
        "this model needs a larger machine");
    if (comm->nreplica > 1)
        add(plan, "pinned memory for messages", 2 * most, false, "start fewer ranks on a node");
    plan->gpu = bytes, plan->total = 0;
    for (int i = 0; i < plan->items; i++)
        if (!plan->item[i].device) plan->total += plan->item[i].bytes;
}

static int largest(const bq_plan *plan, const bool *printed) {
    int best = -1;
    for (int i = 0; i < plan->items; i++)
        if (!printed[i] && (best < 0 || plan->item[i].bytes > plan->item[best].bytes)) best = i;
    return best;
}

int bq_plan_check(const bq_plan *plan) {
    if (plan->gpu && plan->arena + GPU_BYTES > plan->gpu)
        return bq_refuse(
            BQ_USAGE,
            "the run needs %.0f MB of the GPU, %.0f MB are free: take shorter samples or --device cpu",
            (double)(plan->arena + GPU_BYTES) / 1e6, (double)plan->gpu / 1e6);
    if (plan->total <= plan->limit) return BQ_OK;
    int top = largest(plan, (bool[BQ_PLAN_ITEMS]){0});
    return bq_refuse(BQ_USAGE,
                     "the run needs %.0f MB, %.0f MB may be used; the largest part is %s with %.0f MB: %s",
                     (double)plan->total / 1e6, (double)plan->limit / 1e6, plan->item[top].name,
                     (double)plan->item[top].bytes / 1e6, plan->item[top].remedy);
}

int bq_plan_evaluation(size_t arena, size_t stream, size_t limit, const bq_comm *comm, const char *scratch,
                       const char **use) {
    if (!limit) limit = bq_memory_available() / (size_t)comm->locals;
    size_t total = arena + stream + PROGRAM_BYTES;
    *use = total > limit ? scratch : NULL;
    if (total <= limit || (scratch && total - stream <= limit)) return BQ_OK;
    return bq_refuse(BQ_USAGE, "the evaluation needs %.0f MB, %.0f MB may be used: take a smaller --ctx%s",
                     (double)total / 1e6, (double)limit / 1e6, scratch ? "" : ", or offer --scratch DIR");
}

void bq_plan_print(const bq_plan *plan, const bq_machine *machine, FILE *out) {
    bool printed[BQ_PLAN_ITEMS] = {0};
    fprintf(out, "memory of one rank                                    MB\n");
    for (int i; (i = largest(plan, printed)) >= 0; printed[i] = true)
        fprintf(out, "  %-44s %10.1f  %s\n", plan->item[i].name, (double)plan->item[i].bytes / 1e6,
                plan->item[i].device ? "device" : "host");
    fprintf(out, "  %-44s %10.1f  of %.1f that may be used\n", "total", (double)plan->total / 1e6,
            (double)plan->limit / 1e6);
    if (plan->gpu)
        fprintf(out, "  %-44s %10.1f  of %.1f that are free\n", "on the GPU",
                (double)(plan->arena + GPU_BYTES) / 1e6, (double)plan->gpu / 1e6);
    if (plan->scratch) fprintf(out, "  streams of hidden states live in files in %s\n", plan->scratch);
    static const char *const name[BQ_WORKS] = {"reference pipeline", "targets (FP32 reference)",
                                               "training",           "other passes",
                                               "quantized stream",   "evaluation (fp, rtn, result)"};
    double all = 0, use[BQ_USES];
    fprintf(out, "work of one rank                                  TFLOP    seconds\n");
    for (int i = 0; i < BQ_WORKS; i++) {
        const bq_effort *e = &plan->effort[i];
        double seconds = bq_machine_seconds(machine, e, use);
        if (seconds <= 0) continue;
        fprintf(out, "  %-44s %10.3f  %9.1f\n", name[i], (e->flop + e->flop64) / 1e12, seconds);
        all += seconds;
    }
    fprintf(out, "  %-44s %10s  %9.1f\n", "all", "", all);
    fprintf(out, "seconds on %s: %.1f GFLOP/s, memory %.1f GB/s, network %.1f GB/s\n", machine->name,
            machine->flop / 1e9, machine->memory / 1e9, machine->network / 1e9);
}
