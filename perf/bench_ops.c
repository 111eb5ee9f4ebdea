/* SPDX-License-Identifier: Apache-2.0 */
/* bench_ops - speed of the ops, as csv on standard output.
 *
 *     bench_ops [threads [tokens [op]]] [--backend cuda] [--shape NAME] [--runs N] [--compare OLD.csv]
 *
 * Defaults: 1 thread, 2048 tokens, all ops, the cpu.  Shapes are those of a block of SmolLM2-135M, on a GPU
 * of Llama 3 8B; `tiny` is for tests.  Two roofs are measured beside every single run of an op, because the
 * machine may be shared: a GEMM in f32 (one large call a thread, or one on the GPU) and a copy beyond the
 * caches.  The fractions are medians over runs, seconds are the least.  flop and bytes count what must be
 * done: causal attention half the square, its backward with the recomputation; each array read or written
 * once, so that data in cache may exceed the copy, and products on tensor cores the GEMM. */
#include "base/clock.h"
#include "base/die.h"
#include "base/num.h"
#include "compare.h"
#include "kernels/adam.h"
#include "kernels/ops.h"
#include "kernels/restart.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A block, and how it is measured: side of the GEMM and bytes of the copy that are roofs, runs, calls of a
 * run. */
typedef struct {
    const char *name;
    int64_t hidden, inter, heads, kv_heads, head_dim, vocab;
    int64_t roof, copy;
    int runs, calls;
} shape;
static const shape shapes[] = {
    {"smollm2", 576, 1536, 9, 3, 64, 49152, 768, 24 << 20, 15, 1},
    {"llama1b", 2048, 8192, 32, 8, 64, 128256, 8192, 1 << 30, 15, 8},
    {"llama8b", 4096, 14336, 32, 8, 128, 128256, 8192, 1 << 30, 15, 8},
    {"tiny", 64, 96, 2, 1, 32, 300, 64, 1 << 16, 1, 2},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, MOST_RUNS = 15 };

static bq_dev dev;
static shape of;
static int64_t T = 2048, QKV;
static bool gpu;
static const char *only;
static bq_mat roof_a, roof_b, roof_c; /* of the GEMM: c a slice a thread */
static bq_mat copy_from, copy_to;     /* on a GPU */

/* With one thread the processor time, which other users of the machine disturb less; else the wall clock's.
 */
