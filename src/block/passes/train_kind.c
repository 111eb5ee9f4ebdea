/* What the kinds of passes that train have in common. */
#include "block/passes/train.h"

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

int64_t bq_train_run(bq_pass_context *c, const bq_train_kind *kind, const bq_train_options *options) {
    bq_train_options o = *options;
    bq_pass_context own = *c;
    o.iterations = bq_train_training(options, (int)c->at.sweep).steps;
    o.batch = o.batch < c->samples ? o.batch : c->samples;
    own.samples -= c->samples % o.batch;
    if (kind->settle) kind->settle(&o);
    return bq_train(&own, kind, &o);
}
