/* SPDX-License-Identifier: Apache-2.0 */
/* count_ops - ops on small fixed shapes, for counting their instructions (instructions.sh does it).
 *
 *     count_ops            csv: a line "# compiler, device", a header, the ops with their shapes
 *     count_ops OP...      runs each of them once to warm up, and once more inside `counted`; one thread
 *
 * One process for all, since opening a device probes the BLAS, which under valgrind takes seconds.  A shape's
 * product is the number of elements, or for ops of three loops that of innermost steps: queries x keys x
 * channels, rows x columns x columns behind, tokens x channels x vocabulary. */
#include "base/die.h"
#include "kernels/adam.h"

#include <stdio.h>
#include <string.h>

enum { T = 128, H = 256, HD = 64, NH = H / HD, NKV = NH / 2, KV = NKV * HD, N = 128, V = 256 };

static bq_dev dev;
static bq_mat x, y, z, gain, u, v, dx, du;             /* (T, H) but for gain (1, H) */
static bq_mat q, k, val, out, lse, dout, dq, dk, dval; /* attention's */
static bq_mat head, next;
static bq_mat w, fold, code, scale, gram, ut, order, diag, ones, adam;
static bq_adascale trained;
static double nll[T];

static const bq_attention heads = {.heads = NH, .kv_heads = NKV, .head_dim = HD, .scale = 0.125f};
static const bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
static const bq_mat none;

static bq_mat fresh(int64_t rows, int64_t cols) {
    bq_mat m = bq_arena_push(&dev.mem, rows, cols, BQ_F32);
    for (int64_t i = 0; i < rows * cols; i++) bq_f32(m)[i] = (float)(i * 2654435761 % 1999) * 1e-3f - 1;
    return m;
}

static bq_mat filled(int64_t rows, int64_t cols, float value) {
    bq_mat m = bq_arena_push(&dev.mem, rows, cols, BQ_F32);
    dev.op->set(&dev, m, value);
    return m;
}

static void attention(void) { dev.op->attention(&dev, heads, q, k, val, out, lse); }
static void attention_bwd(void) {
    dev.op->attention_bwd(&dev, heads, q, k, val, out, lse, dout, dq, dk, dval);
}
static void rmsnorm(void) { dev.op->rmsnorm(&dev, x, gain, 1e-5f, y); }
static void rmsnorm_bwd(void) { dev.op->rmsnorm_bwd(&dev, x, gain, 1e-5f, z, y); }
static void glu(void) { dev.op->glu(&dev, BQ_SILU, 0, u, v, z); }
static void glu_bwd(void) { dev.op->glu_bwd(&dev, BQ_SILU, 0, u, v, z, dx, du); }
static void mix(void) { dev.op->mix(&dev, x, u, 0.5, (bq_rng_key){.seed = 1}, z); }
static void xent(void) { dev.op->xent(&dev, x, head, 0, next, nll); }
static void adascale_weights(void) { dev.op->adascale_weights(&dev, &trained, w4, fold, scale, none); }
static void adascale_step(void) { dev.op->adascale_step(&dev, &trained, w4, fold, adam, none); }
static void range_mse(void) { dev.op->range_mse(&dev, w, w4, (bq_shrink){100, 20, BQ_NORM_24}, scale, none); }
static void quantize(void) { dev.op->quantize(&dev, w, scale, none, w4, code); }
static void fit(void) { dev.op->fit(&dev, w, diag, w4, scale, none); }
static void smooth_weights(void) { dev.op->smooth_weights(&dev, w, ones, w4, fold); }
static void factor(void) { BQ_CHECK(dev.op->factor(&dev, gram, none, 1, 0.01, ut), "no factor"); }
static void gptq(void) {
    bq_gptq p = {.w = w, .ut = ut, .order = order, .diag = bq_mat_reshape(diag, 1), .scale = scale};
    dev.op->gptq(&dev, &p, w4, fold);
}