static double now(void) {
    struct timespec t;
    if (gpu || omp_get_max_threads() > 1) return bq_seconds();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double gemm_roof(void) {
    int threads = gpu ? 1 : omp_get_max_threads(), n = (int)of.roof;
    double start = now();
    if (gpu) dev.op->gemm(&dev, false, true, 1, roof_a, roof_b, 0, roof_c), dev.op->wait(&dev);
#pragma omp parallel for schedule(static) if (!gpu)
    for (int t = 0; t < (gpu ? 0 : threads); t++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, bq_f32(roof_a), n, bq_f32(roof_b), n,
                    0, bq_mat_at(roof_c, (int64_t)t * n, 0), n);
    return threads * 2.0 * pow(n, 3) / (now() - start);
}

static double copy_roof(void) {
    static char *from, *to;
    size_t bytes = (size_t)of.copy;
    if (!gpu && !from) from = malloc(bytes), to = malloc(bytes), memset(from, 1, bytes), memset(to, 1, bytes);
    int threads = omp_get_max_threads();
    double start = now();
    if (gpu) dev.op->copy(&dev, copy_from, copy_to), dev.op->wait(&dev);
#pragma omp parallel for schedule(static) if (!gpu)
    for (int t = 0; t < (gpu ? 0 : threads); t++) {
        size_t part = bytes / (size_t)threads;
        memcpy(to + (size_t)t * part, from + (size_t)t * part, part);
    }
    return 2.0 * (double)of.copy / (now() - start);
}

/* A matrix on the device with what fill writes for element i. */
static bq_mat made(int64_t rows, int64_t cols, bq_type type, void (*fill)(void *at, int64_t i)) {
    bq_mat m = bq_arena_push(&dev.mem, rows, cols, type);
    size_t size = bq_type_size(type);
    char *host = malloc((size_t)(rows * cols) * size);
    BQ_CHECK(host, "no memory for %ld x %ld", (long)rows, (long)cols);
    for (int64_t i = 0; i < rows * cols; i++) fill(host + (size_t)i * size, i);
    dev.op->put(&dev, bq_mat_host(host, rows, cols, type), m);
    dev.op->wait(&dev);
    free(host);
    return m;
}
static void number(void *at, int64_t i) { *(float *)at = (float)(i * 2654435761 % 1999) * 1e-3f - 1; }
static void token(void *at, int64_t i) { *(int32_t *)at = (int32_t)(i * 7919 % of.vocab); }
static bq_mat fresh(int64_t rows, int64_t cols) { return made(rows, cols, BQ_F32, number); }

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void work(bq_mat *m);

static void report(const char *op, const char *label, double flop, double bytes, work *run, bq_mat *m) {
    if (only && !strstr(op, only)) return;
    double best = INFINITY, gemm[MOST_RUNS], copy[MOST_RUNS];
    run(m);
    dev.op->wait(&dev);
    for (int r = 0; r < of.runs; r++) {
        double g = gemm_roof(), c = copy_roof(), start = now();
        for (int i = 0; i < of.calls; i++) run(m);
        dev.op->wait(&dev);
        double s = (now() - start) / of.calls;
        best = s < best ? s : best, gemm[r] = flop / s / g, copy[r] = bytes / s / c;
    }
    qsort(gemm, (size_t)of.runs, sizeof *gemm, by_size), qsort(copy, (size_t)of.runs, sizeof *copy, by_size);
    printf("%s,%s,%.3e,%.2f,%.2f,%.3f,%.3f\n", op, label, best, flop / best * 1e-9, bytes / best * 1e-9,
           gemm[of.runs / 2], copy[of.runs / 2]);
    fflush(stdout);
    compare_row(op, label, 2, (double[]){gemm[of.runs / 2], copy[of.runs / 2]});
}

/* ---- the runs: m holds the op's arguments ---- */

static bq_compute way;
static void product(bool ta, bool tb, bq_mat *m) {
    dev.compute = way;
    dev.op->gemm(&dev, ta, tb, 1, m[0], m[1], 0, m[2]);
    dev.compute = BQ_COMPUTE_F32;
}
static void forward(bq_mat *m) { product(false, true, m); }
static void backward_x(bq_mat *m) { product(false, false, m); }
static void backward_w(bq_mat *m) { product(true, false, m); }
static void add(bq_mat *m) { dev.op->add(&dev, m[0], m[1]); }
static void rmsnorm(bq_mat *m) { dev.op->rmsnorm(&dev, m[0], m[1], 1e-5f, m[2]); }
static void rmsnorm_bwd(bq_mat *m) { dev.op->rmsnorm_bwd(&dev, m[0], m[1], 1e-5f, m[2], m[3]); }
static void rope(bq_mat *m) { dev.op->rope(&dev, m[0], of.heads, of.head_dim, m[1], m[2], 0); }
static void glu(bq_mat *m) { dev.op->glu(&dev, BQ_SILU, 0, m[0], m[1], m[2]); }
static void glu_bwd(bq_mat *m) { dev.op->glu_bwd(&dev, BQ_SILU, 0, m[0], m[1], m[2], m[3], m[4]); }
static void column_max(bq_mat *m) { dev.op->column_max(&dev, m[0], 0, m[1]); }
static void column_squares(bq_mat *m) { dev.op->column_squares(&dev, m[0], m[1]); }
static double loss;
static void mse(bq_mat *m) { dev.op->mse(&dev, m[0], m[1], 1e-6, m[2], &loss); }
static double *nll;
static void xent(bq_mat *m) { dev.op->xent(&dev, m[0], m[1], 0, m[2], nll); }

static bq_attention heads;
static void attention(bq_mat *m) { dev.op->attention(&dev, heads, m[0], m[1], m[2], m[3], m[4]); }
static void attention_bwd(bq_mat *m) {
    dev.op->attention_bwd(&dev, heads, m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]);
}

