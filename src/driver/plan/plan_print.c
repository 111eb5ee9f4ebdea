/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan says, for people: bytes, and seconds on a machine. */
#include "driver/plan/plan.h"

#include <math.h>

static const char *const work_names[BQ_WORKS] = {[BQ_WORK_ROTATIONS] = "training of rotations",
                                                 [BQ_WORK_SCHEMES] = "errors of schemes (bits.auto)",
                                                 [BQ_WORK_REFERENCE] = "reference pipeline",
                                                 [BQ_WORK_TARGETS] = "targets (FP32 reference)",
                                                 [BQ_WORK_TRAINING] = "training",
                                                 [BQ_WORK_PASSES] = "other passes",
                                                 [BQ_WORK_ADVANCE] = "quantized stream",
                                                 [BQ_WORK_DISTILL] = "distillation",
                                                 [BQ_WORK_SAVE] = "checkpoints that are waited for",
                                                 [BQ_WORK_EVAL] = "evaluation (fp, rtn, result)"};

/* What is left of the seconds of `count` checkpoints that are written behind the work on the next block,
 * which takes as much as one of count parts of `work`.  Nothing is behind the last one. */
static double waited(double save, double work, double count) {
    return save / count + (count - 1) * fmax(0, (save - work) / count);
}

void bq_plan_seconds(const bq_plan *plan, const bq_machine *machine, double seconds[BQ_WORKS + 1],
                     double use[BQ_USES]) {
    double one[BQ_USES], work = 0;
    for (int u = 0; u < BQ_USES; u++) use[u] = 0;
    seconds[BQ_WORKS] = 0;
    for (int i = 0; i < BQ_WORKS; i++) {
        seconds[i] = bq_machine_seconds(machine, &plan->effort[i], plan->nstage, plan->nreplica, one);
        if (i > BQ_WORK_REFERENCE && i < BQ_WORK_SAVE) work += seconds[i];
        if (i == BQ_WORK_SAVE && plan->pending && plan->effort[i].saves > 0)
            one[BQ_USE_FILES] = seconds[i] = waited(seconds[i], work, plan->effort[i].saves);
        for (int u = 0; u < BQ_USES; u++) use[u] += one[u];
        seconds[BQ_WORKS] += seconds[i];
    }
}

const char *bq_plan_home(const bq_plan *plan, char *text, size_t n) {
    static const char *const names[] = {
        [BQ_HOST] = "host memory", [BQ_PINNED] = "pinned host memory", [BQ_DEVICE] = "device memory"};
    const char *scratch = plan->home.scratch;
    snprintf(text, n, "%s%s", scratch ? "files in " : names[plan->home.place], scratch ? scratch : "");
    return text;
}

void bq_plan_print(const bq_plan *plan, const bq_machine *machine, FILE *out) {
    static const char *const places[] = {[BQ_HOST] = "host", [BQ_PINNED] = "pinned", [BQ_DEVICE] = "device"};
    bool printed[BQ_PLAN_ITEMS] = {0};
    char grid[48];
    snprintf(grid, sizeof grid, "%d stages x %d replicas", plan->nstage, plan->nreplica);
    fprintf(out, "memory of one rank of %-23s %11s\n", grid, "MB");
    for (int i; (i = bq_plan_largest(plan, printed)) >= 0; printed[i] = true)
        fprintf(out, "  %-44s %10.1f  %s\n", plan->item[i].name, (double)plan->item[i].bytes / 1e6,
                places[plan->item[i].place]);
    fprintf(out, "  %-44s %10.1f  of %.1f that may be used\n", "total", (double)plan->total / 1e6,
            (double)plan->limit / 1e6);
    if (plan->gpu)
        fprintf(out, "  %-44s %10.1f  of %.1f that are free\n", "on the GPU",
                (double)bq_plan_on_gpu(plan) / 1e6, (double)plan->gpu / 1e6);
    if (bq_plan_sum(plan, BQ_PINNED))
        fprintf(out, "  %-44s %10.1f  of the total\n", "pinned", (double)bq_plan_sum(plan, BQ_PINNED) / 1e6);
    char home[BQ_PATH_MAX + 32];
    fprintf(out, "  streams of hidden states live in %s\n", bq_plan_home(plan, home, sizeof home));
    if (plan->midway[0]) fprintf(out, "  a pass keeps %s\n", plan->midway);
    fprintf(out, "  checkpoints are written %s\n",
            plan->pending ? "behind the work on the next block" : "at once: there is no room for a copy");
    fprintf(out, "  it %s\n", bq_plan_fits(plan) ? "fits" : "does not fit");
    double seconds[BQ_WORKS + 1], use[BQ_USES];
    bq_plan_seconds(plan, machine, seconds, use);
    fprintf(out, "work of one rank                                  TFLOP    seconds\n");
    for (int i = 0; i < BQ_WORKS; i++)
        if (seconds[i] > 0)
            fprintf(out, "  %-44s %10.3f  %9.1f\n", work_names[i], bq_effort_flop(&plan->effort[i]) / 1e12,
                    seconds[i]);
    fprintf(out, "  %-44s %10s  %9.1f\n", "all", "", seconds[BQ_WORKS]);
    fprintf(out, "seconds on %s: %.1f GFLOP/s, memory %.1f GB/s, network %.1f GB/s\n", machine->name,
            machine->flop[BQ_RATE_PRODUCTS] / 1e9, machine->memory / 1e9, machine->network / 1e9);
}
