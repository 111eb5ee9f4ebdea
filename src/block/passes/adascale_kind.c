/* The kind of pass `adascale`: its keys, memory and cost. */
#include "block/passes/adascale.h"

#include <math.h>

typedef struct {
    bq_adascale_options train;
    int64_t sweep_iterations; /* 0: a quarter */
} options;

static const bq_choice losses[] = {{"sum_seq", BQ_LOSS_SUM_SEQ}, {"mean", BQ_LOSS_MEAN}, {0}};
static const bq_key keys[] = {
    {"iterations", BQ_KEY_I64, BQ_AT(options, train.iterations), .value = "1500", .min = 1, .max = 1e7,
     .help = "Optimizer steps for each block. The time grows with them; the learning rates fall to 0 over "
             "them (cosine)."},
    {"sweep_iterations", BQ_KEY_I64, BQ_AT(options, sweep_iterations), .value = "0", .max = 1e7,
     .help = "The same from the second sweep on. 0: a quarter of `iterations`."},
    {"batch", BQ_KEY_I64, BQ_AT(options, train.batch), .value = "1", .min = 1, .max = 1 << 24,
     .help = "Samples in a step; must divide `calibration.samples`. The time of a step grows with them. The "
             "ranks of a stage share them, so more than `batch` ranks hardly help."},
    {"lr_clip", BQ_KEY_REAL, BQ_AT(options, train.lr_clip), .value = "1e-3", .max = 1,
     .help = "Learning rate of the ends of the grids (beta, gamma). AIMET has the same for all models."},
    {"lr_weight", BQ_KEY_REAL, BQ_AT(options, train.lr_weight), .value = "5e-4", .max = 1,
     .help = "Learning rate of the factors of weights and rows (s2, s3). AIMET has the same for all models."},
    {"loss", BQ_KEY_CHOICE, BQ_AT(options, train.loss), .value = "sum_seq", .choice = losses,
     .help = "The squared error of the outputs: summed over the tokens of a sample (`sum_seq`, AIMET since "
             "2.34), or averaged over them (`mean`, AIMET before: to compare with its older figures)."},
    {"early_stop", BQ_KEY_BOOL, BQ_AT(options, train.early_stop), .value = "false",
     .help = "End the training of a block when its loss no longer falls. Saves time; the next four keys say "
             "when and how."},
    {"check_interval", BQ_KEY_I64, BQ_AT(options, train.check_interval), .value = "200", .min = 1, .max = 1e7,
     .help = "With `early_stop`: the number of steps between two checks."},
    {"window", BQ_KEY_I64, BQ_AT(options, train.window), .value = "500", .min = 1, .max = 1e7,
     .help = "With `early_stop`: a check compares the mean of the last `window` losses with that of the "
             "check before. No block ends in its first `window` steps."},
    {"threshold", BQ_KEY_REAL, BQ_AT(options, train.threshold), .value = "1e-2", .max = 1,
     .help = "With `early_stop`: the block ends when that mean has fallen by less than this share. 1e-2 is "
             "one percent."},
    {"anneal", BQ_KEY_REAL, BQ_AT(options, train.anneal), .value = "0", .max = 1,
     .help = "With `early_stop`: further steps in which the learning rates fall to 0, as a share of the "
             "steps so far. 0: the block ends at once, with the rates as they are (AIMET)."},
    {0}};

static bq_training training(const void *pass, int sweep) {
    const options *o = pass;
    int64_t all = o->train.iterations, again = o->sweep_iterations ? o->sweep_iterations : (all + 3) / 4;
    return (bq_training){sweep ? again : all, o->train.batch};
}

static const char *remedy(const void *o) {
    return ((const options *)o)->train.batch > 1 ? "start more ranks a stage, or take a smaller batch" : NULL;
}

/* An expert may have fewer samples than the batch. */
static int64_t batch_of(const void *pass, int64_t samples) {
    int64_t batch = ((const options *)pass)->train.batch;
    return batch < samples ? batch : samples;
}

static size_t need(const void *o, const bq_pass_size *of) {
    return bq_adascale_need(of->arch, of->scheme, of->tokens, of->samples, batch_of(o, of->samples),
                            of->replica, of->nreplica);
}

/* Forward and backward of this replica's samples of a batch; then the update of its rows, which moves 44
 * bytes for each weight. */
static bq_effort step_cost(const void *o, const bq_cost *c) {
    bq_effort e = {0};
    double batch = (double)((const options *)o)->train.batch, leaves = ceil(batch / c->replicas);
    bq_effort_add(&e, leaves, bq_effort_forward(c->arch, c->tokens));
    bq_effort_add(&e, leaves, bq_effort_backward(c->arch, c->tokens));
    e.memory += 44 * c->weights / c->replicas;
    if (c->replicas > 1) {
        double nodes = fmin(leaves, 1 + log2(fmax(leaves, 1))), others = (c->replicas - 1) / c->replicas;
        bool mine = batch >= c->replicas; /* else only some replicas have a sample, and only these send */
        e.memory += 12 * c->weights;      /* adding up what was received */
        e.sent += 4 * c->weights * others * ((mine ? nodes : 1) + 1);
        e.messages += 2 * c->arch->sites + 1;
    }
    return e;
}

static int64_t run(bq_pass_context *c, const void *pass) {
    bq_adascale_options o = ((const options *)pass)->train;
    bq_pass_context own = *c;
    o.iterations = training(pass, (int)c->at.sweep).steps;
    o.batch = batch_of(pass, c->samples);
    own.samples -= c->samples % o.batch; /* an expert may have any number */
    return bq_pass_adascale(&own, &o);
}

const bq_pass_kind bq_pass_kind_adascale = {
    .scope = {"phases.N.passes.N, pass: adascale",
              "Trains the ends of the grids and a factor for each weight, so that the quantized block gives "
              "the outputs of the original (AIMET's AdaScale). Each step costs a forward and a backward of "
              "`batch` samples. Needs symmetric codes.",
              keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "adascale",
    .traits = BQ_PASS_CALIBRATED | BQ_PASS_TARGETS | BQ_PASS_QUANTIZES | BQ_PASS_TRAINS | BQ_PASS_BACKWARD |
              BQ_PASS_AIMET_GRID | BQ_PASS_INTEGERS,
    .training = training,
    .remedy = remedy,
    .need = need,
    .step_cost = step_cost,
    .run = run,
};