static const bq_mat none;
static bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
static bq_adascale trained;
static void adascale_weights(bq_mat *m) { dev.op->adascale_weights(&dev, &trained, w4, m[0], m[1], none); }
static void adascale_step(bq_mat *m) { dev.op->adascale_step(&dev, &trained, w4, m[0], m[2], none); }
static void mix(bq_mat *m) { dev.op->mix(&dev, m[0], m[1], 0.5, (bq_rng_key){0}, m[2]); }

/* ---- the tables ---- */

static void code_of(void *at, int64_t i) { *(uint16_t *)at = bq_to_f16((float)(i * 7919 % 15 - 7)); }

/* A linear's three products, each way the device can make them; and those of codes. */
static void products(const char *name, int64_t out, int64_t in) {
    static work *const run[] = {forward, backward_x, backward_w};
    static const char *const what[] = {"forward", "dx", "dw"};
    size_t mark = bq_arena_mark(&dev.mem);
    bq_mat x = fresh(T, in), w = fresh(out, in), y = fresh(T, out);
    bq_mat args[][3] = {{x, w, y}, {y, w, x}, {y, x, w}};
    double flop = 2.0 * (double)(T * out * in), bytes = 4.0 * (double)(T * in + out * in + T * out);
    char label[64], op[32];
    snprintf(label, sizeof label, "%s %ldx%ldx%ld", name, (long)T, (long)out, (long)in);
    for (bq_compute c = 0; c < BQ_COMPUTES; c++)
        for (int i = 0; i < 3 && bq_dev_compute(&dev, c) == c; i++) {
            snprintf(op, sizeof op, "gemm %s%s%s", what[i], c ? " " : "", c ? bq_compute_name(c) : "");
            way = c;
            report(op, label, flop, bytes, run[i], args[i]);
        }
    if (bq_dev_compute(&dev, BQ_COMPUTE_FP16X2) == BQ_COMPUTE_FP16X2) {
        w = made(out, in, BQ_F16, code_of), way = BQ_COMPUTE_FP16X2;
        report("gemm forward fp16x2 codes", label, flop, bytes, forward, (bq_mat[]){x, w, y});
        report("gemm dx fp16x2 codes", label, flop, bytes, backward_x, (bq_mat[]){y, w, x});
    }
    way = BQ_COMPUTE_F32;
    bq_arena_reset(&dev.mem, mark);
}

static void gemms(void) {
    products("qkv", QKV, of.hidden), products("o", of.hidden, of.heads * of.head_dim);
    products("gate_up", 2 * of.inter, of.hidden), products("up", of.inter, of.hidden);
    products("down", of.hidden, of.inter);
}

