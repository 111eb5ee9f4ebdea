/* SPDX-License-Identifier: Apache-2.0 */
/* A block whose linears see rounded inputs: its backward by hand, op by op, where a gradient goes through a
 * rounding as it is; keys and values as a cache keeps them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rig.h"

enum { TOKENS = 19, H = 24, INTER = 40, Q = 24, KV = 12, QKV = Q + 2 * KV };

static rig *open_rig(void) {
    static const bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
    return rig_open(&(rig_spec){.model = {bq_family_find("llama"), H, INTER, .heads = 4, .kv_heads = 2},
                                .scheme = &w4,
                                .threads = 1,
                                .samples = 2,
                                .tokens = TOKENS,
                                .noise = {2, 3, 2},
                                .steps = 1});
}

static bq_mat room(rig *r, int64_t rows, int64_t cols) {
    return bq_arena_push(&r->dev.mem, rows, cols, BQ_F32);
}

static bq_mat rounded(rig *r, bq_rounding how, bq_mat x) {
    bq_mat y = room(r, x.rows, x.cols);
    r->dev.op->round_rows(&r->dev, x, how, (bq_mat){0}, y);
    return y;
}

static void same(bq_mat have, bq_mat want) {
    assert_memory_equal(have.data, want.data, (size_t)(want.rows * want.cols) * sizeof(float));
}

/* What a forward computes, by hand, and what its backward reads. */
typedef struct {
    bq_mat aq, qkv, o, oq, lse, m, nq, gu, zq, y;
} forward;

static forward by_hand(rig *r, bq_rounding how, bq_rounding cache, bq_mat x) {
    bq_dev *dev = &r->dev;
    const bq_ops *op = dev->op;
    const bq_mat *w = r->blk.w;
    bq_mat n = room(r, TOKENS, H), z = room(r, TOKENS, INTER);
    forward f = {.qkv = room(r, TOKENS, QKV),
                 .o = room(r, TOKENS, Q),
                 .lse = room(r, 4, TOKENS),
                 .m = room(r, TOKENS, H),
                 .gu = room(r, TOKENS, 2 * INTER),
                 .y = room(r, TOKENS, H)};
    bq_mat q = bq_mat_cols(f.qkv, 0, Q), k = bq_mat_cols(f.qkv, Q, KV), v = bq_mat_cols(f.qkv, Q + KV, KV);
    op->rmsnorm(dev, x, r->blk.norm[0], 1e-5f, n);
    f.aq = rounded(r, how, n);
    op->gemm(dev, false, true, 1, f.aq, w[BQ_QKV], 0, f.qkv);
    op->rope(dev, q, 4, 6, r->work.cos[0], r->work.sin[0], 0);
    op->rope(dev, k, 2, 6, r->work.cos[0], r->work.sin[0], 0);
    if (cache.element)
        op->round_rows(dev, k, cache, (bq_mat){0}, k), op->round_rows(dev, v, cache, (bq_mat){0}, v);
    op->attention(dev, r->arch.attention, q, k, v, f.o, f.lse);
    f.oq = rounded(r, how, f.o);
    op->copy(dev, x, f.m);
    op->gemm(dev, false, true, 1, f.oq, w[BQ_O], 1, f.m);
    op->rmsnorm(dev, f.m, r->blk.norm[1], 1e-5f, n);
    f.nq = rounded(r, how, n);
    op->gemm(dev, false, true, 1, f.nq, w[BQ_GATE_UP], 0, f.gu);
    op->glu(dev, BQ_SILU, 0, bq_mat_cols(f.gu, 0, INTER), bq_mat_cols(f.gu, INTER, INTER), z);
    f.zq = rounded(r, how, z);
    op->copy(dev, f.m, f.y);
    op->gemm(dev, false, true, 1, f.zq, w[BQ_DOWN], 1, f.y);
    return f;
}

/* dw of each site, and dx. */
static void back_by_hand(rig *r, forward f, bq_mat x, bq_mat dy, bq_mat *dw, bq_mat dx) {
    bq_dev *dev = &r->dev;
    const bq_ops *op = dev->op;
    const bq_mat *w = r->blk.w;
    bq_mat dz = room(r, TOKENS, INTER), dn = room(r, TOKENS, H), dm = room(r, TOKENS, H),
           dout = room(r, TOKENS, Q), dqkv = room(r, TOKENS, QKV), g = bq_mat_cols(f.gu, 0, INTER),
           u = bq_mat_cols(f.gu, INTER, INTER);
    bq_mat of[3], d[3];
    for (int i = 0, at = 0; i < 3; at += i++ ? KV : Q)
        of[i] = bq_mat_cols(f.qkv, at, i ? KV : Q), d[i] = bq_mat_cols(dqkv, at, i ? KV : Q);
    op->gemm(dev, true, false, 1, dy, f.zq, 0, dw[BQ_DOWN]);
    op->gemm(dev, false, false, 1, dy, w[BQ_DOWN], 0, dz);
    op->glu_bwd(dev, BQ_SILU, 0, g, u, dz, g, u);
    op->gemm(dev, true, false, 1, f.gu, f.nq, 0, dw[BQ_GATE_UP]);
    op->gemm(dev, false, false, 1, f.gu, w[BQ_GATE_UP], 0, dn);
    op->copy(dev, dy, dm);
    op->rmsnorm_bwd(dev, f.m, r->blk.norm[1], 1e-5f, dn, dm);
    op->gemm(dev, true, false, 1, dm, f.oq, 0, dw[BQ_O]);
    op->gemm(dev, false, false, 1, dm, w[BQ_O], 0, dout);
    op->attention_bwd(dev, r->arch.attention, of[0], of[1], of[2], f.o, f.lse, dout, d[0], d[1], d[2]);
    op->rope(dev, d[0], 4, 6, r->work.cos[0], r->work.sin[0], BQ_TURN_INVERSE);
    op->rope(dev, d[1], 2, 6, r->work.cos[0], r->work.sin[0], BQ_TURN_INVERSE);
    op->gemm(dev, true, false, 1, dqkv, f.aq, 0, dw[BQ_QKV]);
    op->gemm(dev, false, false, 1, dqkv, w[BQ_QKV], 0, dn);
    op->copy(dev, dm, dx);
    op->rmsnorm_bwd(dev, x, r->blk.norm[0], 1e-5f, dn, dx);
}

