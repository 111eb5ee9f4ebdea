/* The keys of each pass. */
#include "driver/keys.h"

#include <stddef.h>

#define AT(type, field) .at = offsetof(type, field)

static const bq_choice passes[] = {{"rtn", BQ_PASS_RTN},
                                   {"adascale", BQ_PASS_ADASCALE},
                                   {"gptq", BQ_PASS_GPTQ},
                                   {"seqmse", BQ_PASS_SEQMSE},
                                   {"lpbq", BQ_PASS_LPBQ},
                                   {"smoothquant", BQ_PASS_SMOOTHQUANT},
                                   {"autosmoothquant", BQ_PASS_AUTOSMOOTH},
                                   {"awq", BQ_PASS_AWQ},
                                   {0}};
static const bq_choice losses[] = {{"sum_seq", BQ_LOSS_SUM_SEQ}, {"mean", BQ_LOSS_MEAN}, {0}};

#define PASS_KEY                                                                                             \
    {                                                                                                        \
        "pass", BQ_KEY_CHOICE, AT(bq_pass, kind),                                                            \
            .choice = passes, .help = "Which pass; it decides which other keys there are."                   \
    }
static const bq_choice rtn_clips[] = {{"minmax", BQ_CLIP_MINMAX}, {"mse", BQ_CLIP_MSE}, {0}};
#define SHRINK_KEYS                                                                                          \
    {"grid",                                                                                                 \
     BQ_KEY_INT,                                                                                             \
     AT(bq_pass, grid),                                                                                      \
     .value = "100",                                                                                         \
     .min = 1,                                                                                               \
     .max = 10000,                                                                                           \
     .help = "With `mse`: ends are tried times 1 - i / `grid`, i = 0, 1, ..."},                              \
        {"shrink",                                                                                           \
         BQ_KEY_REAL,                                                                                        \
         AT(bq_pass, shrink),                                                                                \
         .value = "0.8",                                                                                     \
         .max = 1,                                                                                           \
         .help = "With `mse`: how far they shrink, so that `grid` * `shrink` ends are tried. "               \
                 "llm-compressor: 0.2."},                                                                    \
    {                                                                                                        \
        "norm", BQ_KEY_CHOICE, AT(bq_pass, norm), .value = "l2.4", .choice = norms,                          \
                                                  .help = "With `mse`: a weight's error counts by its "      \
                                                          "power 2 or 2.4."                                  \
    }
static const bq_choice norms[] = {{"l2", BQ_NORM_2}, {"l2.4", BQ_NORM_24}, {0}};
static const bq_key rtn_keys[] = {
    PASS_KEY,
    {"clip", BQ_KEY_CHOICE, AT(bq_pass, clip), .value = "minmax", .choice = rtn_clips,
     .help = "The grid covers the row's values (`minmax`), or its ends shrink to where the weights' error is "
             "least (`mse`)."},
    SHRINK_KEYS,
    {0}};
static const bq_key seqmse_keys[] = {PASS_KEY,
                                     {"candidates", BQ_KEY_INT, AT(bq_pass, seqmse.candidates), .value = "20",
                                      .min = 1, .max = 1000,
                                      .help = "How many grids are tried: ends times (i + 1) / `candidates`."},
                                     {0}};
static const bq_key lpbq_keys[] = {
    PASS_KEY,
    {"decompressed_bits", BQ_KEY_INT, AT(bq_pass, decompressed), .value = "8", .min = 2, .max = 8,
     .help = "Bits of codes times multiples: the multiples go from 1 to 2^(`decompressed_bits` - bits)."},
    {0}};
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
    {"anneal", BQ_KEY_REAL, AT(bq_pass, anneal), .value = "0", .max = 1,
     .help = "Steps after `early_stop` has seen the end, as a share of those before it: the learning rates "
             "fall to 0 over them. 0: the block ends at once, with the rates as they are (AIMET)."},
    {0}};

static const bq_choice orders[] = {
    {"none", BQ_ORDER_NONE}, {"act", BQ_ORDER_ACT}, {"gar", BQ_ORDER_GAR}, {0}};
static const bq_choice clips[] = {
    {"minmax", BQ_CLIP_MINMAX}, {"mse", BQ_CLIP_MSE}, {"hessian", BQ_CLIP_HESSIAN}, {0}};
static const bq_choice sums[] = {{"f32", BQ_F32}, {"f64", BQ_F64}, {0}};
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
             "weights (mse, as with rtn), or of the weights' squares times the diagonal of the Gram matrix "
             "(hessian). A pass before that leaves grids decides instead."},
    SHRINK_KEYS,
    {"sequential", BQ_KEY_BOOL, AT(bq_pass, gptq.sequential), .value = "false",
     .help =
         "Inputs of o, gate_up and down see the linears before them in the block quantized. One Gram matrix "
         "is in memory at a time, and the samples go through the block once, kept where they halt before a "
         "matrix, as many as half of the memory left holds (`plan` says how many; the others start again "
         "for each matrix). As a phase's last pass it spares the quantized stream a forward."},
    {"gram", BQ_KEY_CHOICE, AT(bq_pass, gptq.gram), .value = "f32", .choice = sums,
     .help = "Type of the sums of Gram matrices over the samples. `f64` takes twice the memory for them; a "
             "sample's own products are made as `compute` says."},
    {"qep", BQ_KEY_REAL, AT(bq_pass, gptq.qep), .value = "0", .max = 1,
     .help = "Share of the QEP correction: weights first make up for what the quantized blocks before have "
             "done to their inputs (not down_proj). Needs `inputs` qt or mix, and a second forward."},
    {0}};