static void rows(void) {
    size_t mark = bq_arena_mark(&dev.mem);
    int64_t h = of.hidden, inter = of.inter;
    bq_mat x = fresh(T, h), y = fresh(T, h), z = fresh(T, h), w = fresh(1, h);
    bq_mat q = fresh(T, of.heads * of.head_dim), cs = fresh(T, of.head_dim / 2);
    bq_mat g = fresh(T, inter), u = fresh(T, inter), d = fresh(T, inter), dg = fresh(T, inter),
           du = fresh(T, inter), row = fresh(1, inter);
    double n = (double)(T * h), i = (double)(T * inter), r = (double)(q.rows * q.cols);
    report("add", "TxH", n, 12 * n, add, (bq_mat[]){x, y});
    report("mix", "TxH", 10 * n, 12 * n, mix, (bq_mat[]){x, y, z});
    report("rmsnorm", "TxH", 4 * n, 8 * n, rmsnorm, (bq_mat[]){x, w, z});
    report("rmsnorm_bwd", "TxH", 10 * n, 16 * n, rmsnorm_bwd, (bq_mat[]){x, w, y, z});
    report("rope", "TxH", 3 * r, 8 * r, rope, (bq_mat[]){q, cs, cs});
    report("glu", "TxI", 25 * i, 12 * i, glu, (bq_mat[]){g, u, d});
    report("glu_bwd", "TxI", 32 * i, 20 * i, glu_bwd, (bq_mat[]){g, u, d, dg, du});
    report("column_max", "TxI", i, 4 * i, column_max, (bq_mat[]){g, row});
    report("column_squares", "TxI", 2 * i, 4 * i, column_squares, (bq_mat[]){g, row});
    report("mse", "TxH", 4 * n, 12 * n, mse, (bq_mat[]){x, y, z});
    bq_arena_reset(&dev.mem, mark);
}

/* A matrix like gate_up in training. */
static void training(void) {
    size_t mark = bq_arena_mark(&dev.mem);
    int64_t n = 2 * of.inter, k = of.hidden;
    bq_mat *const wide[] = {&trained.s2, &trained.m_s2, &trained.v_s2};
    bq_mat *const column[] = {&trained.hi, &trained.lo, &trained.beta, &trained.gamma, &trained.s3};
    trained.w = fresh(n, k);
    for (int i = 0; i < 3; i++) dev.op->zero(&dev, *wide[i] = bq_arena_push(&dev.mem, n, k, BQ_F32));
    for (int i = 0; i < 5; i++)
        dev.op->set(&dev, *column[i] = bq_arena_push(&dev.mem, n, 1, BQ_F32), i == 0 ? 1 : i == 1 ? -1 : 0);
    trained.m_row = bq_arena_push(&dev.mem, n, 3, BQ_F32),
    trained.v_row = bq_arena_push(&dev.mem, n, 3, BQ_F32);
    dev.op->zero(&dev, trained.m_row), dev.op->zero(&dev, trained.v_row);
    bq_mat what = fresh(n, k), scale = fresh(n, 1), adam = fresh(1, BQ_ADAM_NUMBERS);
    bq_adam_put(&dev, (bq_adam){1e-3f, 5e-4f, 0.9, 0.999, 1e-8f, 1, 0}, adam);
    double each = (double)(n * k);
    char label[64];
    snprintf(label, sizeof label, "%ldx%ld", (long)n, (long)k);
    report("adascale_weights", label, 30 * each, 12 * each, adascale_weights, (bq_mat[]){what, scale});
    report("adascale_step", label, 50 * each, 32 * each, adascale_step, (bq_mat[]){what, scale, adam});
    bq_arena_reset(&dev.mem, mark);
}

static void scores(void) {
    size_t mark = bq_arena_mark(&dev.mem);
    int64_t hd = of.head_dim, wide = of.heads * hd, narrow = of.kv_heads * hd;
    bq_mat qkv = fresh(T, QKV), dqkv = fresh(T, QKV), out = fresh(T, wide), dout = fresh(T, wide),
           lse = fresh(of.heads, T);
    bq_mat q = bq_mat_cols(qkv, 0, wide), k = bq_mat_cols(qkv, wide, narrow),
           v = bq_mat_cols(qkv, wide + narrow, narrow);
    bq_mat dq = bq_mat_cols(dqkv, 0, wide), dk = bq_mat_cols(dqkv, wide, narrow);
    bq_mat dv = bq_mat_cols(dqkv, wide + narrow, narrow);
    double pairs = 0.5 * (double)(T * (T + 1) * of.heads), bytes = 4.0 * (double)(T * (QKV + wide));
    char label[64];
    snprintf(label, sizeof label, "T=%ld nh=%ld nkv=%ld hd=%ld", (long)T, (long)of.heads, (long)of.kv_heads,
             (long)hd);
    attention((bq_mat[]){q, k, v, out, lse});
    report("attention", label, pairs * 4 * (double)hd, bytes, attention, (bq_mat[]){q, k, v, out, lse});
    report("attention_bwd", label, pairs * 10 * (double)hd, 2 * bytes, attention_bwd,
           (bq_mat[]){q, k, v, out, lse, dout, dq, dk, dv});
    bq_arena_reset(&dev.mem, mark);
    bq_mat x = fresh(T, of.hidden), head = fresh(of.vocab, of.hidden), next = made(T, 1, BQ_I32, token);
    double h = (double)of.hidden, each = (double)(T * of.vocab);
    nll = malloc((size_t)T * sizeof *nll);
    snprintf(label, sizeof label, "T=%ld H=%ld V=%ld", (long)T, (long)of.hidden, (long)of.vocab);
    report("xent", label, (2 * h + 20) * each, 4 * (double)of.vocab * h, xent, (bq_mat[]){x, head, next});
    free(nll);
    bq_arena_reset(&dev.mem, mark);
}

