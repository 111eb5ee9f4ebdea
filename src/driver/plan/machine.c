#include "driver/plan/machine.h"

#include "base/clock.h"
#include "base/die.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Published peaks in TFLOP/s and TB/s: FP32 without tensor cores, FP64 with them where they have it, memory;
 * and GB of memory.  V100 SXM2, A100 SXM 80 GB, H100 SXM, H200 SXM, B200, MI250X, MI300X. */
static const struct {
    const char *name;
    double fp32, fp64, memory, size;
} gpus[] = {{"v100", 15.7, 7.8, 0.90, 32},    {"a100", 19.5, 19.5, 2.04, 80},
            {"h100", 67, 67, 3.35, 80},       {"h200", 67, 67, 4.8, 141},
            {"b200", 75, 37, 7.7, 180},       {"mi250x", 47.9, 47.9, 3.2, 128},
            {"mi300x", 163.4, 81.7, 5.3, 192}};

/* Sustained shares of the peaks; network and files of a node. */
#define SHARE_GEMM    0.75
#define SHARE_FACTOR  0.3
#define SHARE_MEMORY  0.8
#define SHARE_NETWORK 0.9
#define NETWORK       25e9 /* bytes a second: 200 Gb/s a rank */
#define LATENCY       5e-6
#define FILES         2e9

const char *const bq_use_names[BQ_USES] = {"arithmetic", "memory", "network", "pipeline", "files"};

double bq_machine_seconds(const bq_machine *m, const bq_effort *e, double use[BQ_USES]) {
    use[BQ_USE_FLOP] = e->flop / m->flop + e->flop64 / m->flop64;
    use[BQ_USE_MEMORY] = e->memory / m->memory;
    use[BQ_USE_NETWORK] = e->sent / m->network + e->messages * m->latency;
    use[BQ_USE_IDLE] = e->idle / m->flop;
    use[BQ_USE_FILES] = e->files / m->files;
    double sum = 0;
    for (int k = 0; k < BQ_USES; k++) sum += use[k];
    return sum;
}

/* Sides of a product. */
typedef struct {
    int64_t t, rows, cols;
} shape;

static size_t need(shape s) {
    return bq_arena_need(s.t, s.cols, BQ_F32) + bq_arena_need(s.t, s.rows, BQ_F32) +
           2 * bq_arena_need(s.rows, s.cols, BQ_F32);
}

/* A sample, at most 512 tokens, times the largest matrix, whose longer side is halved until all fits. */
static shape shape_of(const bq_arch *arch, int64_t tokens, size_t most) {
    enum { LEAST = 16 };
    const bq_site *site = arch->site;
    for (int m = 1; m < arch->sites; m++)
        if (arch->site[m].rows * arch->site[m].cols > site->rows * site->cols) site = &arch->site[m];
    shape s = {tokens < 512 ? tokens : 512, site->rows, site->cols};
    while (need(s) > most && (s.rows > LEAST || s.cols > LEAST)) *(s.rows > s.cols ? &s.rows : &s.cols) /= 2;
    return s;
}

size_t bq_machine_need(const bq_arch *arch, int64_t tokens, size_t most) {
    return need(shape_of(arch, tokens, most));
}

typedef struct {
    bq_mat x, w, w2, y;
} probe;

/* Products (else copies of w) a second, over at_least seconds. */
static double rate(bq_dev *dev, const probe *p, bool product, double at_least) {
    double start = bq_seconds(), seconds;
    int64_t calls = 0;
    do {
        if (product)
            dev->op->gemm(dev, false, true, 1, p->x, p->w, 0, p->y);
        else
            dev->op->copy(dev, p->w, p->w2);
        dev->op->wait(dev);
        calls++;
        seconds = bq_seconds() - start;
    } while (seconds < at_least);
    return (double)calls / seconds;
}

void bq_machine_measure(bq_machine *m, bq_dev *dev, const bq_arch *arch, int64_t tokens,
                        const bq_comm *comm) {
    size_t mark = bq_arena_mark(&dev->mem);
    shape s = shape_of(arch, tokens, dev->mem.size - mark);
    probe p = {
        bq_arena_push(&dev->mem, s.t, s.cols, BQ_F32), bq_arena_push(&dev->mem, s.rows, s.cols, BQ_F32),
        bq_arena_push(&dev->mem, s.rows, s.cols, BQ_F32), bq_arena_push(&dev->mem, s.t, s.rows, BQ_F32)};
    dev->op->zero(dev, p.x), dev->op->zero(dev, p.w);
    bq_comm_barrier(comm);
    double flop = 2 * (double)(s.t * s.rows * s.cols) * rate(dev, &p, true, 0.3);
    double memory = 8 * (double)(s.rows * s.cols) * rate(dev, &p, false, 0.1);
    double *all = calloc(2 * (size_t)comm->size, sizeof *all);
    BQ_CHECK(all, "no memory for the rates of %d ranks", comm->size);
    all[2 * comm->rank] = flop, all[2 * comm->rank + 1] = memory;
    bq_comm_gather(comm, all, 2 * comm->size);
    for (int r = 0; r < comm->size && comm->rank == 0; r++)
        flop = fmin(flop, all[2 * r]), memory = fmin(memory, all[2 * r + 1]);
    free(all);
    *m = (bq_machine){"this machine", flop, flop / 2, memory, memory / 4, 2e-6, 1e9, 0};
    bq_arena_reset(&dev->mem, mark);
}

/* Bytes a second of "200Gb" or "25GB". */
static double network_of(const char *text) {
    char *unit;
    double x = strtod(text, &unit);
    if (!(x > 0 && x < 1e6)) return 0;
    if (strcmp(unit, "Gb") == 0) return x * 1e9 / 8;
    return strcmp(unit, "GB") == 0 ? x * 1e9 : 0;
}

int bq_machine_named(bq_machine *m, const char *gpu, const char *network) {
    size_t i = 0, known = sizeof gpus / sizeof *gpus;
    while (gpu && i < known && strcmp(gpus[i].name, gpu)) i++;
    if (gpu && i == known)
        return bq_refuse(BQ_USAGE, "--gpu %s: known are v100, a100, h100, h200, b200, mi250x, mi300x", gpu);
    if (gpu)
        *m = (bq_machine){gpus[i].name,
                          SHARE_GEMM * 1e12 * gpus[i].fp32,
                          SHARE_FACTOR * 1e12 * gpus[i].fp64,
                          SHARE_MEMORY * 1e12 * gpus[i].memory,
                          SHARE_NETWORK * NETWORK,
                          LATENCY,
                          FILES,
                          (size_t)(1e9 * gpus[i].size)};
    if (!network) return BQ_OK;
    double rate_of = network_of(network);
    if (rate_of == 0)
        return bq_refuse(BQ_USAGE, "--network %s: a rate a second is needed, as 200Gb (bits) or 25GB (bytes)",
                         network);
    m->network = SHARE_NETWORK * rate_of, m->latency = LATENCY;
    return BQ_OK;
}
