/* SPDX-License-Identifier: Apache-2.0 */
/* Rates of the device that is open, by calls of the ops. */
#include "base/clock.h"
#include "base/die.h"
#include "driver/plan/machine.h"

#include <math.h>
#include <stdlib.h>

/* The sizes of what is timed: a product (t, cols) x (cols, rows), attention, a Gram matrix with its factor,
 * and GPTQ of as many rows as columns. */
typedef struct {
    int64_t t, rows, cols;
    int64_t tokens, heads, head_dim;
    int64_t k;
} shape;

enum { LEAST = 16, TOKENS = 2048, HEADS = 16, COLUMNS = 4096 };

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t need_products(const shape *s) {
    return bq_arena_need(s->t, s->cols, BQ_F32) + bq_arena_need(s->t, s->rows, BQ_F32) +
           2 * bq_arena_need(s->rows, s->cols, BQ_F32) +
           bq_gemm_scratch(BQ_COMPUTE_FP16X2, s->t, s->rows, s->cols);
}

static size_t need_attention(const shape *s) {
    if (!s->heads) return 0;
    bq_attention a = {.heads = s->heads, .kv_heads = s->heads, .head_dim = s->head_dim};
    return 8 * bq_arena_need(s->tokens, s->heads * s->head_dim, BQ_F32) +
           bq_arena_need(s->heads, s->tokens, BQ_F32) + bq_op_scratch(s->tokens, a, 1);
}

static size_t need_columns(const shape *s) {
    if (!s->k) return 0;
    return 4 * bq_arena_need(s->k, s->k, BQ_F32) + 2 * bq_arena_need(s->k, 1, BQ_F32) +
           bq_arena_need(s->k, 1, BQ_I32) + larger(bq_factor_scratch(s->k), bq_gptq_scratch(s->k, s->k, -1));
}

/* A sample, at most 512 tokens, times the largest matrix; attention of 2048 tokens and 16 heads; a Gram
 * matrix of 4096 columns.  The longest side of each is halved until it fits.  heads 0, k 0: there is no
 * room. */
static shape shape_of(const bq_arch *arch, int64_t tokens, size_t most) {
    const bq_site *site = arch->site;
    for (int m = 1; m < arch->sites; m++)
        if (arch->site[m].rows * arch->site[m].cols > site->rows * site->cols) site = &arch->site[m];
    shape s = {.t = tokens < 512 ? tokens : 512, .rows = site->rows, .cols = site->cols};
    while (need_products(&s) > most && (s.rows > LEAST || s.cols > LEAST))
        *(s.rows > s.cols ? &s.rows : &s.cols) /= 2;
    int64_t hd = arch->model.head_dim;
    s.tokens = tokens < TOKENS ? tokens : TOKENS,
    s.heads = arch->model.heads < HEADS ? arch->model.heads : HEADS;
    s.head_dim = hd < 128 ? hd : 128;
    while (need_attention(&s) > most && s.heads > 0)
        *(s.heads > 1 && s.tokens <= 512 ? &s.heads : s.tokens > LEAST ? &s.tokens : &s.heads) /= 2;
    s.k = site->cols < COLUMNS ? site->cols : COLUMNS;
    while (need_columns(&s) > most && s.k > 0) s.k = s.k > LEAST ? s.k / 2 : 0;
    return s;
}

size_t bq_machine_need(const bq_arch *arch, int64_t tokens, size_t most) {
    shape s = shape_of(arch, tokens, most);
    return larger(need_products(&s), larger(need_attention(&s), need_columns(&s)));
}

/* What is timed, and its matrices. */
typedef struct probe {
    bq_dev *dev;
    bq_attention a;
    bq_gptq gptq;
    bq_mat m[9];
    void (*call)(struct probe *p);
} probe;

static void product(probe *p) { p->dev->op->gemm(p->dev, false, true, 1, p->m[0], p->m[1], 0, p->m[3]); }
static void gram(probe *p) { p->dev->op->gram(p->dev, p->m[0], p->m[2]); }
static void copy(probe *p) { p->dev->op->copy(p->dev, p->m[1], p->m[2]); }
static void attention(probe *p) {
    p->dev->op->attention(p->dev, p->a, p->m[0], p->m[1], p->m[2], p->m[3], p->m[8]);
}
static void attention_back(probe *p) {
    p->dev->op->attention_bwd(p->dev, p->a, p->m[0], p->m[1], p->m[2], p->m[3], p->m[8], p->m[4], p->m[5],
                              p->m[6], p->m[7]);
}
static void factor(probe *p) { p->dev->op->factor(p->dev, p->m[0], (bq_mat){0}, 1, 0.01, p->m[1]); }
static void columns(probe *p) {
    const bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0};
    p->dev->op->gptq(p->dev, &p->gptq, w4, p->m[3]);
}

/* Calls a second, over at_least seconds, behind one that is not counted: the first one may load a kernel. */
static double rate(probe *p, void (*call)(probe *p), double at_least) {
    call(p);
    p->dev->op->wait(p->dev);
    double start = bq_seconds(), seconds;
    int64_t calls = 0;
    do {
        call(p);
        p->dev->op->wait(p->dev);
        calls++;
        seconds = bq_seconds() - start;
    } while (seconds < at_least);
    return (double)calls / seconds;
}

static bq_mat pushed(bq_dev *dev, int64_t rows, int64_t cols, float value) {
    bq_mat m = bq_arena_push(&dev->mem, rows, cols, BQ_F32);
    dev->op->set(dev, m, value);
    return m;
}

