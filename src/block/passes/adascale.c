/* SPDX-License-Identifier: Apache-2.0 */
/* The pass adascale: AIMET's AdaScale, which is FlexRound (Lee et al., 2023) plus the learnable weight
 * clipping of OmniQuant (Shao et al., 2024).  The ops adascale_weights and adascale_step have the formulas,
 * train.h the training. */
#include "block/passes/train.h"

/* Row values.  The moments of beta, gamma and s3 lie side by side, as the op has them. */
enum { BETA, GAMMA, S3, MEAN, VARIANCE = MEAN + 3, HI = VARIANCE + 3, LO };

static bq_adascale values_of(const bq_trained *v) {
    return (bq_adascale){.w = v->w,
                         .hi = bq_trained_row(v, HI),
                         .lo = bq_trained_row(v, LO),
                         .beta = bq_trained_row(v, BETA),
                         .gamma = bq_trained_row(v, GAMMA),
                         .s3 = bq_trained_row(v, S3),
                         .s2 = v->element[0],
                         .m_row = bq_mat_cols(v->row, MEAN, 3),
                         .v_row = bq_mat_cols(v->row, VARIANCE, 3),
                         .m_s2 = v->element[1],
                         .v_s2 = v->element[2]};
}

/* The ends of the initial grid: hi = qmax * scale, lo = qmin * scale. */
static void begin(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bool grid) {
    if (!grid) dev->op->range(dev, v->w, v->scheme, scale, zero);
    dev->op->scale(dev, scale, bq_qmax(v->scheme), bq_trained_row(v, HI));
    dev->op->scale(dev, scale, bq_qmin(v->scheme), bq_trained_row(v, LO));
}

static void weights(bq_dev *dev, const bq_trained *v, bq_mat w_hat, bq_mat scale, bq_mat zero, bq_mat fold) {
    bq_adascale p = values_of(v);
    (void)zero;
    dev->op->adascale_weights(dev, &p, v->scheme, w_hat, scale, fold);
}

static void step(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bq_mat g, bq_mat numbers) {
    bq_adascale p = values_of(v);
    (void)scale, (void)zero;
    dev->op->adascale_step(dev, &p, v->scheme, g, numbers, (bq_mat){0});
}

const bq_train_kind bq_train_adascale = {
    .element = {"s2", "s2_m", "s2_v"},
    .row = {"beta", "gamma", "s3", "beta_m", "gamma_m", "s3_m", "beta_v", "gamma_v", "s3_v", "hi", "lo"},
    .constants = 2,
    .codes = true,
    .bytes = 44,
    .begin = begin,
    .weights = weights,
    .step = step,
};

/* ---- the kind ---- */

static const bq_key keys[] = {
    BQ_TRAIN_STEP_KEYS("1500", "; the learning rates fall to 0 over them (cosine).", "1", ""),
    {"lr_clip", BQ_KEY_REAL, BQ_AT(bq_train_options, lr_clip), .value = "1e-3", .max = 1,
     .help = "Learning rate of the ends of the grids (beta, gamma). AIMET has the same for all models."},
    {"lr_weight", BQ_KEY_REAL, BQ_AT(bq_train_options, lr_weight), .value = "5e-4", .max = 1,
     .help = "Learning rate of the factors of weights and rows (s2, s3). AIMET has the same for all models."},
    {"loss", BQ_KEY_CHOICE, BQ_AT(bq_train_options, loss), .value = "sum_seq", .choice = bq_loss_choices,
     .help = "The squared error of the outputs: summed over the tokens of a sample (`sum_seq`, AIMET since "
             "2.34), or averaged over them (`mean`, AIMET before: to compare with its older figures). "
             "`relative`: the sum where the error of each token is divided by the mean square of its target. "
             "Many models have a few tokens, often the first one, with values a thousand times as large as "
             "those of others: with the first two their error can be most of the loss."},
    BQ_TRAIN_END_KEYS,
    {0}};

static const bq_train_kind *trains(const void *o) {
    (void)o;
    return &bq_train_adascale;
}

BQ_TRAIN_FUNCTIONS

const bq_pass_kind bq_pass_kind_adascale = {
    .scope = {"phases.N.passes.N, pass: adascale",
              "Trains the ends of the grids and a factor for each weight, so that the quantized block gives "
              "the outputs of the original (AIMET's AdaScale). Each step costs a forward and a backward of "
              "`batch` samples. Needs symmetric codes.",
              keys, BQ_PASS_OPTIONS_OF(bq_train_options)},
    .name = "adascale",
    .traits = BQ_TRAIN_TRAITS | BQ_PASS_AIMET_GRID | BQ_PASS_INTEGERS,
    BQ_TRAIN_FIELDS,
};