static const bq_choice statistics[] = {
    {"absmax", BQ_CHANNEL_ABSMAX}, {"range", BQ_CHANNEL_RANGE}, {"mean", BQ_CHANNEL_MEAN}, {0}};
static const bq_choice formulas[] = {{"alpha", BQ_SMOOTH_ALPHA}, {"log", BQ_SMOOTH_LOG}, {0}};
static const bq_choice entries[] = {{"norms", BQ_ENTRIES_NORMS}, {"all", BQ_ENTRIES_ALL}, {0}};
static const bq_choice distances[] = {
    {"mse", BQ_DISTANCE_MSE}, {"mae", BQ_DISTANCE_MAE}, {"rmse", BQ_DISTANCE_RMSE}, {0}};
static const bq_choice inspected[] = {{"off", BQ_INSPECT_OFF},
                                      {"self", BQ_INSPECT_SELF},
                                      {"module", BQ_INSPECT_MODULE},
                                      {"block", BQ_INSPECT_BLOCK},
                                      {0}};
static const bq_choice grouped[] = {
    {"group", BQ_GQA_GROUP}, {"late", BQ_GQA_LATE}, {"skip", BQ_GQA_SKIP}, {0}};

static const bq_key smooth_keys[] = {
    PASS_KEY,
    {"statistic", BQ_KEY_CHOICE, AT(bq_pass, smooth.statistic), .value = "absmax", .choice = statistics,
     .help = "Of an input channel over all samples: max abs (MIT, Quark), max - min (llm-compressor), or "
             "mean abs."},
    {"formula", BQ_KEY_CHOICE, AT(bq_pass, smooth.form.kind), .value = "alpha", .choice = formulas,
     .help = "Scale of a channel with statistic a and largest weight w: a^alpha / w^(1 - alpha), or a / "
             "log2(2 + a) "
             "(llm-compressor's log_equalization)."},
    {"alpha", BQ_KEY_REAL, AT(bq_pass, smooth.form.ratio), .value = "0.5", .max = 1,
     .help =
         "0.5 is everybody's default but Quark's, which is 1; for Llama-3 0.85 is advised, for Mistral 0.8."},
    {"weight_factor", BQ_KEY_REAL, AT(bq_pass, smooth.form.weight_factor), .value = "1", .min = 1e-6,
     .max = 1e6, .help = "Multiplies w. llm-compressor: 2."},
    {"weight_floor", BQ_KEY_REAL, AT(bq_pass, smooth.form.weight_floor), .value = "1e-5", .max = 1,
     .help = "w is at least this. 0: where w is 0 the scale is a (llm-compressor)."},
    {"floor", BQ_KEY_REAL, AT(bq_pass, smooth.form.floor), .value = "1e-5", .min = 1e-12, .max = 1,
     .help = "Scales are at least this. Quark: 1e-3."},
    {"entries", BQ_KEY_CHOICE, AT(bq_pass, smooth.entries), .value = "norms", .choice = entries,
     .help = "Scale only what norms feed (q, k, v and gate, up), or also o and down (through v and up), as "
             "Quark does, and torchao."},
    {"fuse", BQ_KEY_BOOL, AT(bq_pass, smooth.fuse), .value = "true",
     .help = "Fold a scale into what feeds the linears. False: each linear has its own, kept with it, and "
             "its inputs are multiplied by 1 / scale before they are rounded (torchao). Then only `rtn` and "
             "`lpbq` may follow, and `safetensors` holds the result where `bits.activations` is 16; "
             "`compressed-tensors` never does."},
    {0}};
static const bq_choice searches[] = {{"all", BQ_SEARCH_ALL}, {"halving", BQ_SEARCH_HALVING}, {0}};
#define SEARCH_KEYS(of)                                                                                      \
    {"activations",                                                                                          \
     BQ_KEY_INT,                                                                                             \
     AT(bq_pass, of.activations),                                                                            \
     .value = "16",                                                                                          \
     .min = 8,                                                                                               \
     .max = 16,                                                                                              \
     .step = 8,                                                                                              \
     .help = "Bits that the search rounds the scaled inputs to, with a scale for each token, as Quark does " \
             "where the scheme does (W8A8); 16: as they are."},                                              \
    {                                                                                                        \
        "search", BQ_KEY_CHOICE, AT(bq_pass, of.search),                                                     \
            .value = "all", .choice = searches,                                                              \
            .help =                                                                                          \
                "Every candidate is tried on all samples (`all`), or the better half goes on after 1/8, "    \
                "1/4 and 1/2 of them (`halving`): about a third of the work, and the choice may differ."     \
    }