static void measure_products(bq_dev *dev, const shape *s, double flop[BQ_RATES], double *memory) {
    size_t mark = bq_arena_mark(&dev->mem);
    probe p = {.dev = dev,
               .m = {pushed(dev, s->t, s->cols, 0), pushed(dev, s->rows, s->cols, 0),
                     pushed(dev, s->rows, s->cols, 0), pushed(dev, s->t, s->rows, 0)}};
    const double one = 2 * (double)(s->t * s->rows * s->cols);
    for (int c = 0; c < BQ_COMPUTES; c++) {
        dev->compute = bq_dev_compute(dev, c);
        bool same = c != BQ_COMPUTE_F32 && dev->compute == bq_dev_compute(dev, c - 1);
        flop[c] = same ? flop[c - 1] : one * rate(&p, product, c ? 0.05 : 0.3);
    }
    dev->compute = BQ_COMPUTE_F32;
    *memory = 8 * (double)(s->rows * s->cols) * rate(&p, copy, 0.1);
    bq_arena_reset(&dev->mem, mark);
}

static void measure_attention(bq_dev *dev, const shape *s, double flop[BQ_RATES]) {
    if (!s->heads) return;
    size_t mark = bq_arena_mark(&dev->mem);
    probe p = {.dev = dev,
               .a = {.heads = s->heads, .kv_heads = s->heads, .head_dim = s->head_dim, .scale = 1},
               .m = {[8] = pushed(dev, s->heads, s->tokens, 0)}};
    for (int i = 0; i < 8; i++) p.m[i] = pushed(dev, s->tokens, s->heads * s->head_dim, 0);
    double pairs = (double)(s->tokens * s->tokens * s->heads * s->head_dim);
    flop[BQ_RATE_ATTENTION] = 2 * pairs * rate(&p, attention, 0.05);
    flop[BQ_RATE_ATTENTION_BACK] = 5 * pairs * rate(&p, attention_back, 0.05);
    bq_arena_reset(&dev->mem, mark);
}

static void measure_columns(bq_dev *dev, const shape *s, double flop[BQ_RATES]) {
    if (!s->k) return;
    size_t mark = bq_arena_mark(&dev->mem);
    double k = (double)s->k;
    probe p = {.dev = dev};
    for (int i = 0; i < 4; i++) p.m[i] = pushed(dev, s->k, s->k, 0);
    bq_mat order = bq_arena_push(&dev->mem, s->k, 1, BQ_I32);
    flop[BQ_RATE_GRAM] = k * k * k * rate(&p, gram, 0.05);
    flop[BQ_RATE_FACTOR] = 2.0 / 3 * k * k * k * rate(&p, factor, 0.05); /* of 0 with ones on its diagonal */
    p.gptq = (bq_gptq){.w = p.m[2], .ut = p.m[1], .order = order, .diag = pushed(dev, s->k, 1, 1)};
    p.gptq.scale = pushed(dev, s->k, 1, 1);
    dev->op->set(dev, p.m[2], 0);
    dev->op->order(dev, p.gptq.diag, BQ_ORDER_NONE, 1, order);
    flop[BQ_RATE_COLUMNS] = k * k * k * rate(&p, columns, 0.05);
    bq_arena_reset(&dev->mem, mark);
}

/* What one rank reads and writes without a device is not measured. */
#define NETWORK_OF_MEMORY 4 /* messages within a machine are copies */
#define LATENCY           2e-6
#define FILES             1e9

/* Where there is no room to measure: shares of the rate of products, about those of docs/gpu-runs.md. */
static const double unmeasured[BQ_RATES] = {[BQ_RATE_GRAM] = 0.8,
                                            [BQ_RATE_ATTENTION] = 0.3,
                                            [BQ_RATE_ATTENTION_BACK] = 0.15,
                                            [BQ_RATE_FACTOR] = 0.1,
                                            [BQ_RATE_COLUMNS] = 0.12};

void bq_machine_measure(bq_machine *m, bq_dev *dev, const bq_arch *arch, int64_t tokens,
                        const bq_comm *comm) {
    enum { ALL = BQ_RATES + 1 };
    shape s = shape_of(arch, tokens, dev->mem.size - bq_arena_mark(&dev->mem));
    double *all = calloc((size_t)(ALL * comm->size), sizeof *all), *mine = all + ALL * comm->rank;
    BQ_CHECK(all, "no memory for the rates of %d ranks", comm->size);
    bq_comm_barrier(comm);
    measure_products(dev, &s, mine, &mine[BQ_RATES]);
    for (int k = BQ_RATE_GRAM; k < BQ_RATES; k++) mine[k] = mine[BQ_RATE_PRODUCTS] * unmeasured[k];
    measure_attention(dev, &s, mine);
    measure_columns(dev, &s, mine);
    bq_comm_gather(comm, all, (int64_t)ALL * comm->size);
    for (int r = 1; r < comm->size && comm->rank == 0; r++)
        for (int k = 0; k < ALL; k++) all[k] = fmin(all[k], all[ALL * r + k]);
    *m = (bq_machine){.name = "this machine",
                      .memory = mine[BQ_RATES],
                      .fabric = mine[BQ_RATES] / NETWORK_OF_MEMORY,
                      .network = mine[BQ_RATES] / NETWORK_OF_MEMORY,
                      .latency = LATENCY,
                      .files = FILES,
                      .files_all = FILES * comm->size,
                      .writes = FILES,
                      .node = comm->locals};
    for (int k = 0; k < BQ_RATES; k++) m->flop[k] = mine[k];
    free(all);
}
