/* SPDX-License-Identifier: Apache-2.0 */
/* What the kinds of passes that train have in common. */
#include "block/passes/train.h"

#include "base/log.h"

#include <math.h>

const bq_choice bq_loss_choices[] = {
    {"sum_seq", BQ_LOSS_SUM_SEQ}, {"mean", BQ_LOSS_MEAN}, {"relative", BQ_LOSS_RELATIVE}, {0}};
const bq_choice bq_rates_choices[] = {
    {"cosine", BQ_RATES_COSINE}, {"linear", BQ_RATES_LINEAR}, {"constant", BQ_RATES_CONSTANT}, {0}};

bq_training bq_train_training(const void *pass, int sweep) {
    const bq_train_options *o = pass;
    int64_t all = o->iterations, again = o->sweep_iterations ? o->sweep_iterations : (all + 3) / 4;
    return (bq_training){sweep ? again : all, o->batch};
}

const char *bq_train_remedy(const void *o) {
    return ((const bq_train_options *)o)->batch > 1 ? "start more ranks a stage, or take a smaller batch"
                                                    : NULL;
}

void bq_train_say_where(const bq_pass_context *c, const bq_train_options *o, int64_t step) {
    int64_t stride = c->samples / o->batch;
    for (int64_t k = 0; k < o->batch && c->comm->replica == 0; k++)
        if (!isfinite(c->batch[k]))
            bq_log_all(BQ_WARN, "block %u: the loss of sample %ld is %g at iteration %ld", c->at.block + 1,
                       (long)(step % stride + k * stride), c->batch[k], (long)step);
}

/* Forward and backward of this replica's samples of a batch; then the update of its rows. */
bq_effort bq_train_step_cost(const bq_train_kind *kind, const void *o, const bq_cost *c) {
    bq_effort e = {0};
    double batch = (double)((const bq_train_options *)o)->batch, leaves = ceil(batch / c->replicas);
    bq_effort_add(&e, leaves, bq_effort_forward(c->arch, c->tokens));
    bq_effort_add(&e, leaves, bq_effort_backward(c->arch, c->tokens));
    e.memory += kind->bytes * c->weights / c->replicas;
    if (c->replicas > 1) {
        double nodes = fmin(leaves, 1 + log2(fmax(leaves, 1))), others = (c->replicas - 1) / c->replicas;
        bool mine = batch >= c->replicas; /* else only some replicas have a sample, and only these send */
        e.memory += 12 * c->weights;      /* adding up what was received */
        e.sent += 4 * c->weights * others * ((mine ? nodes : 1) + 1);
        e.messages += 2 * c->arch->sites + 1;
    }
    return e;
}

/* Before and after the training. */
bq_effort bq_train_cost(const void *o, const bq_cost *c) {
    bq_effort e = {0};
    if (((const bq_train_options *)o)->only_if_better)
        bq_effort_add(&e, 2 * c->samples, bq_effort_forward(c->arch, c->tokens));
    return e;
}

bq_type bq_train_type(const bq_pass_context *c, const bq_train_kind *kind) {
    const bq_quantized *q = c->q;
    bool codes = kind->codes && (c->dev->mem.place == BQ_DEVICE || c->dev->compute == BQ_COMPUTE_FP16X2);
    for (int i = 0; i < q->arch->linears; i++)
        codes = codes && bq_linear_groups(q->arch, q->scheme, i) == 1 && q->arch->linear[i].cols % 2 == 0;
    if (codes && c->dev->compute == BQ_COMPUTE_FP16X2) return BQ_F16;
    return codes && c->dev->compute == BQ_COMPUTE_BF16 ? BQ_BF16 : BQ_F32;
}

void bq_train_undo(bq_pass_context *c, const bq_mat grid[2][BQ_ARCH_LINEARS]) {
    bq_quantized *q = c->q;
    if (!c->grid) {
        bq_pass_rtn(c);
        return;
    }
    for (int i = 0; i < 2 * q->arch->linears; i++) {
        bq_mat from = grid[i % 2][i / 2], to = i % 2 ? q->zero[i / 2] : q->scale[i / 2];
        if (from.data) c->dev->op->copy(c->dev, from, to);
    }
    for (int m = 0; m < q->arch->sites; m++) c->dev->op->copy(c->dev, c->blk->w[m], q->fold[m]);
    bq_quantized_encode(c->dev, q);
}

int64_t bq_train_run(bq_pass_context *c, const bq_train_kind *kind, const bq_train_options *options) {
    bq_train_options o = *options;
    bq_pass_context own = *c;
    o.iterations = bq_train_training(options, (int)c->at.sweep).steps;
    o.batch = o.batch < c->samples ? o.batch : c->samples;
    own.samples -= c->samples % o.batch;
    if (kind->settle) kind->settle(&o);
    return bq_train(&own, kind, &o);
}
