/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/autosmooth.h"

static bq_scales_options search_of(const bq_autosmooth_options *o) {
    bq_scales_options s = {.statistic = BQ_CHANNEL_ABSMAX, .loss = o->loss, .gqa = o->gqa, .candidates = 10};
    s.activations = o->activations, s.search = o->search;
    for (int r = 0; r < BQ_ROLES; r++) s.inspect[r] = o->inspect[r];
    for (int k = 0; k < s.candidates; k++)
        s.form[k] = (bq_smooth_form){.kind = BQ_SMOOTH_POWER, .ratio = k / 10.0, .floor = 1e-4};
    return s;
}

int64_t bq_pass_autosmooth(bq_pass_context *c, const bq_autosmooth_options *o, bq_scales_result *result) {
    bq_scales_result own;
    bq_scales_options s = search_of(o);
    return bq_scales_search(c, &s, result ? result : &own);
}

size_t bq_autosmooth_need(const bq_arch *arch, const bq_autosmooth_options *o, int64_t tokens,
                          int64_t samples, int replica, int nreplica) {
    bq_scales_options s = search_of(o);
    return bq_scales_need(arch, &s, tokens, samples, replica, nreplica);
}

/* ---- the kind ---- */

typedef struct {
    bq_autosmooth_options o; /* must be first: io/quark.h fills it from a file */
    char map[BQ_PATH_MAX];   /* that file; used only while a recipe is read */
} options;

static const bq_choice distances[] = {
    {"mse", BQ_DISTANCE_MSE}, {"mae", BQ_DISTANCE_MAE}, {"rmse", BQ_DISTANCE_RMSE}, {0}};
static const bq_choice inspected[] = {{"off", BQ_INSPECT_OFF},
                                      {"self", BQ_INSPECT_SELF},
                                      {"module", BQ_INSPECT_MODULE},
                                      {"block", BQ_INSPECT_BLOCK},
                                      {0}};
#define INSPECT(text, role, default, blurb)                                                                  \
    {                                                                                                        \
        text, BQ_KEY_CHOICE, BQ_AT(options, o.inspect[role]), .value = default, .choice = inspected,         \
                                                              .help = blurb                                  \
    }
static const bq_key keys[] = {
    {"map", BQ_KEY_PATH, BQ_AT(options, map), .value = "", .unhashed = true,
     .help = "A JSON file in AMD Quark's form. Its compute_scale_loss and scaling_layers replace the values "
             "of `loss`, `qkv`, `o`, `gate_up` and `down`."},
    {"loss", BQ_KEY_CHOICE, BQ_AT(options, o.loss), .value = "mae", .choice = distances,
     .help = "How a difference d of outputs counts: by the mean of d^2 (`mse`), of abs d (`mae`), or of "
             "sqrt(abs d) (`rmse`, as Quark calls it)."},
    {"grouped_queries", BQ_KEY_CHOICE, BQ_AT(options, o.gqa), .value = "group", .choice = bq_gqa_choices,
     .help =
         "Query heads that share a value head need one scale for o. `group`: candidates have one. `late`: "
         "they need not, and the largest of the chosen ones is taken (Quark). `skip`: o is not scaled."},
    INSPECT("qkv", BQ_QKV, "module",
            "The outputs that decide about the scale of q, k, v: their own (`self`), that of attention "
            "(`module`) or of the `block`, which take more work. `off`: no scale."),
    INSPECT("o", BQ_O, "self", "The same for o."),
    INSPECT("gate_up", BQ_GATE_UP, "module", "The same for gate and up; `module` is the MLP."),
    INSPECT("down", BQ_DOWN, "self", "The same for down."),
    BQ_SCALES_KEYS(options, o),
    {0}};

static size_t need(const void *o, const bq_pass_size *of) {
    return bq_autosmooth_need(of->arch, o, of->tokens, of->samples, of->replica, of->nreplica);
}

static bq_effort cost(const void *o, const bq_cost *c) {
    return bq_scales_cost(c, 10, ((const options *)o)->o.search);
}

static int64_t run(bq_pass_context *c, const void *o) { return bq_pass_autosmooth(c, o, NULL); }

const bq_pass_kind bq_pass_kind_autosmoothquant = {
    .scope =
        {"phases.N.passes.N, pass: autosmoothquant",
         "Smoothing by a search (AMD Quark's Auto-SmoothQuant): for each matrix it takes the scale max|x|^r, "
         "r = 0.0 ... 0.9, with which quantized weights change an output of the original model least. Costs "
         "about a forward for each candidate. Prepares: a pass that quantizes must follow.",
         keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "autosmoothquant",
    .traits = BQ_PASS_CALIBRATED | BQ_PASS_HANDS_ON | BQ_PASS_ZEROS,
    .need = need,
    .cost = cost,
    .run = run,
};
