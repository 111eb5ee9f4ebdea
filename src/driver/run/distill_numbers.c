/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of a block that distillation trains. */
#include "driver/run/distill_parts.h"

#include "base/die.h"
#include "driver/load/device.h"

#include <math.h>
#include <stdlib.h>

static void list(bq_part_of_block *out, int *n, bq_trained_kind kind, int at, bq_mat where) {
    const int64_t first = *n ? out[*n - 1].first + out[*n - 1].count : 0;
    out[(*n)++] = (bq_part_of_block){kind, at, first, where.rows * where.cols, where};
}

int bq_distill_parts(const bq_distilling *d, bq_part_of_block *out) {
    const bq_arch *arch = d->q.arch;
    const bool norms = d->s->recipe.distill.norms;
    int n = 0;
    for (int i = 0; i < arch->linears; i++) {
        list(out, &n, BQ_TRAINED_SCALE, i, d->q.scale[i]);
        if (bq_scheme_offset(d->q.scheme[i])) list(out, &n, BQ_TRAINED_ZERO, i, d->q.zero[i]);
    }
    for (int i = 0; i < BQ_NORMS_FOLDED && norms; i++)
        if (bq_block_kept_norm(&d->blk, i).data)
            list(out, &n, BQ_TRAINED_GAIN, i, bq_block_kept_norm(&d->blk, i));
    for (int m = 0; m < arch->sites && norms && !arch->model.kv_rank; m++)
        if (arch->site[m].bias_rows)
            list(out, &n, BQ_TRAINED_BIAS, m,
                 bq_mat_cols(d->blk.bias[m], arch->site[m].bias_row, arch->site[m].bias_rows));
    return n;
}

/* What u = 1 adds: to a zero point the scale, to a bias the mean |bias| of its site; 0: u is a logarithm. */
static void set_units(bq_numbers *to, const bq_part_of_block *p) {
    double sum = 0;
    for (int64_t k = p->first; k < p->first + p->count; k++) sum += fabs((double)to->start[k]);
    const float mean = sum > 0 ? (float)(sum / (double)p->count) : 1;
    for (int64_t k = p->first; k < p->first + p->count; k++)
        to->unit[k] = p->kind == BQ_TRAINED_ZERO   ? to->start[k - p->count]
                      : p->kind == BQ_TRAINED_BIAS ? mean
                                                   : 0;
}

static void take_room(bq_numbers *to, int64_t count) {
    to->count = count;
    to->start = calloc((size_t)count * 5, sizeof *to->start);
    BQ_CHECK(to->start, "no memory for %ld numbers and their moments", (long)count);
    to->unit = to->start + count, to->u = to->unit + count, to->m = to->u + count, to->v = to->m + count;
}

void bq_distill_take(bq_distilling *d, bq_numbers *to) {
    bq_part_of_block part[BQ_TRAINED_PARTS];
    const int n = bq_distill_parts(d, part);
    bq_dev *dev = &d->s->dev;
    take_room(to, part[n - 1].first + part[n - 1].count);
    for (int i = 0; i < n; i++)
        dev->op->get(dev, part[i].where,
                     bq_mat_host(to->start + part[i].first, part[i].where.rows, part[i].where.cols, BQ_F32));
    dev->op->wait(dev);
    for (int i = 0; i < n; i++) set_units(to, &part[i]);
}

/* A number as the block has it. */
static float value_of(const bq_distilling *d, const bq_numbers *of, const bq_part_of_block *p, int64_t k) {
    const float x =
        of->unit[k] != 0 ? of->start[k] + of->unit[k] * of->u[k] : of->start[k] * bq_exp(of->u[k]);
    if (p->kind == BQ_TRAINED_SCALE) return bq_scale_stored(x, d->q.scheme[p->at]);
    return p->kind == BQ_TRAINED_ZERO ? bq_zero_round(x, d->q.scheme[p->at].scale) : x;
}

void bq_distill_put(bq_distilling *d, const bq_numbers *from) {
    bq_part_of_block part[BQ_TRAINED_PARTS];
    const int n = bq_distill_parts(d, part);
    bq_dev *dev = &d->s->dev;
    float *now = malloc((size_t)from->count * sizeof *now);
    BQ_CHECK(now, "no memory for %ld numbers", (long)from->count);
    for (int i = 0; i < n; i++) {
        for (int64_t k = part[i].first; k < part[i].first + part[i].count; k++)
            now[k] = value_of(d, from, &part[i], k);
        dev->op->put(dev, bq_mat_host(now + part[i].first, part[i].where.rows, part[i].where.cols, BQ_F32),
                     part[i].where);
    }
    dev->op->wait(dev);
    free(now);
}

/* Gradients by u from those that the device computes.  w_hat = s code + z, so s dw_hat/ds = w_hat - z. */
static void by_u(const bq_distilling *d, const bq_numbers *v, float *g) {
    bq_part_of_block part[BQ_TRAINED_PARTS];
    const int n = bq_distill_parts(d, part);
    for (int i = 0; i < n; i++)
        for (int64_t k = part[i].first; k < part[i].first + part[i].count; k++) {
            const int64_t scale = k - part[i].count;
            if (part[i].kind == BQ_TRAINED_ZERO) g[scale] -= value_of(d, v, &part[i], k) * g[k];
            if (v->unit[k] != 0) g[k] *= v->unit[k];
        }
}

void bq_distill_begin_norm(bq_distilling *d) {
    bq_numbers *to = &d->numbers[d->blocks.count];
    take_room(to, d->hidden);
    d->s->dev.op->get(&d->s->dev, d->norm, bq_mat_host(to->start, 1, d->hidden, BQ_F32));
    d->s->dev.op->wait(&d->s->dev);
}

void bq_distill_load_norm(bq_distilling *d) {
    const bq_numbers *from = &d->numbers[d->blocks.count];
    float *now = malloc((size_t)d->hidden * sizeof *now);
    BQ_CHECK(now, "no memory for %ld gains", (long)d->hidden);
    for (int64_t k = 0; k < d->hidden; k++) now[k] = from->start[k] * bq_exp(from->u[k]);
    d->s->dev.op->put(&d->s->dev, bq_mat_host(now, 1, d->hidden, BQ_F32), d->norm);
    d->s->dev.op->wait(&d->s->dev);
    free(now);
}

void bq_distill_backward_norm(bq_distilling *d, bq_mat dy, bq_mat y, int64_t leaf) {
    bq_treesum *sum = &d->numbers[d->blocks.count].sum;
    d->s->dev.op->column_dot(&d->s->dev, dy, y, bq_mat_reshape(bq_treesum_next(sum), d->hidden));
    bq_treesum_add(sum, leaf);
}

void bq_distill_adam(bq_distilling *d, bq_numbers *v, float *gradient, double rate) {
    const double b1 = 0.9, b2 = 0.95, step = (double)(d->step + 1), c1 = 1 - pow(b1, step),
                 c2 = 1 - pow(b2, step);
    if (v != &d->numbers[d->blocks.count]) by_u(d, v, gradient);
    for (int64_t k = 0; k < v->count; k++) {
        const double x = (double)gradient[k];
        v->m[k] = (float)(b1 * (double)v->m[k] + (1 - b1) * x);
        v->v[k] = (float)(b2 * (double)v->v[k] + (1 - b2) * x * x);
        v->u[k] =
            (float)((double)v->u[k] - rate * ((double)v->m[k] / c1) / (sqrt((double)v->v[k] / c2) + 1e-8));
    }
}
