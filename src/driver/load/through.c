/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/load/through.h"

void bq_through_open(bq_through *t, const bq_source *src, bq_angles angles, bq_dev *dev, int64_t n,
                     int64_t tokens, bq_home home) {
    const bq_arch *first = bq_source_first(src);
    *t = (bq_through){.dev = dev, .src = src, .held = -1};
    bq_block_push(&t->blk, first, &dev->mem);
    bq_source_work(src, first, angles, dev, tokens, false, &t->work);
    if (!first->experts) return;
    bq_work_push(&t->inside, &src->expert, tokens, false, &dev->mem);
    bq_routed_open(&t->routed, first, n, tokens, dev, home);
}

void bq_through_close(bq_through *t) { bq_routed_close(&t->routed); }

size_t bq_through_need(const bq_arch *first, int64_t tokens) {
    size_t sum = bq_block_need(first) + bq_work_need(first, tokens, false);
    bq_arch expert;
    if (!first->experts) return sum;
    bq_arch_of_expert(&first->model, 0, &expert);
    return sum + bq_work_need(&expert, tokens, false) + bq_routed_need(tokens);
}

int64_t bq_through_sites(const bq_source *src, int block, int unit) {
    int64_t sum = 0;
    for (int b = 0; b <= block; b++) {
        int experts = b < block ? bq_source_arch(src, b)->experts : unit - 1;
        if (b < block || unit) sum += bq_source_core(src, b)->sites;
        if (experts > 0) sum += experts * src->expert.sites;
    }
    return sum;
}

static void step(const bq_through *t, int unit, int64_t i) {
    if (t->step) t->step(t->step_ctx, unit, i);
}

/* Read a unit; the matrices to compute with. */
static const bq_mat *read_unit(bq_through *t, int b, const bq_arch *arch) {
    bool alone = !arch->experts && arch->kind != BQ_UNIT_EXPERT;
    if (t->held != b) bq_source_unit(t->src, t->dev, b, arch, &t->blk);
    t->held = alone && (!t->weights || t->keeps) ? b : -1;
    const bq_model *m = &arch->model;
    t->blk.kv = t->kv ? t->kv + 2 * b * bq_rounding_groups(t->work.cache, m->kv_heads * m->head_dim) : NULL;
    t->blk.inputs = t->grids ? t->grids + 2 * bq_through_sites(t->src, b, bq_arch_unit(arch)) : NULL;
    if (!t->weights) return t->blk.w;
    t->layout = *bq_layout_of(t->layouts, arch == &t->expert ? &t->src->expert : arch, b);
    t->layout.arch = arch;
    bq_quantized_turn(&t->q, &t->layout);
    t->weights(t->ctx, t->dev, &t->blk, &t->q);
    return t->q.w_hat;
}

static void add_experts(bq_through *t, int b, int64_t n, bq_stream *to) {
    for (int e = 0; e < t->routed.experts; e++) {
        bq_arch_of_expert(&t->src->arch.model, e, &t->expert);
        const bq_mat *w = read_unit(t, b, &t->expert);
        for (int64_t i = 0; i < n; i++) {
            bq_routed_add(&t->routed, i, &t->blk, w, &t->inside, to);
            step(t, 1 + e, i);
        }
    }
}

void bq_through_block(bq_through *t, int b, int64_t n, const bq_stream *from, bq_stream *to) {
    const bq_arch *arch = bq_source_core(t->src, b);
    const bq_mat *w = read_unit(t, b, arch);
    t->inside.inputs = t->work.inputs;
    for (int64_t i = 0; i < n; i++) {
        bq_mat x = bq_stream_get(from, i, t->buffer), y = to->data ? bq_stream_get(to, i, x) : t->buffer;
        t->work.real = t->real ? t->real[i] : 0;
        bq_block_sample(t->dev, &t->blk, w, &t->work, x, y);
        if (arch->experts) bq_routed_take(&t->routed, i, &t->blk, &t->work);
        bq_stream_put(to, i, y);
        step(t, 0, i);
    }
    if (arch->experts) add_experts(t, b, n, to);
}