static void gram(bq_mat *m) {
    dev.compute = way;
    dev.op->gram(&dev, m[0], m[1]);
    dev.compute = BQ_COMPUTE_F32;
}
static void factor(bq_mat *m) { dev.op->factor(&dev, m[0], (bq_mat){0}, 1, 0.01, m[1]); }
static void fit(bq_mat *m) { dev.op->fit(&dev, m[0], m[1], w4, m[2], (bq_mat){0}); }
static void gptq(bq_mat *m) {
    bq_gptq p = {.w = m[0], .ut = m[1], .order = m[2], .diag = m[3], .scale = m[4]};
    dev.op->gptq(&dev, &p, w4, m[5]);
}

static void ramp(void *at, int64_t i) { /* so that the Gram matrix is definite */
    number(at, i);
    *(float *)at += (float)(i * 31 % 101) * 0.01f;
}
static void one(void *at, int64_t i) { *(float *)at = 1 + (float)(i % 7); }

static void moments(void) {
    const int64_t sizes[][2] = {{QKV, of.hidden}, {of.hidden, of.inter}}; /* rows and columns of a linear */
    for (int i = 0; i < 2; i++) {
        size_t mark = bq_arena_mark(&dev.mem);
        int64_t n = sizes[i][0], k = sizes[i][1];
        double N = (double)n, K = (double)k, tokens = (double)T;
        bq_mat x = made(T, k, BQ_F32, ramp), h = fresh(k, k), u = fresh(k, k), w = fresh(n, k),
               fold = fresh(n, k), scale = fresh(n, 1), diag = made(k, 1, BQ_F32, one),
               order = bq_arena_push(&dev.mem, k, 1, BQ_I32);
        gram((bq_mat[]){x, h}), factor((bq_mat[]){h, u});
        dev.op->order(&dev, diag, BQ_ORDER_ACT, 0, order);
        dev.op->range(&dev, w, w4, scale, (bq_mat){0});
        char label[64];
        snprintf(label, sizeof label, "T=%ld K=%ld", (long)T, (long)k);
        for (way = BQ_COMPUTE_F32; way <= BQ_COMPUTE_FP16X2 && bq_dev_compute(&dev, way) == way; way++)
            report(way ? "gram fp16x2" : "gram", label, tokens * K * (K + 1), 4 * (tokens * K + K * K), gram,
                   (bq_mat[]){x, h});
        way = BQ_COMPUTE_F32;
        snprintf(label, sizeof label, "K=%ld f64", (long)k);
        report("factor", label, 2 * K * K * K / 3, 8 * K * K, factor, (bq_mat[]){h, u});
        snprintf(label, sizeof label, "%ldx%ld", (long)n, (long)k);
        report("fit", label, 80 * 9 * N * K, 4 * N * K, fit, (bq_mat[]){w, bq_mat_reshape(diag, k), scale});
        report("gptq", label, N * K * K, 8 * N * K + 4 * K * K, gptq,
               (bq_mat[]){w, u, order, diag, scale, fold});
        bq_arena_reset(&dev.mem, mark);
    }
}

