/* bench_ops - speed of the ops, as csv on standard output.
 *
 *     bench_ops [threads [tokens [op]]] [--compare OLD.csv]      defaults: 1 thread, 2048 tokens, all ops
 *
 * Shapes are those of a block of SmolLM2-135M.  Two roofs are measured beside every single run of an op,
 * because the machine may be shared: a GEMM (one large call a thread) and a copy beyond the caches.  The
 * fractions are medians over runs, seconds are the least.  flop and bytes count what must be done: causal
 * attention half the square, its backward with the recomputation; each array read or written once, so that
 * data in cache may exceed the copy. */
#include "base/clock.h"
#include "base/die.h"
#include "compare.h"
#include "kernels/ops.h"
#include "kernels/restart.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { H = 576, INTER = 1536, NH = 9, NKV = 3, HD = 64, QKV = (NH + 2 * NKV) * HD, V = 49152 };
enum { ROOF = 768, COPY = 24 << 20, RUNS = 15 };

static bq_dev dev;
static int64_t T = 2048;
static const char *only;
static float *roof_a, *roof_b, *roof_c; /* a slice a thread; then the two sides of the copy */

/* With one thread the processor time, which other users of the machine disturb less; else the wall clock's.
 */
static double now(void) {
    struct timespec t;
    if (omp_get_max_threads() > 1) return bq_seconds();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double gemm_roof(void) {
    int threads = omp_get_max_threads();
    double start = now();
#pragma omp parallel for schedule(static)
    for (int t = 0; t < threads; t++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, ROOF, ROOF, ROOF, 1, roof_a, ROOF, roof_b, ROOF,
                    0, roof_c + (size_t)t * ROOF * ROOF, ROOF);
    return threads * 2.0 * ROOF * ROOF * ROOF / (now() - start);
}

static double copy_roof(void) {
    static char *from, *to;
    if (!from) from = malloc(COPY), to = malloc(COPY), memset(from, 1, COPY), memset(to, 1, COPY);
    int threads = omp_get_max_threads();
    double start = now();
#pragma omp parallel for schedule(static)
    for (int t = 0; t < threads; t++) {
        size_t part = COPY / (size_t)threads;
        memcpy(to + (size_t)t * part, from + (size_t)t * part, part);
    }
    return 2.0 * COPY / (now() - start);
}

static bq_mat fresh(int64_t rows, int64_t cols) {
    bq_mat m = bq_arena_push(&dev.mem, rows, cols, BQ_F32);
    for (int64_t i = 0; i < rows * cols; i++) bq_f32(m)[i] = (float)(i * 2654435761 % 1999) * 1e-3f - 1;
    return m;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void work(bq_mat *m);

static void report(const char *op, const char *shape, double flop, double bytes, work *run, bq_mat *m) {
    if (only && !strstr(op, only)) return;
    double best = INFINITY, gemm[RUNS], copy[RUNS];
    run(m);
    for (int r = 0; r < RUNS; r++) {
        double g = gemm_roof(), c = copy_roof(), start = now();
        run(m);
        dev.op->wait(&dev);
        double s = now() - start;
        best = s < best ? s : best, gemm[r] = flop / s / g, copy[r] = bytes / s / c;
    }
    qsort(gemm, RUNS, sizeof *gemm, by_size), qsort(copy, RUNS, sizeof *copy, by_size);
    printf("%s,%s,%.3e,%.2f,%.2f,%.3f,%.3f\n", op, shape, best, flop / best * 1e-9, bytes / best * 1e-9,
           gemm[RUNS / 2], copy[RUNS / 2]);
    fflush(stdout);
    compare_row(op, shape, 2, (double[]){gemm[RUNS / 2], copy[RUNS / 2]});
}

/* ---- the runs: m holds the op's arguments ---- */

static void forward(bq_mat *m) { dev.op->gemm(&dev, false, true, 1, m[0], m[1], 0, m[2]); }
static void backward_x(bq_mat *m) { dev.op->gemm(&dev, false, false, 1, m[0], m[1], 0, m[2]); }
static void backward_w(bq_mat *m) { dev.op->gemm(&dev, true, false, 1, m[0], m[1], 0, m[2]); }
static void add(bq_mat *m) { dev.op->add(&dev, m[0], m[1]); }
static void rmsnorm(bq_mat *m) { dev.op->rmsnorm(&dev, m[0], m[1], 1e-5f, m[2]); }
static void rmsnorm_bwd(bq_mat *m) { dev.op->rmsnorm_bwd(&dev, m[0], m[1], 1e-5f, m[2], m[3]); }
static void rope(bq_mat *m) { dev.op->rope(&dev, m[0], NH, HD, m[1], m[2], false); }
static void glu(bq_mat *m) { dev.op->glu(&dev, BQ_SILU, m[0], m[1], m[2]); }
static void glu_bwd(bq_mat *m) { dev.op->glu_bwd(&dev, BQ_SILU, m[0], m[1], m[2], m[3], m[4]); }
static double loss;
static void mse(bq_mat *m) { dev.op->mse(&dev, m[0], m[1], 1e-6, m[2], &loss); }
static double *nll;
static void xent(bq_mat *m) { dev.op->xent(&dev, m[0], m[1], m[2], nll); }

static bq_attention heads = {NH, NKV, HD, 0.125f, 0};
static void attention(bq_mat *m) { dev.op->attention(&dev, heads, m[0], m[1], m[2], m[3], m[4]); }
static void attention_bwd(bq_mat *m) {
    dev.op->attention_bwd(&dev, heads, m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]);
}

/* ---- the tables ---- */

static void gemms(void) {
    static const struct {
        const char *name;
        int64_t out, in;
    } linears[] = {
        {"qkv", QKV, H}, {"o", H, H}, {"gate_up", 2 * INTER, H}, {"up", INTER, H}, {"down", H, INTER}};
    for (size_t i = 0; i < sizeof linears / sizeof *linears; i++) {
        size_t mark = bq_arena_mark(&dev.mem);
        int64_t out = linears[i].out, in = linears[i].in;
        bq_mat x = fresh(T, in), w = fresh(out, in), y = fresh(T, out);
        double flop = 2.0 * (double)(T * out * in), bytes = 4.0 * (double)(T * in + out * in + T * out);
        char shape[64];
        snprintf(shape, sizeof shape, "%s %ldx%ldx%ld", linears[i].name, (long)T, (long)out, (long)in);
        report("gemm forward", shape, flop, bytes, forward, (bq_mat[]){x, w, y});
        report("gemm dx", shape, flop, bytes, backward_x, (bq_mat[]){y, w, x});
        report("gemm dw", shape, flop, bytes, backward_w, (bq_mat[]){y, x, w});
        bq_arena_reset(&dev.mem, mark);
    }
}

static void rows(void) {
    size_t mark = bq_arena_mark(&dev.mem);
    bq_mat x = fresh(T, H), y = fresh(T, H), z = fresh(T, H), w = fresh(1, H), cs = fresh(T, HD / 2);
    bq_mat g = fresh(T, INTER), u = fresh(T, INTER), d = fresh(T, INTER), dg = fresh(T, INTER),
           du = fresh(T, INTER);
    double n = (double)T * H, i = (double)T * INTER;
    report("add", "TxH", n, 12 * n, add, (bq_mat[]){x, y});
    report("rmsnorm", "TxH", 4 * n, 8 * n, rmsnorm, (bq_mat[]){x, w, z});
    report("rmsnorm_bwd", "TxH", 10 * n, 16 * n, rmsnorm_bwd, (bq_mat[]){x, w, y, z});
    report("rope", "TxH", 3 * n, 8 * n, rope, (bq_mat[]){x, cs, cs});
    report("glu", "TxI", 25 * i, 12 * i, glu, (bq_mat[]){g, u, d});
    report("glu_bwd", "TxI", 32 * i, 20 * i, glu_bwd, (bq_mat[]){g, u, d, dg, du});
    report("mse", "TxH", 4 * n, 12 * n, mse, (bq_mat[]){x, y, z});
    bq_arena_reset(&dev.mem, mark);
}

static void scores(void) {
    size_t mark = bq_arena_mark(&dev.mem);
    bq_mat qkv = fresh(T, QKV), dqkv = fresh(T, QKV), out = fresh(T, H), dout = fresh(T, H),
           lse = fresh(NH, T);
    bq_mat q = bq_mat_cols(qkv, 0, H), k = bq_mat_cols(qkv, H, NKV * HD),
           v = bq_mat_cols(qkv, H + NKV * HD, NKV * HD);
    bq_mat dq = bq_mat_cols(dqkv, 0, H), dk = bq_mat_cols(dqkv, H, NKV * HD);
    bq_mat dv = bq_mat_cols(dqkv, H + NKV * HD, NKV * HD);
    double pairs = 0.5 * (double)(T * (T + 1) * NH), bytes = 4.0 * (double)(T * (QKV + H));
    char shape[64];
    snprintf(shape, sizeof shape, "T=%ld nh=%d nkv=%d hd=%d", (long)T, NH, NKV, HD);
    attention((bq_mat[]){q, k, v, out, lse});
    report("attention", shape, pairs * 4 * HD, bytes, attention, (bq_mat[]){q, k, v, out, lse});
    report("attention_bwd", shape, pairs * 10 * HD, 2 * bytes, attention_bwd,
           (bq_mat[]){q, k, v, out, lse, dout, dq, dk, dv});
    bq_arena_reset(&dev.mem, mark);
    bq_mat x = fresh(T, H), head = fresh(V, H), next = bq_arena_push(&dev.mem, T, 1, BQ_I32);
    for (int64_t t = 0; t < T; t++) ((int32_t *)next.data)[t] = (int32_t)(t * 7919 % V);
    nll = malloc((size_t)T * sizeof *nll);
    snprintf(shape, sizeof shape, "T=%ld H=%d V=%d", (long)T, H, V);
    report("xent", shape, (2.0 * H + 20) * (double)(T * V), 4.0 * V * H, xent, (bq_mat[]){x, head, next});
    free(nll);
    bq_arena_reset(&dev.mem, mark);
}

static void gram(bq_mat *m) { dev.op->gram(&dev, m[0], m[1]); }
static void factor(bq_mat *m) { dev.op->factor(&dev, m[0], (bq_mat){0}, 1, 0.01, m[1]); }
static bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_AIMET};
static void fit(bq_mat *m) { dev.op->fit(&dev, m[0], m[1], w4, m[2], (bq_mat){0}); }
static void gptq(bq_mat *m) {
    bq_gptq p = {.w = m[0], .ut = m[1], .order = m[2], .diag = m[3], .scale = m[4]};
    dev.op->gptq(&dev, &p, w4, m[5]);
}

