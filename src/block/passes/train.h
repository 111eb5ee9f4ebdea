/* SPDX-License-Identifier: Apache-2.0 */
/* train.h - trains a block so that with quantized weights it gives the targets: what the passes adascale,
 * autoround, omniquant and qat share.
 *
 * All linears of a block are trained together.  What is trained is the pass's own, a bq_train_kind: it lays
 * values for the rows of a linear, computes from them what the forward multiplies by, and takes a step with
 * them from the gradient.  The loop has the rest: samples, sums, losses, learning rates, the end, saving.
 *
 * Of n samples in all, step t (from 0) with batch B takes the samples t mod (n/B) + k n/B, k = 0 ... B - 1,
 * and adds their gradients by the fixed tree of comm/treesum.h.  B = 1 is AIMET's order.
 *
 * Each replica computes the samples of its share and owns some rows of each matrix.  It gets the gradients of
 * its rows from all, holds the trained values of these rows only, and sends the new weights of its rows to
 * all.  Rows do not depend on each other, so any number of replicas gives the same bytes. */
#ifndef BQ_BLOCK_TRAIN_H
#define BQ_BLOCK_TRAIN_H

#include "base/shard.h"
#include "block/passes/pass.h"
#include "kernels/adam.h"

typedef enum {
    BQ_LOSS_SUM_SEQ,  /* sum over tokens, mean over batch and channels: AIMET since 2.34 */
    BQ_LOSS_MEAN,     /* mean over all of them: AIMET before 2.34 */
    BQ_LOSS_RELATIVE, /* SUM_SEQ of the error of each token over the mean square of its target */
} bq_loss;

/* How the learning rates change over the steps: they fall to 0 by half a period of a cosine, or along a line;
 * or they stay. */
typedef enum { BQ_RATES_COSINE, BQ_RATES_LINEAR, BQ_RATES_CONSTANT } bq_rates;

typedef struct {
    int64_t iterations, batch; /* steps, and samples in a step; batch divides the number of samples */
    int64_t sweep_iterations;  /* steps from the second sweep on; 0: a quarter */
    double lr_clip, lr_weight; /* of values that a group has one of; of values that each weight has */
    bq_rates rates;
    bq_loss loss;
    bq_train_optimizer optimizer;
    double decay, momentum; /* of the optimizers that have it (tuned.h) */
    bool minmax, learned;   /* of autoround: train the ends of grids; of qat: train grids */
    bool only_if_better;    /* keep the block as it was unless the mean loss of all samples is lower */
    bool early_stop;        /* look for a plateau of the loss, see bq_train_plateau */
    int64_t check_interval, window;
    double threshold;
    double anneal; /* steps after a plateau, as a share of the steps before it: the rates fall to 0 over them.
                      0: the training ends at the plateau, with the rates as they are (AIMET) */
} bq_train_options;

/* The values of the rows of a linear that this replica owns.  A row of several groups is as many rows. */
enum { BQ_TRAIN_ELEMENTS = 3, BQ_TRAIN_ROWS = 12 };
struct bq_trained {
    const bq_train_kind *kind;
    bq_scheme scheme;
    bq_mat w;                          /* (rows, cols): as the pass found them; rows is 0 where it has none */
    bq_mat element[BQ_TRAIN_ELEMENTS]; /* (rows, cols): values that each weight has */
    bq_mat row;                        /* (rows, as many as there are): values that a row has */
};

/* What a pass trains.  The functions get a linear that has rows; grids are views of its rows.  All local. */
struct bq_train_kind {
    /* The names of the values, in order, NULL after the last: in a block's saved state. */
    const char *element[BQ_TRAIN_ELEMENTS + 1], *row[BQ_TRAIN_ROWS + 1];
    int constants; /* so many of the last row values are not trained */
    /* Keep the values of the step with the least loss: the first element values, as many as are given here,
     * are kept in those behind them, and so are the row values. */
    int best_elements, best_rows;
    bool codes;   /* w_hat may be codes, where the device multiplies by them exactly (ops.h) */
    double bytes; /* moved by a step for each weight */
    bq_tune form; /* of train_tuned.c */
    bq_train_optimizer optimizer;
    /* May be NULL: fill in what options of a recipe leave open. */
    void (*settle)(bq_train_options *o);
    /* Once, after all values have become 0: compute the constants.  `grid`: the grids are those of a pass
     * before; else they are undefined, and both functions below leave them so or fill them. */
    void (*begin)(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bool grid);
    /* Set trained values whose start is not 0; they are 0 now.  May be NULL. */
    void (*reset)(bq_dev *dev, const bq_trained *v);
    /* Compute w_hat and its grids; and fold, unless its data is NULL, from which quantize makes the codes of
     * w_hat on these grids. */
    void (*weights)(bq_dev *dev, const bq_trained *v, bq_mat w_hat, bq_mat scale, bq_mat zero, bq_mat fold);
    /* Take a step from g = dL/dw_hat.  The grids are those that `weights` left; numbers: of bq_adam_put. */
    void (*step)(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bq_mat g, bq_mat numbers);
};

