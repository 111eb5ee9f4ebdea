/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs of linears, keys and values as torchao and compressed-tensors round them: every value; and what
 * linears compute from such inputs. */
#include "golden/replay.h"

#include "kernels/ops.h"

#include <float.h>
#include <string.h>

static const struct {
    const char *name;
    bq_rounding how;
    bool weights; /* there are the weights of a linear, and its outputs */
} cases[] = {
    {"int8dq", {BQ_INT8, true, false, BQ_ROUND_RECIPROCAL, -1, BQ_F32, FLT_EPSILON}, true},
    {"int8dq_asym", {BQ_INT8, false, false, BQ_ROUND_RECIPROCAL, -1, BQ_F32, FLT_EPSILON}, true},
    {"int8dq_reduced", {BQ_INT7, true, false, BQ_ROUND_RECIPROCAL, -1, BQ_F32, FLT_EPSILON}, true},
    {"8da4w", {BQ_INT8, false, false, BQ_ROUND_RECIPROCAL, -1, BQ_F32, FLT_MIN}, true},
    {"old_int8dq", {BQ_INT8, true, false, BQ_ROUND_NARROW, -1, BQ_F32, 1e-5f}, false},
    {"fp8_row", {BQ_E4M3, true, false, BQ_ROUND_DIVIDE, -1, BQ_F32, 0}, false},
    {"fp8_tensor", {BQ_E4M3, true, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0}, false},
};

/* x rounded, in memory of the device. */
static bq_mat rounded(bq_dev *dev, bq_mat x, bq_rounding how) {
    bq_mat ends = bq_arena_push(&dev->mem, bq_rounding_groups(how, x.cols), 2, BQ_F32),
           y = bq_arena_push(&dev->mem, x.rows, x.cols, BQ_F32);
    dev->op->zero(dev, ends);
    dev->op->ends(dev, x, how.group, ends);
    dev->op->grid_of_ends(dev, ends, how, ends);
    dev->op->round_rows(dev, x, how, ends, y);
    dev->op->wait(dev);
    return y;
}

static void check(golden *g, golden_report *r, bq_dev *dev, bq_mat x, int i) {
    bq_mat y = rounded(dev, x, cases[i].how);
    if (golden_has(g, "%s/x", cases[i].name)) {
        bq_mat want = golden_read(g, BQ_F32, x.rows, x.cols, "%s/x", cases[i].name);
        for (int64_t t = 0; t < x.rows; t++) {
            if (bq_f32(want)[t * x.cols] != bq_f32(want)[t * x.cols])
                continue; /* e4m3 of zeros is NaN there */
            golden_compare(golden_row_of(r, "rounded inputs", 0, 0), GOLDEN_ABSOLUTE, bq_mat_rows(y, t, 1),
                           bq_mat_rows(want, t, 1), cases[i].name);
        }
    }
    if (!cases[i].weights) return;
    bq_mat w = golden_read(g, BQ_F32, -1, x.cols, "%s/w", cases[i].name),
           out = bq_arena_push(&dev->mem, x.rows, w.rows, BQ_F32);
    dev->op->gemm(dev, false, true, 1, y, w, 0, out);
    dev->op->wait(dev);
    golden_compare(golden_row_of(r, "outputs", 2e-6, 0), GOLDEN_LARGEST, out,
                   golden_read(g, BQ_F32, x.rows, w.rows, "%s/y", cases[i].name), cases[i].name);
}

/* Keys and values: (heads, tokens) rows of a head each. */
static void check_cache(golden *g, golden_report *r, bq_dev *dev) {
    static const bq_rounding how = {BQ_INT8, true, false, BQ_ROUND_NARROW, 16, BQ_F32, 1e-5f};
    static const char *const names[] = {"k", "v"};
    for (int i = 0; i < 2; i++)
        golden_compare(golden_row_of(r, "keys and values", 0, 0), GOLDEN_ABSOLUTE,
                       rounded(dev, golden_read(g, BQ_F32, -1, 16, "kv/%s", names[i]), how),
                       golden_read(g, BQ_F32, -1, 16, "kv/%s_out", names[i]), names[i]);
}

void golden_rounding(golden *g, bq_comm *comm, golden_report *r) {
    bq_dev dev;
    (void)comm;
    bq_mat x = golden_read(g, BQ_F32, -1, -1, "x");
    golden_require(bq_dev_open(&dev, "cpu", 1, (size_t)1 << 20));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(g, r, &dev, x, (int)i);
    check_cache(g, r, &dev);
    golden_pass_over(g, "w");
    bq_dev_close(&dev);
}

void golden_ct_cache(golden *g, golden_report *r) {
    static const struct {
        const char *name;
        bq_rounding how;
    } of[] = {{"tensor", {BQ_E4M3, true, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0}},
              {"attn_head", {BQ_INT8, true, true, BQ_ROUND_DIVIDE, 8, BQ_F32, 0}}};
    bq_dev dev;
    bq_mat k = golden_read(g, BQ_F32, -1, 8, "kv/k"); /* (2 heads, 5 tokens, 8) */
    golden_require(bq_dev_open(&dev, "cpu", 1, (size_t)1 << 20));
    bq_mat x = bq_arena_push(&dev.mem, 5, 16, BQ_F32), back = bq_arena_push(&dev.mem, 10, 8, BQ_F32);
    for (int h = 0; h < 2; h++) dev.op->copy(&dev, bq_mat_rows(k, 5 * h, 5), bq_mat_cols(x, 8 * h, 8));
    for (int i = 0; i < 2; i++) {
        bq_mat y = rounded(&dev, x, of[i].how);
        for (int h = 0; h < 2; h++) dev.op->copy(&dev, bq_mat_cols(y, 8 * h, 8), bq_mat_rows(back, 5 * h, 5));
        dev.op->wait(&dev);
        golden_compare(golden_row_of(r, "keys and values", 0, 0), GOLDEN_ABSOLUTE, back,
                       golden_read(g, BQ_F32, 10, 8, "kv/%s/k_fq", of[i].name), of[i].name);
        golden_pass_over(g, "kv/%s/k_scale", of[i].name);
    }
    bq_dev_close(&dev);
}
