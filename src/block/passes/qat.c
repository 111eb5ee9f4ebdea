/* SPDX-License-Identifier: Apache-2.0 */
/* The pass qat: quantization-aware training of one block at a time, against the outputs of the original block
 * (as the first phase of EfficientQAT: Chen et al., 2024; torchao trains the whole model on text).  The
 * weights themselves are trained, through rounding; their grids are made anew at each step, as torchao does,
 * or are trained, too.
 *
 * torchao has no gradient through the scales of integers, and neither has this; a gradient passes a clamp at
 * both of its ends (torch up to 2.11).  Of floats no weight counts as clamped, and gradients are not rounded
 * to the element on their way. */
#include "block/passes/train.h"

#define QAT_KIND(of_form, of_optimizer, of_bytes, ...)                                                       \
    {                                                                                                        \
        .form = of_form, .optimizer = of_optimizer, .bytes = of_bytes, .begin = bq_tuned_begin,              \
        .reset = bq_tuned_reset, .weights = bq_tuned_weights, .step = bq_tuned_step, __VA_ARGS__             \
    }

const bq_train_kind bq_train_qat[2][2] = {
    {QAT_KIND(BQ_TUNE_WEIGHTS, BQ_ADAM, 40, .element = {"w", "w_m", "w_v"}),
     QAT_KIND(BQ_TUNE_WEIGHTS, BQ_MOMENTUM, 32, .element = {"w", "w_m"})},
    {QAT_KIND(BQ_TUNE_SCALES, BQ_ADAM, 40, .element = {"w", "w_m", "w_v"}, .constants = 2,
              .row = {"zero", "scale", "zero_m", "scale_m", "zero_v", "scale_v", "zero_0", "scale_0"}),
     QAT_KIND(BQ_TUNE_SCALES, BQ_MOMENTUM, 32, .element = {"w", "w_m"}, .constants = 2,
              .row = {"zero", "scale", "zero_m", "scale_m", "zero_0", "scale_0"})}};

static const bq_train_kind *trains(const void *pass) {
    const bq_train_options *o = pass;
    return &bq_train_qat[o->learned][o->optimizer == BQ_MOMENTUM];
}

static const bq_choice optimizers[] = {{"adamw", BQ_ADAM}, {"sgd", BQ_MOMENTUM}, {0}};
static const bq_key keys[] = {
    BQ_TRAIN_STEP_KEYS("1000", ".", "1", ""),
    {"optimizer", BQ_KEY_CHOICE, BQ_AT(bq_train_options, optimizer), .value = "adamw", .choice = optimizers,
     .help = "`adamw` keeps two moments of each weight; `sgd` one, so it needs 4 bytes a weight less."},
    {"lr", BQ_KEY_REAL, BQ_AT(bq_train_options, lr_weight), .value = "2e-5", .max = 1,
     .help =
         "Learning rate of the weights. With `adamw` a weight moves by about that in a step, so it should "
         "be small beside a step of the grid: torchao's results are with 2e-5 and 2e-6, small models "
         "take more. With `sgd` a step grows with the gradient, so the right value depends on the model: "
         "torchao's example has 1e-3; try less where a block's loss becomes infinite."},
    {"momentum", BQ_KEY_REAL, BQ_AT(bq_train_options, momentum), .value = "0.9", .max = 0.9999,
     .help = "Of `sgd`."},
    {"weight_decay", BQ_KEY_REAL, BQ_AT(bq_train_options, decay), .value = "0", .max = 1,
     .help = "Makes weights smaller: `adamw` by that share of `lr` in each step, `sgd` through the gradient "
             "(torchao's example: 1e-5). The training starts from good weights, so 0 is a good choice."},
    {"learn_scales", BQ_KEY_BOOL, BQ_AT(bq_train_options, learned), .value = "false",
     .help = "Train scales and zero points, too, from those of the passes before or of min-max. False: each "
             "step makes the grids anew from the smallest and largest weights, as torchao does, so that what "
             "passes before have found of them is lost."},
    {"scale_lr", BQ_KEY_REAL, BQ_AT(bq_train_options, lr_clip), .value = "1e-5", .max = 1,
     .help = "With `learn_scales`: the learning rate of scales and zero points (EfficientQAT: 1e-4)."},
    {"rates", BQ_KEY_CHOICE, BQ_AT(bq_train_options, rates), .value = "cosine", .choice = bq_rates_choices,
     .help = "How the rates fall to 0 over the steps, or whether they stay."},
    {"loss", BQ_KEY_CHOICE, BQ_AT(bq_train_options, loss), .value = "mean", .choice = bq_loss_choices,
     .help = "The squared error of the outputs: averaged over the tokens of a sample (`mean`), or summed "
             "(`sum_seq`). With `sgd` the steps grow with it. `relative`: as of adascale."},
    BQ_TRAIN_END_KEYS,
    {0}};

BQ_TRAIN_FUNCTIONS

const bq_pass_kind bq_pass_kind_qat = {
    .scope = {"phases.N.passes.N, pass: qat",
              "Trains the weights of a block through rounding, so that the quantized block gives the outputs "
              "of the original (quantization-aware training, block by block). Works with integers and with "
              "floats. Each step costs a forward and a backward of `batch` samples. Weights are free, so "
              "with few samples it can learn these by heart: take many.",
              keys, BQ_PASS_OPTIONS_OF(bq_train_options)},
    .name = "qat",
    .traits = BQ_TRAIN_TRAITS | BQ_PASS_FILLS | BQ_PASS_ZEROS,
    BQ_TRAIN_FIELDS,
};