/* Value k of a row, as a column; a value by its name in a saved state (a view without data: there is none).
 */
static inline bq_mat bq_trained_row(const bq_trained *v, int k) { return bq_mat_cols(v->row, k, 1); }
bq_mat bq_trained_value(const bq_trained *v, const char *name);

/* What the passes train. */
extern const bq_train_kind bq_train_adascale, bq_train_autoround, bq_train_omniquant;
extern const bq_train_kind bq_train_qat[2][2]; /* [learned scales][sgd] */

/* Train by options of a recipe, in the sweep of c->at; an expert may have fewer samples than the batch, and
 * any number of them.  need: device bytes that it takes on a replica beside block, result and workspace. */
int64_t bq_train_run(bq_pass_context *c, const bq_train_kind *kind, const bq_train_options *o);
size_t bq_train_need(const bq_train_kind *kind, const bq_train_options *o, const bq_pass_size *of);

/* Train, and leave the result in c->q on all replicas.  Starts from c->q's grids where c->grid is set, else
 * from min-max.  Fills c->losses.  Collective over stage.  Returns:
 *   the number of steps done, fewer than `iterations` after an early stop
 *   BQ_PASS_NOT_FINITE   a loss was NaN or infinite; c->q has the weights as they were at the start, rounded
 *                        to nearest on the grids of the start
 *   BQ_PASS_STOPPED      after c->stop; there is no result, but c->keeper, if any, has saved the state */
int64_t bq_train(bq_pass_context *c, const bq_train_kind *kind, const bq_train_options *o);

/* What pass.h says of the functions of these names, for passes whose options are bq_train_options. */
bq_training bq_train_training(const void *o, int sweep);
const char *bq_train_remedy(const void *o);
bq_effort bq_train_step_cost(const bq_train_kind *kind, const void *o, const bq_cost *c);
bq_effort bq_train_cost(const void *o, const bq_cost *c);

/* Say which losses of the batch of a step are not finite; c->batch has all of them on every replica. */
void bq_train_say_where(const bq_pass_context *c, const bq_train_options *o, int64_t step);

/* The type of w_hat in training.  Codes, where the device multiplies by them exactly and a row has one scale;
 * rows of an odd length could not be exchanged as floats. */
bq_type bq_train_type(const bq_pass_context *c, const bq_train_kind *kind);

/* Leave the block as the pass before has left it, with copies of its scales and zero points; without c->grid
 * rounded to nearest. */
void bq_train_undo(bq_pass_context *c, const bq_mat grid[2][BQ_ARCH_LINEARS]);

/* Keys that these passes share, with their defaults and what else is to be said of them. */
#define BQ_TRAIN_STEP_KEYS(steps, more_steps, samples, more_batch)                                           \
    {"iterations",                                                                                           \
     BQ_KEY_I64,                                                                                             \
     BQ_AT(bq_train_options, iterations),                                                                    \
     .value = steps,                                                                                         \
     .min = 1,                                                                                               \
     .max = 1e7,                                                                                             \
     .help = "Optimizer steps for each block. The time grows with them" more_steps},                         \
        {"sweep_iterations",                                                                                 \
         BQ_KEY_I64,                                                                                         \
         BQ_AT(bq_train_options, sweep_iterations),                                                          \
         .value = "0",                                                                                       \
         .max = 1e7,                                                                                         \
         .help = "The same from the second sweep on. 0: a quarter of `iterations`."},                        \
    {                                                                                                        \
        "batch", BQ_KEY_I64, BQ_AT(bq_train_options, batch),                                                 \
            .value = samples, .min = 1, .max = 1 << 24,                                                      \
            .help =                                                                                          \
                "Samples in a step; must divide `calibration.samples`. The time of a step grows with them. " \
                "The ranks of a stage share them, so more than `batch` ranks hardly help." more_batch        \
    }