static void moments(void) {
    static const int64_t sizes[][2] = {{QKV, H}, {H, INTER}}; /* rows and columns of a linear */
    for (int i = 0; i < 2; i++) {
        size_t mark = bq_arena_mark(&dev.mem);
        int64_t n = sizes[i][0], k = sizes[i][1];
        double N = (double)n, K = (double)k, tokens = (double)T;
        bq_mat x = fresh(T, k), h = fresh(k, k), u = fresh(k, k), w = fresh(n, k), fold = fresh(n, k),
               scale = fresh(n, 1), diag = fresh(k, 1), order = bq_arena_push(&dev.mem, k, 1, BQ_I32);
        for (int64_t t = 0; t < T; t++) /* so that H is definite */
            for (int64_t c = 0; c < k; c++)
                *(float *)bq_mat_at(x, t, c) += (float)((t * 31 + c * 17) % 101) * 0.01f;
        gram((bq_mat[]){x, h}), factor((bq_mat[]){h, u});
        for (int64_t c = 0; c < k; c++) bq_f32(diag)[c] = *(float *)bq_mat_at(h, c, c);
        dev.op->order(&dev, diag, BQ_ORDER_ACT, 0, order);
        dev.op->range(&dev, w, w4, scale, (bq_mat){0});
        char shape[64];
        snprintf(shape, sizeof shape, "T=%ld K=%ld", (long)T, (long)k);
        report("gram", shape, tokens * K * (K + 1), 4 * (tokens * K + K * K), gram, (bq_mat[]){x, h});
        snprintf(shape, sizeof shape, "K=%ld f64", (long)k);
        report("factor", shape, 2 * K * K * K / 3, 8 * K * K, factor, (bq_mat[]){h, u});
        snprintf(shape, sizeof shape, "%ldx%ld", (long)n, (long)k);
        report("fit", shape, 80 * 9 * N * K, 4 * N * K, fit,
               (bq_mat[]){w, bq_mat_host(diag.data, 1, k, BQ_F32), scale});
        report("gptq", shape, N * K * K, 8 * N * K + 4 * K * K, gptq,
               (bq_mat[]){w, u, order, diag, scale, fold});
        bq_arena_reset(&dev.mem, mark);
    }
}

int main(int argc, char **argv) {
    bq_restart(argv);
    compare_open(&argc, argv);
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (argc > 2) T = atol(argv[2]);
    if (argc > 3) only = argv[3];
    if (threads < 1 || T < 1) return fprintf(stderr, "usage: bench_ops [threads [tokens [op]]]\n"), 2;
    omp_set_num_threads(threads);
    size_t room = bq_op_scratch(T, heads, V) + (size_t)(T * 14000 + (int64_t)V * H + 2 * ROOF * ROOF) * 4;
    room += bq_factor_scratch(INTER) + bq_gptq_scratch(QKV, INTER, -1);
    if (bq_dev_open(&dev, "cpu", threads, room + (1 << 20) + (size_t)threads * ROOF * ROOF * 4) != BQ_OK)
        return 1;
    roof_a = fresh(ROOF, ROOF).data, roof_b = fresh(ROOF, ROOF).data,
    roof_c = fresh(threads * ROOF, ROOF).data;
    printf("# %s, %d threads, %ld tokens\nop,shape,seconds,gflops,gbytes,of_gemm,of_copy\n", dev.name,
           threads, (long)T);
    gemms(), rows(), scores(), moments();
    bq_dev_close(&dev);
    return compare_close();
}
