/* The keys of each pass. */
#include "driver/keys.h"

#include <stddef.h>

#define AT(type, field) .at = offsetof(type, field)

static const bq_choice passes[] = {
    {"rtn", BQ_PASS_RTN}, {"adascale", BQ_PASS_ADASCALE}, {"gptq", BQ_PASS_GPTQ}, {0}};
static const bq_choice losses[] = {{"sum_seq", BQ_LOSS_SUM_SEQ}, {"mean", BQ_LOSS_MEAN}, {0}};

#define PASS_KEY                                                                                             \
    {                                                                                                        \
        "pass", BQ_KEY_CHOICE, AT(bq_pass, kind),                                                            \
            .choice = passes, .help = "Which pass; it decides which other keys there are."                   \
    }
static const bq_key rtn_keys[] = {PASS_KEY, {0}};
static const bq_key adascale_keys[] = {
    PASS_KEY,
    {"iterations", BQ_KEY_I64, AT(bq_pass, iterations), .value = "1500", .min = 1, .max = 1e7,
     .help = "Optimizer steps of a block; the learning rates fall to 0 over them (cosine)."},
    {"sweep_iterations", BQ_KEY_I64, AT(bq_pass, sweep_iterations), .value = "0", .max = 1e7,
     .help = "The same from the second sweep on; 0: a quarter of `iterations`."},
    {"batch", BQ_KEY_I64, AT(bq_pass, batch), .value = "1", .min = 1, .max = 1 << 24,
     .help = "Samples of a step, a divisor of `calibration.samples`. Ranks beyond `batch` hardly help."},
    {"lr_clip", BQ_KEY_REAL, AT(bq_pass, lr_clip), .value = "1e-3", .max = 1,
     .help = "Learning rate of the grid's ends (beta, gamma)."},
    {"lr_weight", BQ_KEY_REAL, AT(bq_pass, lr_weight), .value = "5e-4", .max = 1,
     .help = "Learning rate of the weights' factors (s2, s3)."},
    {"loss", BQ_KEY_CHOICE, AT(bq_pass, loss), .value = "sum_seq", .choice = losses,
     .help = "Squared error, summed over the sequence (AIMET since 2.34) or averaged over it (before)."},
    {"early_stop", BQ_KEY_BOOL, AT(bq_pass, early_stop), .value = "false",
     .help = "End a block when its loss no longer falls."},
    {"check_interval", BQ_KEY_I64, AT(bq_pass, check_interval), .value = "200", .min = 1, .max = 1e7,
     .help = "`early_stop` looks every so many steps."},
    {"window", BQ_KEY_I64, AT(bq_pass, window), .value = "500", .min = 1, .max = 1e7,
     .help = "`early_stop` compares means of so many losses."},
    {"threshold", BQ_KEY_REAL, AT(bq_pass, threshold), .value = "1e-2", .max = 1,
     .help = "`early_stop` ends below this relative improvement."},
    {0}};

static const bq_choice orders[] = {
    {"none", BQ_ORDER_NONE}, {"act", BQ_ORDER_ACT}, {"gar", BQ_ORDER_GAR}, {0}};
static const bq_choice clips[] = {
    {"minmax", BQ_CLIP_MINMAX}, {"mse", BQ_CLIP_MSE}, {"hessian", BQ_CLIP_HESSIAN}, {0}};
static const bq_key gptq_keys[] = {
    PASS_KEY,
    {"damp", BQ_KEY_REAL, AT(bq_pass, gptq.damp), .value = "0.01", .min = 1e-6, .max = 1,
     .help =
         "Added to the diagonal of the Gram matrix, as a share of its mean. Raised in steps of 0.01 where "
         "the matrix is not positive definite."},
    {"order", BQ_KEY_CHOICE, AT(bq_pass, gptq.order), .value = "act", .choice = orders,
     .help =
         "Columns by falling diagonal of the Gram matrix, with grids fitted before (act); groups, and the "
         "columns in them, by the same (gar); as they stand (none). With gar and none the grid of a group "
         "is fitted to the compensated weights. Stored codes always stand in the model's order."},
    {"clip", BQ_KEY_CHOICE, AT(bq_pass, gptq.clip), .value = "hessian", .choice = clips,
     .help = "Grids cover the range of the weights (minmax), or are narrowed to the least error of the "
             "weights (mse, power 2.4), or of the weights' squares times the diagonal of the Gram matrix "
             "(hessian). A pass before that leaves grids decides instead."},
    {"sequential", BQ_KEY_BOOL, AT(bq_pass, gptq.sequential), .value = "false",
     .help = "Four passes over the samples: inputs of o, gate_up and down see the linears before them in the "
             "block quantized. Takes less memory."},
    {"qep", BQ_KEY_REAL, AT(bq_pass, gptq.qep), .value = "0", .max = 1,
     .help = "Share of the QEP correction: weights first make up for what the quantized blocks before have "
             "done to their inputs (not down_proj). Needs `inputs` qt or mix, and a second forward."},
    {0}};
const bq_scope bq_pass_keys[BQ_PASS_KINDS] = {
    [BQ_PASS_RTN] = {"phases.N.passes.N, pass: rtn", "Round to nearest on the min-max grid. Needs no data.",
                     rtn_keys, sizeof(bq_pass)},
    [BQ_PASS_ADASCALE] =
        {"phases.N.passes.N, pass: adascale",
         "Trains clipping and a factor for each weight against the block's own output (AIMET's AdaScale).",
         adascale_keys, sizeof(bq_pass)},
    [BQ_PASS_GPTQ] = {"phases.N.passes.N, pass: gptq",
                      "Quantizes column by column; the columns behind make up for the error of those before, "
                      "as the inputs' second moments say (GPTQ).",
                      gptq_keys, sizeof(bq_pass)}};