/* ---- the program ---- */

/* Take `NAME VALUE` out of the arguments. */
static const char *option(int *argc, char **argv, const char *name, const char *value) {
    for (int i = 1; i + 1 < *argc; i++)
        if (strcmp(argv[i], name) == 0) {
            value = argv[i + 1];
            memmove(argv + i, argv + i + 2, (size_t)(*argc - i - 1) * sizeof *argv);
            *argc -= 2;
        }
    return value;
}

/* Floats of the largest table, and of the roofs. */
static size_t room(int threads) {
    int64_t h = of.hidden, inter = of.inter, most = of.vocab * h;
    int64_t train = 6 * 2 * inter * h, moment = 2 * inter * inter + 2 * inter * h + 2 * h * h + 2 * QKV * h;
    most = train > most ? train : most, most = moment > most ? moment : most;
    int64_t floats = T * (6 * h + 6 * inter + 4 * QKV) + 64 * (h + inter + QKV) + most;
    floats += (2 + threads) * of.roof * of.roof + (gpu ? of.copy / 2 : 0);
    size_t scratch = bq_op_scratch(T, heads, of.vocab) + bq_factor_scratch(inter) +
                     bq_gptq_scratch(h, inter, -1) + bq_gptq_scratch(QKV, h, -1);
    return (size_t)floats * sizeof(float) + scratch + bq_gemm_scratch(BQ_COMPUTE_FP16X2, T, 2 * inter, h) +
           bq_gemm_scratch(BQ_COMPUTE_FP16X2, T, h, 2 * inter) +
           bq_gemm_scratch(BQ_COMPUTE_FP16X2, inter, inter, T) + (1 << 20);
}

int main(int argc, char **argv) {
    bq_restart(argv);
    compare_open(&argc, argv);
    const char *backend = option(&argc, argv, "--backend", "cpu");
    gpu = strncmp(backend, "cuda", 4) == 0;
    const char *name = option(&argc, argv, "--shape", gpu ? "llama8b" : "smollm2");
    for (int i = 0; i < SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0) of = shapes[i];
    const char *runs = option(&argc, argv, "--runs", NULL);
    if (runs && atoi(runs) > 0 && atoi(runs) < of.runs) of.runs = atoi(runs);
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (argc > 2) T = atol(argv[2]);
    if (argc > 3) only = argv[3];
    if (threads < 1 || T < 1 || !of.name || strncmp(backend, "auto", 4) == 0)
        return fprintf(stderr, "usage: bench_ops [threads [tokens [op]]] [--backend cpu|cuda|cuda:N] "
                               "[--shape smollm2|llama1b|llama8b|tiny] [--runs N] [--compare OLD.csv]\n"),
               2;
    omp_set_num_threads(threads);
    QKV = (of.heads + 2 * of.kv_heads) * of.head_dim;
    heads =
        (bq_attention){.heads = of.heads, .kv_heads = of.kv_heads, .head_dim = of.head_dim, .scale = 0.125f};
    int code = bq_dev_open(&dev, backend, threads, room(threads));
    if (code != BQ_OK) return code;
    roof_a = fresh(of.roof, of.roof), roof_b = fresh(of.roof, of.roof);
    roof_c = fresh((gpu ? 1 : threads) * of.roof, of.roof);
    if (gpu) copy_from = fresh(1, of.copy / 4), copy_to = fresh(1, of.copy / 4);
    printf("# %s, %d threads, %ld tokens, %s\nop,shape,seconds,gflops,gbytes,of_gemm,of_copy\n", dev.name,
           threads, (long)T, of.name);
    gemms(), rows(), training(), scores(), moments();
    bq_dev_close(&dev);
    return compare_close();
}