#define BQ_TRAIN_END_KEYS                                                                                    \
    {"only_if_better", BQ_KEY_BOOL, BQ_AT(bq_train_options, only_if_better), .value = "false",               \
     .help = "Leave a block as it was before the training unless the mean loss of all samples is lower "     \
             "after it. Samples differ, so the losses of steps do not show that. Costs two forwards of "     \
             "all samples."},                                                                                \
        {"early_stop", BQ_KEY_BOOL, BQ_AT(bq_train_options, early_stop), .value = "false",                   \
         .help =                                                                                             \
             "End the training of a block when its loss no longer falls. Saves time; the next four keys "    \
             "say when and how."},                                                                           \
        {"check_interval",                                                                                   \
         BQ_KEY_I64,                                                                                         \
         BQ_AT(bq_train_options, check_interval),                                                            \
         .value = "200",                                                                                     \
         .min = 1,                                                                                           \
         .max = 1e7,                                                                                         \
         .help = "With `early_stop`: the number of steps between two checks."},                              \
        {"window",                                                                                           \
         BQ_KEY_I64,                                                                                         \
         BQ_AT(bq_train_options, window),                                                                    \
         .value = "500",                                                                                     \
         .min = 1,                                                                                           \
         .max = 1e7,                                                                                         \
         .help = "With `early_stop`: a check compares the mean of the last `window` losses with that of "    \
                 "the check before. No block ends in its first `window` steps."},                            \
        {"threshold",                                                                                        \
         BQ_KEY_REAL,                                                                                        \
         BQ_AT(bq_train_options, threshold),                                                                 \
         .value = "1e-2",                                                                                    \
         .max = 1,                                                                                           \
         .help = "With `early_stop`: the block ends when that mean has fallen by less than this share. "     \
                 "1e-2 is one percent."},                                                                    \
    {                                                                                                        \
        "anneal", BQ_KEY_REAL, BQ_AT(bq_train_options, anneal),                                              \
            .value = "0", .max = 1,                                                                          \
            .help =                                                                                          \
                "With `early_stop`: further steps in which the learning rates fall to 0, as a share of the " \
                "steps so far. 0: the block ends at once, with the rates as they are (AIMET)."               \
    }
extern const bq_choice bq_loss_choices[], bq_rates_choices[];

/* The functions of such a kind of pass, which has defined `trains`; their fields; traits of all of them. */
#define BQ_TRAIN_FUNCTIONS                                                                                   \
    static size_t need(const void *o, const bq_pass_size *of) { return bq_train_need(trains(o), o, of); }    \
    static bq_effort step_cost(const void *o, const bq_cost *c) {                                            \
        return bq_train_step_cost(trains(o), o, c);                                                          \
    }                                                                                                        \
    static int64_t run(bq_pass_context *c, const void *o) { return bq_train_run(c, trains(o), o); }
#define BQ_TRAIN_FIELDS                                                                                      \
    .training = bq_train_training, .trains = trains, .remedy = bq_train_remedy, .need = need,                \
    .cost = bq_train_cost, .step_cost = step_cost, .run = run
#define BQ_TRAIN_TRAITS                                                                                      \
    (BQ_PASS_CALIBRATED | BQ_PASS_TARGETS | BQ_PASS_QUANTIZES | BQ_PASS_TRAINS | BQ_PASS_BACKWARD)

/* The functions of kinds that train by the ops tuned_weights and tuned_step (train_tuned.c). */
void bq_tuned_begin(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bool grid);
void bq_tuned_reset(bq_dev *dev, const bq_trained *v);
void bq_tuned_weights(bq_dev *dev, const bq_trained *v, bq_mat w_hat, bq_mat scale, bq_mat zero, bq_mat fold);
void bq_tuned_step(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bq_mat g, bq_mat numbers);

/* A GPU alone, with a batch of one sample, takes so many steps before the host looks at their losses:
 * meanwhile it need not wait for the host.  Steps behind a loss that is not finite are in vain: the pass
 * drops all of them. */
enum { BQ_TRAIN_AHEAD = 16 };

/* The shares of the replicas (train_need.c).
 *   rows      of a linear, those that lie in a range of rows of its matrix, with their numbers in the matrix
 *   leaves    of a step, those that a replica computes, whose samples are in its share: leaf k is sample
 *             step % stride + k * stride, stride = samples / batch; all_leaves: of every replica
 *   buffers   the most that the tree of a step needs */
bq_shard bq_train_rows(const bq_linear *l, bq_shard range);
bq_shard bq_train_leaves(int64_t samples, int64_t batch, int64_t step, int replica, int nreplica);
void bq_train_all_leaves(int64_t samples, int64_t batch, int64_t step, int nreplica, bq_shard *out);
int bq_train_buffers(int64_t samples, int64_t batch, int replica, int nreplica);

/* How many names there are. */
static inline int bq_train_count(const char *const *name) {
    int n = 0;
    while (name[n]) n++;
    return n;
}

/* Has the loss stopped falling?  AIMET's rule: every check_interval losses, take the mean of the last
 * `window` of the `count` losses so far; it has stopped if count > window and that mean is less than
 * `threshold`, as a share, below the mean of the check before, *previous (NaN at the start; updated).  For
 * train.c and its test. */
bool bq_train_plateau(const bq_train_options *o, const double *losses, int64_t count, double *previous);

/* After a plateau at step `flat` (0: there was none): how many steps there are in all; what the learning
 * rates are multiplied by at a step.  They fall to 0 from where they were at the plateau. */
int64_t bq_train_end(const bq_train_options *o, int64_t flat);
double bq_train_rate(const bq_train_options *o, int64_t flat, int64_t step);
/* The place of a step on the way from 0 to 1. */
double bq_train_phase(const bq_train_options *o, int64_t flat, int64_t step);

#endif
