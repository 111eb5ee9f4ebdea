/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/machine.h"

#include "base/die.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Published peaks in TFLOP/s and TB/s: FP32 without tensor cores, FP64 with them where they have it, dense
 * 16-bit products, memory; GB of memory; GB/s between the GPUs of a node, each way.  V100 SXM2, A100 SXM 80
 * GB, H100 SXM, H200 SXM, B200, MI250X, MI300X. */
static const struct {
    const char *name;
    double fp32, fp64, half, memory, size, fabric;
} gpus[] = {{"v100", 15.7, 7.8, 125, 0.90, 32, 150},     {"a100", 19.5, 19.5, 312, 2.04, 80, 300},
            {"h100", 67, 67, 989, 3.35, 80, 450},        {"h200", 67, 67, 989, 4.8, 141, 450},
            {"b200", 75, 37, 2250, 7.7, 180, 900},       {"mi250x", 47.9, 47.9, 383, 3.2, 128, 150},
            {"mi300x", 163.4, 81.7, 1307, 5.3, 192, 450}};

/* Shares of the peaks that one H200 sustained (docs/gpu-runs.md, commits 928f22a and 4dbf542); kernels that
 * have changed since are counted as they were.  Of these, products of fp16x2 were not run: their share is
 * that of bf16, for three products. */
enum { OF_FP32, OF_FP64, OF_HALF };
static const struct {
    int of;
    double share;
} sustained[BQ_RATES] = {
    [BQ_RATE_PRODUCTS + BQ_COMPUTE_F32] = {OF_FP32, 0.76},
    [BQ_RATE_PRODUCTS + BQ_COMPUTE_FP16X2] = {OF_HALF, 0.47 / 3},
    [BQ_RATE_PRODUCTS + BQ_COMPUTE_BF16X3] = {OF_HALF, 0.47 / 3},
    [BQ_RATE_PRODUCTS + BQ_COMPUTE_TF32] = {OF_HALF, 0.35},
    [BQ_RATE_PRODUCTS + BQ_COMPUTE_BF16] = {OF_HALF, 0.47},
    [BQ_RATE_GRAM] = {OF_FP32, 0.60},
    [BQ_RATE_ATTENTION] = {OF_FP32, 0.246},
    [BQ_RATE_ATTENTION_BACK] = {OF_FP32, 0.109},
    [BQ_RATE_FACTOR] = {OF_FP64, 0.032},
    [BQ_RATE_COLUMNS] = {OF_FP32, 0.091},
};
#define SHARE_MEMORY 0.79
#define FILES        1.1e9
#define WRITES       0.57e9

/* Assumed: 200 Gb/s a rank between nodes of 8 ranks; 40 GB/s of a parallel file system. */
#define SHARE_LINK 0.9
#define NETWORK    25e9
#define LATENCY    5e-6
#define FILES_ALL  40e9
#define NODE       8

const char *const bq_use_names[BQ_USES] = {"arithmetic", "memory", "fabric", "network", "pipeline", "files"};

double bq_machine_seconds(const bq_machine *m, const bq_effort *e, int nstage, int nreplica,
                          double use[BQ_USES]) {
    int ranks = nstage * nreplica, near = m->node < nreplica ? m->node : nreplica;
    double inside = nreplica > 1 ? (double)(near - 1) / (nreplica - 1) : 1; /* of the other replicas */
    double files = fmin(m->files, m->files_all / ranks), writes = fmin(m->writes, m->files_all / nstage);
    double passed = ranks > m->node ? 0 : e->passed;
    for (int k = 0; k < BQ_USES; k++) use[k] = 0;
    for (int k = 0; k < BQ_RATES; k++)
        if (e->flop[k] > 0) use[BQ_USE_FLOP] += e->flop[k] / m->flop[k];
    use[BQ_USE_MEMORY] = e->memory / m->memory;
    use[BQ_USE_FABRIC] = (inside * e->sent + passed) / m->fabric;
    use[BQ_USE_NETWORK] =
        ((1 - inside) * e->sent + e->passed - passed) / m->network + e->messages * m->latency;
    use[BQ_USE_IDLE] = e->idle / m->flop[BQ_RATE_PRODUCTS];
    use[BQ_USE_FILES] = e->files / files + e->written / writes;
    double sum = 0;
    for (int k = 0; k < BQ_USES; k++) sum += use[k];
    return sum;
}

/* Bytes a second of "200Gb" or "25GB"; 0: it is no rate. */
static double rate_of(const char *text) {
    char *unit;
    double x = strtod(text, &unit);
    if (!(x > 0 && x < 1e6)) return 0;
    if (strcmp(unit, "Gb") == 0) return x * 1e9 / 8;
    return strcmp(unit, "GB") == 0 ? x * 1e9 : 0;
}

static int take_rate(const char *option, const char *text, double share, double *rate) {
    if (!text) return BQ_OK;
    double x = rate_of(text);
    if (x == 0)
        return bq_refuse(BQ_USAGE, "--%s %s: a rate a second is needed, as 200Gb (bits) or 25GB (bytes)",
                         option, text);
    *rate = share * x;
    return BQ_OK;
}

int bq_machine_named(bq_machine *m, const bq_args *args) {
    size_t i = 0, known = sizeof gpus / sizeof *gpus;
    while (args->gpu && i < known && strcmp(gpus[i].name, args->gpu)) i++;
    if (args->gpu && i == known)
        return bq_refuse(BQ_USAGE, "--gpu %s: known are v100, a100, h100, h200, b200, mi250x, mi300x",
                         args->gpu);
    if (args->gpu) {
        const double peak[] = {gpus[i].fp32, gpus[i].fp64, gpus[i].half};
        *m = (bq_machine){.name = gpus[i].name,
                          .memory = SHARE_MEMORY * 1e12 * gpus[i].memory,
                          .fabric = SHARE_LINK * 1e9 * gpus[i].fabric,
                          .network = SHARE_LINK * NETWORK,
                          .latency = LATENCY,
                          .files = FILES,
                          .files_all = FILES_ALL,
                          .writes = WRITES,
                          .node = NODE,
                          .gpu = (size_t)(1e9 * gpus[i].size)};
        for (int k = 0; k < BQ_RATES; k++) m->flop[k] = sustained[k].share * 1e12 * peak[sustained[k].of];
    }
    if (args->network) m->latency = LATENCY;
    if (args->node) m->node = args->node;
    int code = take_rate("network", args->network, SHARE_LINK, &m->network);
    return code ? code : take_rate("files", args->files, 1, &m->files_all);
}
