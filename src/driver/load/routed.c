/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/load/routed.h"

#include "base/die.h"

#include <stdlib.h>

void bq_routed_open(bq_routed *r, const bq_arch *core, int64_t samples, int64_t tokens, bq_dev *dev,
                    bq_home home) {
    const bq_model *m = &core->model;
    size_t lists = (size_t)(samples * tokens * m->chosen);
    *r = (bq_routed){.dev = dev, .experts = m->experts, .chosen = m->chosen};
    bq_stream_open(&r->n, samples, tokens, m->hidden, home);
    r->row = calloc(lists + 1, sizeof *r->row);
    r->weight = calloc(lists + 1, sizeof *r->weight);
    r->first = calloc((size_t)samples * (size_t)(m->experts + 1) + 1, sizeof *r->first);
    r->host = malloc((size_t)(tokens * m->hidden) * sizeof *r->host);
    BQ_CHECK(r->row && r->weight && r->first && r->host, "no memory for the experts of %ld samples",
             (long)samples);
    r->rows = bq_arena_push(&dev->mem, tokens, 1, BQ_I32);
    r->weights = bq_arena_push(&dev->mem, tokens, 1, BQ_F32);
    r->all = bq_arena_push(&dev->mem, tokens, 1, BQ_I32);
    int32_t *number = (int32_t *)r->host;
    for (int64_t t = 0; t < tokens; t++) number[t] = (int32_t)t;
    dev->op->put(dev, bq_mat_host(number, tokens, 1, BQ_I32), r->all);
    dev->op->wait(dev);
}

void bq_routed_close(bq_routed *r) {
    bq_stream_close(&r->n);
    free(r->row);
    free(r->weight);
    free(r->first);
    free(r->host);
    *r = (bq_routed){0};
}

size_t bq_routed_need(int64_t tokens) {
    return 2 * bq_arena_need(tokens, 1, BQ_I32) + bq_arena_need(tokens, 1, BQ_F32);
}

size_t bq_routed_host(const bq_arch *core, int64_t samples, int64_t tokens) {
    const bq_model *m = &core->model;
    if (!core->experts) return 0;
    return (size_t)samples * ((size_t)(tokens * m->chosen) * (sizeof(int32_t) + sizeof(float)) +
                              (size_t)(m->experts + 1) * sizeof(int32_t)) +
           (size_t)(tokens * m->hidden) * sizeof(float);
}

void bq_routed_take(bq_routed *r, int64_t i, const bq_block *core, bq_work *k) {
    const bq_ops *op = r->dev->op;
    int64_t lists = k->n.rows * r->chosen;
    bq_experts_route(r->dev, core, k);
    op->get(r->dev, k->rows, bq_mat_host(r->row + i * lists, lists, 1, BQ_I32));
    op->get(r->dev, k->we, bq_mat_host(r->weight + i * lists, lists, 1, BQ_F32));
    const bq_mat normed = bq_block_normed(k);
    bq_mat n = normed;
    if (r->n.home.place != BQ_DEVICE && n.place == BQ_DEVICE) {
        n = bq_mat_host(r->host, n.rows, n.cols, BQ_F32);
        op->get(r->dev, normed, n);
    }
    op->wait(r->dev);
    bq_stream_put(&r->n, i, n);
    for (int e = 0; e <= r->experts; e++) r->first[i * (r->experts + 1) + e] = k->start[e];
}

const int32_t *bq_routed_rows(const bq_routed *r, int64_t i, int expert, int64_t *n) {
    const int32_t *first = r->first + i * (r->experts + 1) + expert;
    *n = first[1] - first[0];
    return r->row + i * r->n.tokens * r->chosen + first[0];
}

int64_t bq_routed_count(const bq_routed *r, int expert) {
    int64_t sum = 0, n;
    for (int64_t i = 0; i < r->n.samples; i++) bq_routed_rows(r, i, expert, &n), sum += n;
    return sum;
}

/* Rows of sample i of a stream into x (n, H) on the device; rows: their numbers there, row: on the host. */
static void gather(bq_routed *r, const bq_stream *s, int64_t i, const int32_t *row, bq_mat rows, bq_mat x) {
    const bq_ops *op = r->dev->op;
    bq_mat host = bq_mat_host(r->host, x.rows, x.cols, BQ_F32);
    if (bq_stream_direct(s, r->dev)) {
        op->gather_rows(r->dev, bq_stream_get(s, i, (bq_mat){0}), rows, (bq_mat){0}, x);
        return;
    }
    bq_stream_take_rows(s, i, row, host);
    op->put(r->dev, host, x);
    op->wait(r->dev);
}

void bq_routed_copy(bq_routed *r, int64_t i, const int32_t *row, bq_mat host, bq_mat room) {
    const bq_ops *op = r->dev->op;
    bq_mat x = bq_mat_rows(room, 0, host.rows), rows = bq_mat_rows(r->rows, 0, host.rows);
    if (r->n.home.place != BQ_DEVICE) {
        bq_stream_take_rows(&r->n, i, row, host);
        return;
    }
    op->put(r->dev, bq_mat_host((void *)row, host.rows, 1, BQ_I32), rows);
    op->gather_rows(r->dev, bq_stream_get(&r->n, i, (bq_mat){0}), rows, (bq_mat){0}, x);
    op->get(r->dev, x, host);
    op->wait(r->dev);
}

void bq_routed_add(bq_routed *r, int64_t i, const bq_block *blk, const bq_mat *w, bq_work *k, bq_stream *to) {
    const bq_ops *op = r->dev->op;
    int64_t n;
    const int32_t *row = bq_routed_rows(r, i, blk->arch->expert, &n);
    if (n == 0) return;
    bq_mat rows = bq_mat_rows(r->rows, 0, n), weights = bq_mat_rows(r->weights, 0, n);
    op->put(r->dev, bq_mat_host((void *)row, n, 1, BQ_I32), rows);
    op->put(r->dev, bq_mat_host(r->weight + (row - r->row), n, 1, BQ_F32), weights);
    gather(r, &r->n, i, row, rows, bq_mat_rows(k->x, 0, n));
    if (bq_stream_direct(to, r->dev)) {
        bq_experts_add_rows(r->dev, blk, w, k, rows, weights, bq_stream_get(to, i, (bq_mat){0}));
        op->wait(r->dev);
        return;
    }
    bq_mat y = bq_mat_rows(k->n, 0, n), host = bq_mat_host(r->host, n, y.cols, BQ_F32);
    gather(r, to, i, row, rows, y);
    bq_experts_add_rows(r->dev, blk, w, k, bq_mat_rows(r->all, 0, n), weights, y);
    op->get(r->dev, y, host);
    op->wait(r->dev);
    bq_stream_put_rows(to, i, row, host);
}
