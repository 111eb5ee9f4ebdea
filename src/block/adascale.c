#include "block/adascale.h"

#include "comm/treesum.h"

#include <math.h>

#define PI 3.14159265358979323846

typedef struct {
    bq_adascale linear[BQ_ARCH_LINEARS]; /* trained values, one set a linear */
    bq_treesum sum[BQ_MATS];             /* dL/dWhat over the batch */
    bq_mat fp, qt, x, y;                 /* (T, H) */
} training;

/* Row-wise values of linear i: hi, lo, beta, gamma, s3 and the moments of the last three. */
static void push_rows(bq_adascale *p, int64_t rows, bq_arena *mem) {
    bq_mat *const column[] = {&p->hi, &p->lo, &p->beta, &p->gamma, &p->s3};
    for (int k = 0; k < 5; k++) *column[k] = bq_arena_push(mem, rows, 1, BQ_F32);
    p->m_row = bq_arena_push(mem, rows, 3, BQ_F32);
    p->v_row = bq_arena_push(mem, rows, 3, BQ_F32);
}

size_t bq_adascale_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t batch) {
    size_t sum = 4 * bq_arena_need(tokens, arch->model.hidden, BQ_F32);
    for (int m = 0; m < BQ_MATS; m++)
        sum += (size_t)(3 + bq_treesum_levels(batch) - 1) * bq_arena_need(arch->rows[m], arch->cols[m], BQ_F32);
    for (int i = 0; i < arch->linears; i++) {
        int64_t rows = arch->linear[i].rows * bq_linear_groups(arch, scheme, i);
        sum += 5 * bq_arena_need(rows, 1, BQ_F32) + 2 * bq_arena_need(rows, 3, BQ_F32);
    }
    return sum;
}

/* The constants hi = qmax * scale, lo = qmin * scale of the initial grid. */
static void set_range(bq_dev *dev, bq_scheme scheme, bq_mat scale, bq_adascale *p) {
    dev->op->scale(dev, scale, bq_qmax(scheme), p->hi);
    dev->op->scale(dev, scale, bq_qmin(scheme), p->lo);
}

static void start(bq_pass_context *c, const bq_adascale_options *o, training *t) {
    bq_dev *dev = c->dev;
    bq_quantized *q = c->q;
    const bq_arch *arch = q->arch;
    bq_mat moments[3][BQ_MATS];
    for (int m = 0; m < BQ_MATS; m++) {
        for (int k = 0; k < 3; k++) {
            moments[k][m] = bq_arena_push(&dev->mem, arch->rows[m], arch->cols[m], BQ_F32);
            dev->op->zero(dev, moments[k][m]);
        }
        bq_treesum_open(&t->sum[m], dev, o->batch, q->fold[m]);
    }
    for (int i = 0; i < arch->linears; i++) {
        bq_adascale *p = &t->linear[i];
        p->w = bq_linear_grouped(arch, q->scheme, i, c->blk->w);
        p->s2 = bq_linear_grouped(arch, q->scheme, i, moments[0]);
        p->m_s2 = bq_linear_grouped(arch, q->scheme, i, moments[1]);
        p->v_s2 = bq_linear_grouped(arch, q->scheme, i, moments[2]);
        push_rows(p, p->w.rows, &dev->mem);
        bq_mat *const zeros[] = {&p->beta, &p->gamma, &p->s3, &p->m_row, &p->v_row};
        for (int k = 0; k < 5; k++) dev->op->zero(dev, *zeros[k]);
        dev->op->range(dev, p->w, q->scheme[i], q->scale[i]);
        set_range(dev, q->scheme[i], q->scale[i], p);
    }
    bq_mat *const hidden[] = {&t->fp, &t->qt, &t->x, &t->y};
    for (int k = 0; k < 4; k++) *hidden[k] = bq_arena_push(&dev->mem, c->tokens, arch->model.hidden, BQ_F32);
}

/* Current Ŵ of all linears; folded weights too where fold is set. */
static void weights(bq_pass_context *c, training *t, bool fold) {
    bq_quantized *q = c->q;
    for (int i = 0; i < q->arch->linears; i++)
        c->dev->op->adascale_weights(c->dev, &t->linear[i], q->scheme[i],
                                     bq_linear_grouped(q->arch, q->scheme, i, q->what), q->scale[i],
                                     fold ? bq_linear_grouped(q->arch, q->scheme, i, q->fold) : (bq_mat){0});
}

