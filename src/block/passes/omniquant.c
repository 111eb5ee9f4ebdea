/* SPDX-License-Identifier: Apache-2.0 */
/* The pass omniquant: the learnable weight clipping of OmniQuant (Shao et al., 2024).  It trains a factor for
 * each end of each group's range, the sigmoid of a number that starts at 4; the weights stay.
 *
 * Where it differs from OmniQuant's code: grids hold 0 and are the scheme's, so that a zero point is a code;
 * samples come in a fixed order (train.h).  Its learnable equivalent transformation is not here: passes that
 * prepare scale the channels (smoothquant, awq). */
#include "block/passes/train.h"

const bq_train_kind bq_train_omniquant = {
    .row = {"low", "high", "low_m", "high_m", "low_v", "high_v", "lo", "hi"},
    .constants = 2,
    .form = BQ_TUNE_CLIPPING,
    .optimizer = BQ_ADAM,
    .bytes = 16,
    .begin = bq_tuned_begin,
    .reset = bq_tuned_reset,
    .weights = bq_tuned_weights,
    .step = bq_tuned_step,
};

/* ---- the kind ---- */

static const bq_key keys[] = {
    BQ_TRAIN_STEP_KEYS("1280", ". OmniQuant's code goes 10 to 40 times over 128 samples.", "1", ""),
    {"lr", BQ_KEY_REAL, BQ_AT(bq_train_options, lr_clip), .value = "5e-3", .max = 1,
     .help = "Learning rate of both numbers of a group (Adam). The paper has 5e-3, its code 1e-2."},
    {"rates", BQ_KEY_CHOICE, BQ_AT(bq_train_options, rates), .value = "constant", .choice = bq_rates_choices,
     .help = "How the rate changes over the steps. OmniQuant: `constant`."},
    {"loss", BQ_KEY_CHOICE, BQ_AT(bq_train_options, loss), .value = "mean", .choice = bq_loss_choices,
     .help = "The squared error of the outputs, averaged over the tokens of a sample (`mean`, OmniQuant) or "
             "summed (`sum_seq`): Adam's steps hardly depend on it. `relative`: as of adascale."},
    BQ_TRAIN_END_KEYS,
    {0}};

static const bq_train_kind *trains(const void *o) {
    (void)o;
    return &bq_train_omniquant;
}

BQ_TRAIN_FUNCTIONS

const bq_pass_kind bq_pass_kind_omniquant = {
    .scope = {"phases.N.passes.N, pass: omniquant",
              "Trains both ends of each grid, so that the quantized block gives the outputs of the original "
              "(OmniQuant's learnable weight clipping). Weights are then rounded to nearest. Each step costs "
              "a forward and a backward of `batch` samples; it trains little, so it needs little memory. It "
              "helps where ranges are wide: rows without groups, 3 bits and less.",
              keys, BQ_PASS_OPTIONS_OF(bq_train_options)},
    .name = "omniquant",
    .traits = BQ_TRAIN_TRAITS | BQ_PASS_ZEROS | BQ_PASS_INTEGERS,
    BQ_TRAIN_FIELDS,
};
