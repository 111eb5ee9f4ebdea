/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/restore.h"

#include "base/die.h"
#include "driver/load/device.h"
#include <stdio.h>
#include <string.h>

static void restore(bq_dev *dev, bq_ckpt_file *f, int linear, bq_ckpt_part part, bq_mat to) {
    bq_mat room = bq_device_room(dev, to);
    bq_ckpt_read(f, linear, part, room);
    bq_device_fill(dev, room, to);
}

/* The norms and biases, which a pass had changed. */
static void restore_folded(bq_dev *dev, const bq_arch *arch, bq_ckpt_file *f, bq_block *blk) {
    for (int i = 0; i < BQ_NORMS_FOLDED; i++) {
        bq_mat norm = bq_block_kept_norm(blk, i), room = bq_device_room(dev, norm);
        bq_ckpt_read_norm(f, i, room);
        bq_device_fill(dev, room, norm);
    }
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        if (l->bias) restore(dev, f, i, BQ_CKPT_BIAS, bq_mat_cols(blk->bias[l->site], l->row, l->rows));
    }
    blk->folded = true;
}

static void take(bq_dev *dev, const char *path, bq_ckpt_file *f, const bq_ckpt *head, bq_block *blk,
                 bq_quantized *q, bool fold) {
    const bq_arch *arch = q->arch;
    BQ_CHECK(head->linears == arch->linears, "%s has %d linears, the model %d", path, head->linears,
             arch->linears);
    for (int i = 0; i < arch->linears; i++) {
        BQ_CHECK(strcmp(head->linear[i].name, arch->linear[i].module) == 0, "%s has %s where %s is wanted",
                 path, head->linear[i].name, arch->linear[i].module);
        BQ_CHECK(!fold || head->linear[i].fold.rows,
                 "%s has no weights before rounding, from which this phase starts: remove it, then the same "
                 "command makes it again",
                 path);
        if (fold) restore(dev, f, i, BQ_CKPT_FOLD, bq_linear_view(arch, i, q->fold));
        restore(dev, f, i, BQ_CKPT_CODE, bq_linear_view(arch, i, q->code));
        int64_t groups = bq_linear_groups(arch, q->scheme, i);
        restore(dev, f, i, BQ_CKPT_SCALE, bq_mat_reshape(q->scale[i], groups));
        if (q->zero[i].data) restore(dev, f, i, BQ_CKPT_ZERO, bq_mat_reshape(q->zero[i], groups));
        if (head->linear[i].outer.rows)
            bq_ckpt_read(f, i, BQ_CKPT_OUTER, bq_mat_host(&q->scheme[i].outer, 1, 1, BQ_F32));
        if (!head->linear[i].pre.rows) continue;
        restore(dev, f, i, BQ_CKPT_PRE, q->pre[i]);
        blk->pre = q->pre;
    }
    if (bq_ckpt_folded(head)) restore_folded(dev, arch, f, blk);
    bq_ckpt_close(f);
    bq_quantized_decode(dev, q);
}

void bq_restore(const bq_run *s, bq_dev *dev, const char *path, bq_block *blk, bq_quantized *q, bool fold) {
    bq_ckpt_file *f;
    bq_ckpt head;
    char why[BQ_WHY];
    int found = bq_ckpt_open(&f, path, bq_run_tag(s), &head, why);
    BQ_CHECK(found == BQ_CKPT_OK, "%s: damaged since the run began: %s; `blockq run` makes it again", path,
             why);
    take(dev, path, f, &head, blk, q, fold);
}

static bq_ckpt_linear describe_linear(const bq_block *blk, const bq_quantized *q, int i) {
    const bq_linear *of = &q->arch->linear[i];
    int64_t groups = bq_linear_groups(q->arch, q->scheme, i);
    bq_ckpt_linear l = {.scheme = q->scheme[i],
                        .code = bq_linear_view(q->arch, i, q->code),
                        .scale = bq_mat_reshape(q->scale[i], groups)};
    snprintf(l.name, sizeof l.name, "%s", of->module);
    if (q->zero[i].data) l.zero = bq_mat_reshape(q->zero[i], groups);
    if (blk->folded && of->bias) l.bias = bq_mat_cols(blk->bias[of->site], of->row, of->rows);
    if (blk->pre) l.pre = blk->pre[i];
    if (l.scheme.scale == BQ_F8_E4M3) l.outer = bq_mat_host((float *)&q->scheme[i].outer, 1, 1, BQ_F32);
    return l;
}

void bq_restore_describe(const bq_block *blk, const bq_quantized *q, bq_ckpt *c) {
    c->linears = q->arch->linears;
    for (int i = 0; i < BQ_NORMS_FOLDED && blk->folded; i++) c->norm[i] = bq_block_kept_norm(blk, i);
    for (int i = 0; i < c->linears; i++) c->linear[i] = describe_linear(blk, q, i);
}