static bq_mat block_input(bq_pass_context *c, training *t, int64_t step, int64_t sample) {
    const bq_ops *op = c->dev->op;
    if (c->input != BQ_INPUTS_QT) op->put(c->dev, c->fetch(c->ctx, BQ_STREAM_FP, sample), t->fp);
    if (c->input == BQ_INPUTS_FP) return t->fp;
    op->put(c->dev, c->fetch(c->ctx, BQ_STREAM_QT, sample), t->qt);
    if (c->input == BQ_INPUTS_QT) return t->qt;
    bq_rng_key at = c->at;
    at.iteration = (uint32_t)step, at.sample = (uint32_t)sample;
    op->mix(c->dev, t->fp, t->qt, c->mix, at, t->x);
    return t->x;
}

/* Loss of one sample of the batch; its gradient goes into the sums. */
static double sample_step(bq_pass_context *c, const bq_adascale_options *o, training *t, int64_t step, int64_t sample) {
    bq_dev *dev = c->dev;
    bq_mat x = block_input(c, t, step, sample), dw[BQ_MATS];
    bq_mat target = x.data == t->qt.data ? t->fp : t->qt; /* inputs are read: the free buffer takes the target */
    double elements = (double)o->batch * (double)x.cols, loss;
    if (o->loss == BQ_LOSS_MEAN) elements *= (double)x.rows;
    bq_block_forward(dev, c->blk, c->q->what, c->work, x, t->y);
    dev->op->put(dev, c->fetch(c->ctx, BQ_STREAM_TARGET, sample), target);
    dev->op->mse(dev, t->y, target, 1 / elements, t->y, &loss);
    for (int m = 0; m < BQ_MATS; m++) dw[m] = bq_treesum_next(&t->sum[m]);
    bq_block_backward(dev, c->blk, c->q->what, c->work, x, t->y, dw, (bq_mat){0});
    for (int m = 0; m < BQ_MATS; m++) bq_treesum_add(&t->sum[m]);
    dev->op->wait(dev);
    return loss;
}

static void update(bq_pass_context *c, const bq_adascale_options *o, training *t, int64_t step) {
    bq_quantized *q = c->q;
    double cosine = (1 + cos(PI * (double)step / (double)o->iterations)) / 2;
    bq_adam adam = {(float)(o->lr_clip * cosine), (float)(o->lr_weight * cosine), 0.9, 0.999, 1e-8f, step + 1};
    bq_mat sum[BQ_MATS];
    for (int m = 0; m < BQ_MATS; m++) sum[m] = bq_treesum_end(&t->sum[m]);
    for (int i = 0; i < q->arch->linears; i++)
        c->dev->op->adascale_step(c->dev, &t->linear[i], q->scheme[i],
                                  bq_linear_grouped(q->arch, q->scheme, i, sum), adam, (bq_mat){0});
}

bool bq_adascale_plateau(const bq_adascale_options *o, const double *losses, int64_t count, double *previous) {
    if (!o->early_stop || count % o->check_interval) return false;
    int64_t n = count < o->window ? count : o->window;
    double mean = 0;
    for (int64_t i = count - n; i < count; i++) mean += losses[i];
    mean /= (double)n;
    bool flat = count > o->window && (*previous - mean) / (fabs(*previous) + 1e-8) < o->threshold;
    *previous = mean;
    return flat;
}

int64_t bq_pass_adascale(bq_pass_context *c, const bq_adascale_options *o, double *losses) {
    size_t mark = bq_arena_mark(&c->dev->mem);
    training t = {0};
    double previous = NAN;
    int64_t step = 0, stride = c->samples / o->batch;
    bool finite = true, flat = false;
    start(c, o, &t);
    while (step < o->iterations && finite && !flat) {
        weights(c, &t, false);
        double loss = 0;
        for (int64_t k = 0; k < o->batch; k++) loss += sample_step(c, o, &t, step, step % stride + k * stride);
        losses[step] = loss;
        finite = isfinite(loss);
        if (!finite) break;
        update(c, o, &t, step++);
        if (c->step) c->step(c->ctx, step, o->iterations, loss);
        flat = bq_adascale_plateau(o, losses, step, &previous);
    }
    for (int i = 0; c->trained && i < c->q->arch->linears; i++) c->trained(c->ctx, i, &t.linear[i]);
    if (finite) {
        weights(c, &t, true);
        bq_quantized_encode(c->dev, c->q);
    } else bq_pass_rtn(c);
    bq_arena_reset(&c->dev->mem, mark);
    return finite ? step : -1;
}