static void gradients_go_through(void **state) {
    (void)state;
    static const bq_rounding hows[] = {{BQ_INT4, true, false, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
                                       {BQ_INT8, false, false, BQ_ROUND_RECIPROCAL, 8, BQ_F32, 1e-7f}},
                             cache = {BQ_INT4, true, false, BQ_ROUND_NARROW, 6, BQ_F32, 1e-5f};
    for (int i = 0; i < 4; i++) {
        rig *r = open_rig();
        bq_work *k = &r->work;
        bq_mat x = rig_fetch(r, BQ_STREAM_FP, 0), dy = rig_fetch(r, BQ_STREAM_FP, 1), y = room(r, TOKENS, H),
               dx = room(r, TOKENS, H), dx_want = room(r, TOKENS, H), dw[RIG_SITES], want[RIG_SITES];
        for (int m = 0; m < RIG_SITES; m++) {
            dw[m] = room(r, r->arch.site[m].rows, r->arch.site[m].cols);
            want[m] = room(r, r->arch.site[m].rows, r->arch.site[m].cols);
        }
        k->inputs = hows[i % 2], k->raw_heads = room(r, TOKENS, Q);
        if (i > 1) k->cache = cache;
        forward f = by_hand(r, k->inputs, k->cache, x);
        back_by_hand(r, f, x, dy, want, dx_want);
        bq_block_forward(&r->dev, &r->blk, r->blk.w, k, x, y);
        bq_block_backward(&r->dev, &r->blk, r->blk.w, k, x, dy, dw, dx);
        r->dev.op->wait(&r->dev);
        same(y, f.y), same(dx, dx_want);
        for (int m = 0; m < RIG_SITES; m++) same(dw[m], want[m]);
        rig_close(r);
    }
}

/* One grid for a site, from the sample or given; scales of a cache that are given. */
static void grids_of_all_tokens(void **state) {
    (void)state;
    rig *r = open_rig();
    bq_dev *dev = &r->dev;
    bq_mat x = rig_fetch(r, BQ_STREAM_FP, 0), y = room(r, TOKENS, H), z = room(r, TOKENS, H),
           ends = room(r, 1, 2);
    float grid[2 * RIG_SITES], kv[4] = {0.01f, 0.02f, 0.03f, 0.04f};
    r->work.inputs = (bq_rounding){BQ_INT8, false, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0};
    bq_block_forward(dev, &r->blk, r->blk.w, &r->work, x, y);
    for (int m = 0; m < RIG_SITES; m++) { /* the ends of each input behind rounded ones */
        bq_work part = r->work;
        bq_block_parts(dev, &r->blk, r->blk.w, &part, 0, m - 1, x, z);
        part.inputs = (bq_rounding){0};
        bq_block_parts(dev, &r->blk, r->blk.w, &part, m, m, x, z);
        dev->op->zero(dev, ends);
        dev->op->ends(dev, bq_block_input(&r->arch, &part, m), -1, ends);
        dev->op->grid_of_ends(dev, ends, r->work.inputs, bq_mat_host(grid + 2 * m, 1, 2, BQ_F32));
    }
    r->blk.inputs = grid;
    bq_block_forward(dev, &r->blk, r->blk.w, &r->work, x, z);
    same(z, y);
    r->work.cache = (bq_rounding){BQ_INT8, true, true, BQ_ROUND_DIVIDE, 6, BQ_F32, 0}, r->blk.kv = kv;
    bq_block_forward(dev, &r->blk, r->blk.w, &r->work, x, z);
    bq_heads h = bq_block_split(&r->arch.model, r->work.qkv);
    for (int64_t t = 0; t < TOKENS; t++)
        for (int c = 0; c < KV; c++) {
            float key = *(float *)bq_mat_at(h.k, t, c) / kv[c / 6],
                  value = *(float *)bq_mat_at(h.v, t, c) / kv[2 + c / 6];
            assert_true(fabsf(key - rintf(key)) < 1e-4f && fabsf(value - rintf(value)) < 1e-4f);
            assert_true(fabsf(key) <= 128 && fabsf(value) <= 128);
        }
    rig_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_go_through),
                                       cmocka_unit_test(grids_of_all_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