#define INSPECT(text, mat, default, blurb)                                                                   \
    {                                                                                                        \
        text, BQ_KEY_CHOICE, AT(bq_pass, autosmooth.inspect[mat]), .value = default, .choice = inspected,    \
                                                                   .help = blurb                             \
    }
static const bq_key autosmooth_keys[] = {
    PASS_KEY,
    {"map", BQ_KEY_PATH, AT(bq_pass, map), .value = "", .quiet = true,
     .help = "A JSON file as AMD Quark takes it. Its compute_scale_loss and scaling_layers replace the "
             "values of `loss`, "
             "`qkv`, `o`, `gate_up` and `down`."},
    {"loss", BQ_KEY_CHOICE, AT(bq_pass, autosmooth.loss), .value = "mae", .choice = distances,
     .help = "Mean of d^2, of abs d, or of sqrt(abs d), which Quark calls RMSE."},
    {"grouped_queries", BQ_KEY_CHOICE, AT(bq_pass, autosmooth.gqa), .value = "group", .choice = grouped,
     .help = "Heads that share a value head need one scale before o: search it so (`group`), search without "
             "and take the "
             "largest (`late`, Quark), or leave o as it is (`skip`)."},
    INSPECT("qkv", BQ_QKV, "module",
            "What decides about the scale of q, k, v: their own outputs (`self`), those of attention "
            "(`module`) or of the "
            "`block`. `off`: no scale."),
    INSPECT("o", BQ_O, "self", "The same for o."),
    INSPECT("gate_up", BQ_GATE_UP, "module", "The same for gate and up; their module is the MLP."),
    INSPECT("down", BQ_DOWN, "self", "The same for down."),
    SEARCH_KEYS(autosmooth),
    {0}};
static const bq_key awq_keys[] = {
    PASS_KEY,
    {"duo", BQ_KEY_BOOL, AT(bq_pass, awq.duo), .value = "false",
     .help = "Candidates from activations and weights: none and a^(i/18) / w^(1 - i/18) (llm-compressor's "
             "default). Else "
             "a^(i/20), i < 20 (MIT, Quark)."},
    {"to_one", BQ_KEY_BOOL, AT(bq_pass, awq.to_one), .value = "false",
     .help = "Without `duo`: a^(i/19), so that the last is a itself (llm-compressor)."},
    {"clip", BQ_KEY_BOOL, AT(bq_pass, awq.clip), .value = "true",
     .help = "Clip rows of groups afterwards, not those of q and k (MIT, Quark)."},
    {"grouped_queries", BQ_KEY_CHOICE, AT(bq_pass, awq.gqa), .value = "group", .choice = grouped,
     .help = "As for `autosmoothquant`; MIT and llm-compressor `skip`."},
    SEARCH_KEYS(awq),
    {0}};
const bq_scope bq_pass_keys[BQ_PASS_KINDS] = {
    [BQ_PASS_RTN] = {"phases.N.passes.N, pass: rtn", "Round to nearest. Needs no data.", rtn_keys,
                     sizeof(bq_pass)},
    [BQ_PASS_ADASCALE] =
        {"phases.N.passes.N, pass: adascale",
         "Trains clipping and a factor for each weight against the block's own output (AIMET's AdaScale).",
         adascale_keys, sizeof(bq_pass)},
    [BQ_PASS_SEQMSE] =
        {"phases.N.passes.N, pass: seqmse",
         "Chooses each row's clipping by the error of its linear's output, one linear after the "
         "other (AIMET's Sequential MSE).",
         seqmse_keys, sizeof(bq_pass)},
    [BQ_PASS_LPBQ] = {"phases.N.passes.N, pass: lpbq",
                      "Scales of groups become small whole multiples of one scale a row (AIMET's LPBQ); of "
                      "the passes before, or of the min-max grid. Needs groups.",
                      lpbq_keys, sizeof(bq_pass)},
    [BQ_PASS_GPTQ] = {"phases.N.passes.N, pass: gptq",
                      "Quantizes column by column; the columns behind make up for the error of those before, "
                      "as the inputs' second moments say (GPTQ).",
                      gptq_keys, sizeof(bq_pass)},
    [BQ_PASS_SMOOTHQUANT] = {"phases.N.passes.N, pass: smoothquant",
                             "Gives range of loud input channels to the weights, by a formula; the model's "
                             "function stays. Prepares: a pass that "
                             "quantizes follows.",
                             smooth_keys, sizeof(bq_pass)},
    [BQ_PASS_AUTOSMOOTH] = {"phases.N.passes.N, pass: autosmoothquant",
                            "The same with a searched formula (AMD Quark's): for each matrix the best of "
                            "max|x|^r, r = 0.0 ... 0.9, by what "
                            "quantized weights do to an output of the original model. Prepares.",
                            autosmooth_keys, sizeof(bq_pass)},
    [BQ_PASS_AWQ] = {
        "phases.N.passes.N, pass: awq",
        "Activation-aware scaling, searched by the squared error of outputs, and clipping. Prepares.",
        awq_keys, sizeof(bq_pass)}};