static const struct {
    const char *name;
    int rows, cols, depth;
    void (*run)(void), (*before)(void); /* before: makes an argument */
} ops[] = {{"attention", T, T, H, attention, NULL},
           {"attention_bwd", T, T, H, attention_bwd, attention},
           {"rmsnorm", T, H, 1, rmsnorm, NULL},
           {"rmsnorm_bwd", T, H, 1, rmsnorm_bwd, NULL},
           {"glu", T, H, 1, glu, NULL},
           {"glu_bwd", T, H, 1, glu_bwd, NULL},
           {"mix", T, H, 1, mix, NULL},
           {"xent", T, H, V, xent, NULL},
           {"adascale_weights", N, H, 1, adascale_weights, NULL},
           {"adascale_step", N, H, 1, adascale_step, NULL},
           {"range_mse", N, H, 1, range_mse, NULL},
           {"quantize", N, H, 1, quantize, NULL},
           {"fit", N, H, 1, fit, NULL},
           {"smooth_weights", N, H, 1, smooth_weights, NULL},
           {"factor", H, H, H, factor, NULL},
           {"gptq", N, H, H, gptq, factor}};
enum { OPS = sizeof ops / sizeof *ops };

static void activations(void) {
    x = fresh(T, H), y = fresh(T, H), z = fresh(T, H), gain = fresh(1, H);
    u = fresh(T, H), v = fresh(T, H), dx = fresh(T, H), du = fresh(T, H);
    q = fresh(T, H), k = fresh(T, KV), val = fresh(T, KV), out = fresh(T, H), lse = fresh(NH, T);
    dout = fresh(T, H), dq = fresh(T, H), dk = fresh(T, KV), dval = fresh(T, KV);
    head = fresh(V, H), next = bq_arena_push(&dev.mem, T, 1, BQ_I32);
    for (int t = 0; t < T; t++) ((int32_t *)next.data)[t] = t * 7919 % V;
}

static void weights(void) {
    w = fresh(N, H), fold = fresh(N, H), code = bq_arena_push(&dev.mem, N, H, BQ_I8), scale = fresh(N, 1);
    trained = (bq_adascale){w,
                            filled(N, 1, 1),
                            filled(N, 1, -1),
                            filled(N, 1, 0),
                            filled(N, 1, 0),
                            filled(N, 1, 0),
                            filled(N, H, 0),
                            filled(N, 3, 0),
                            filled(N, 3, 0),
                            filled(N, H, 0),
                            filled(N, H, 0)};
    adam = bq_arena_push(&dev.mem, 1, BQ_ADAM_NUMBERS, BQ_F32);
    bq_adam_put(&dev, (bq_adam){1e-3f, 1e-3f, 0.9, 0.999, 1e-8f, 1, 0}, adam);
    gram = fresh(H, H), ut = fresh(H, H), ones = filled(1, H, 1), diag = filled(1, H, 1);
    order = bq_arena_push(&dev.mem, H, 1, BQ_I32);
    dev.op->gram(&dev, x, gram);
    for (int c = 0; c < H; c++) *(float *)bq_mat_at(gram, c, c) += 100;
    dev.op->order(&dev, bq_mat_reshape(diag, 1), BQ_ORDER_NONE, 0, order);
    dev.op->range(&dev, w, w4, scale, none);
}

/* What is collected, and nothing else.  Returns a value so that the op is no tail call: it would outlive this
 * function. */
static __attribute__((noinline, noclone)) int counted(void (*run)(void)) {
    run();
    return 0;
}

static int list(void) {
    printf("# %s, %s\nop,shape\n", __VERSION__, dev.name);
    for (int i = 0; i < OPS; i++)
        printf("%s,%dx%dx%d\n", ops[i].name, ops[i].rows, ops[i].cols, ops[i].depth);
    return 0;
}

static int count(const char *name) {
    int i = 0;
    while (i < OPS && strcmp(name, ops[i].name)) i++;
    if (i == OPS) return fprintf(stderr, "count_ops: no op '%s'\n", name), 2;
    size_t mark = bq_arena_mark(&dev.mem);
    activations(), weights();
    if (ops[i].before) ops[i].before();
    ops[i].run(), counted(ops[i].run);
    bq_arena_reset(&dev.mem, mark);
    return 0;
}

int main(int argc, char **argv) {
    if (bq_dev_open(&dev, "cpu", 1, (size_t)64 << 20) != BQ_OK) return 1;
    int status = argc == 1 ? list() : 0;
    for (int i = 1; i < argc && !status; i++) status = count(argv[i]);
    bq_dev_close(&dev);
    return status;
}
