/* SPDX-License-Identifier: Apache-2.0 */
/* The pass autoround: SignRound (Cheng et al., 2023), as Intel's auto-round does it.  It trains an offset
 * before rounding for each weight, and a factor for each end of each group's range, by the signs of their
 * gradients, and keeps the values of the step with the least loss.
 *
 * Where it differs from auto-round:
 *   - samples come in a fixed order (train.h), not at random
 *   - grids are the scheme's.  auto-round's symmetric scales have a sign, also in its files: where the
 *     largest |weight| of a group is positive, its scale is negative, so that this weight has code -8.  In
 *     blockq a scale is positive (AIMET's encodings, for example, have no negative ones), and codes cannot
 *     be negated instead, since there is no code 8: such a group has code 7 at this end.  With
 *     `"grid": "aimet"` the other groups have the scales of auto-round.  Grids with zero points are its grids
 *   - the learning rate is 1 / iterations for codes of all widths (auto-round: twice that for 2 and 3 bits,
 *     with 1000 iterations and more) */
#include "block/passes/train.h"

static void settle(bq_train_options *o) {
    if (o->lr_weight <= 0) o->lr_weight = 1 / (double)o->iterations;
    if (o->lr_clip <= 0) o->lr_clip = o->lr_weight;
    if (!o->minmax) o->lr_clip = 0;
}

const bq_train_kind bq_train_autoround = {
    .element = {"value", "value_best"},
    .row = {"low", "high", "low_best", "high_best", "lo", "hi"},
    .constants = 2,
    .best_elements = 1,
    .best_rows = 2,
    .form = BQ_TUNE_ROUNDING,
    .optimizer = BQ_SIGN,
    .bytes = 36,
    .settle = settle,
    .begin = bq_tuned_begin,
    .reset = bq_tuned_reset,
    .weights = bq_tuned_weights,
    .step = bq_tuned_step,
};

/* ---- the kind ---- */

static const bq_key keys[] = {
    BQ_TRAIN_STEP_KEYS("200", ". auto-round has 200, and 1000 in its recipe for the best quality.", "8",
                       " More samples make the sign of a gradient surer; auto-round has 8."),
    {"lr", BQ_KEY_REAL, BQ_AT(bq_train_options, lr_weight), .value = "0", .max = 1,
     .help =
         "How far an offset moves in a step, in steps of the grid. 0: 1 / `iterations`, so that all steps "
         "together can just move a weight to the next code."},
    {"minmax", BQ_KEY_BOOL, BQ_AT(bq_train_options, minmax), .value = "true",
     .help = "Train the ends of the grids, too: a factor from 0 to 1 for each end."},
    {"minmax_lr", BQ_KEY_REAL, BQ_AT(bq_train_options, lr_clip), .value = "0", .max = 1,
     .help = "How far these factors move in a step. 0: as `lr`."},
    {"rates", BQ_KEY_CHOICE, BQ_AT(bq_train_options, rates), .value = "linear", .choice = bq_rates_choices,
     .help = "How both rates fall to 0 over the steps. auto-round: `linear`."},
    {"loss", BQ_KEY_CHOICE, BQ_AT(bq_train_options, loss), .value = "mean", .choice = bq_loss_choices,
     .help = "The squared error of the outputs, averaged over the tokens of a sample (`mean`) or summed "
             "(`sum_seq`): only signs of gradients count, so these two change nothing but the figures. "
             "`relative`: as of adascale."},
    BQ_TRAIN_END_KEYS,
    {0}};

static const bq_train_kind *trains(const void *o) {
    (void)o;
    return &bq_train_autoround;
}

BQ_TRAIN_FUNCTIONS

const bq_pass_kind bq_pass_kind_autoround = {
    .scope = {"phases.N.passes.N, pass: autoround",
              "Trains whether each weight is rounded up or down, and the ends of the grids, so that the "
              "quantized block gives the outputs of the original (Intel's AutoRound). Each step costs a "
              "forward and a backward of `batch` samples. Keeps the weights near the original: an offset "
              "moves a weight by about one code at most. Scales are positive here, auto-round's have a sign.",
              keys, BQ_PASS_OPTIONS_OF(bq_train_options)},
    .name = "autoround",
    .traits = BQ_TRAIN_TRAITS | BQ_PASS_FILLS | BQ_PASS_ZEROS | BQ_PASS_INTEGERS,
    BQ_TRAIN_FIELDS,
};
