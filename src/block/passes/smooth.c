/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/smooth.h"

#include "block/common/fold.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static bool left_out(const bq_arch *arch, const bq_smooth_options *o, int site) {
    bq_fusion f = bq_fusion_of(arch, site);
    return (o->entries == BQ_ENTRIES_NORMS && f.norm < 0) || !bq_fusion_there(f);
}

static void fold(bq_pass_context *c, const bq_smooth_options *o, const bq_mat *act, const bq_mat *scale) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    for (int m = 0; m < arch->sites; m++) { /* all scales first, from the weights before any folding */
        size_t inner = bq_arena_mark(&dev->mem);
        bq_mat weight = bq_arena_push(&dev->mem, 1, arch->site[m].cols, BQ_F32);
        bq_channels_weight(c, m, false, weight);
        dev->op->smooth_scale(dev, o->form, act[m], weight, scale[m]);
        bq_arena_reset(&dev->mem, inner);
    }
    for (int m = 0; m < arch->sites; m++) {
        if (left_out(arch, o, m)) continue;
        bq_fold_group(dev, arch, m, scale[m]);
        bq_fold_apply(dev, c->blk, m, scale[m]);
    }
}

/* The weights are divided by the rounded factor 1 / s, not multiplied by s, so that the product stays the
 * same. */
static void keep(bq_pass_context *c, const bq_smooth_options *o, const bq_mat *act, const bq_mat *scale) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    for (int i = 0; i < arch->linears; i++) {
        int m = arch->linear[i].site;
        bq_mat w = bq_linear_view(arch, i, c->blk->w), pre = c->q->pre[i], most = pre;
        dev->op->set(dev, most, 0);
        dev->op->column_max(dev, w, 0, most);
        dev->op->smooth_scale(dev, o->form, act[m], most, scale[m]);
        dev->op->set(dev, pre, 1);
        if (left_out(arch, o, m)) continue;
        dev->op->over_columns(dev, pre, scale[m], pre);
        dev->op->over_columns(dev, w, pre, w);
    }
    c->blk->pre = c->q->pre;
}

void bq_pass_smoothquant(bq_pass_context *c, const bq_smooth_options *o) {
    bq_dev *dev = c->dev;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat act[BQ_SITES], scale[BQ_SITES];
    bq_channels_push(dev, c->q->arch, act);
    bq_channels_push(dev, c->q->arch, scale);
    bq_channels(c, o->statistic, act, (bq_onlooker){0});
    if (o->fuse)
        fold(c, o, act, scale);
    else
        keep(c, o, act, scale);
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_smooth_need(const bq_arch *arch, int64_t samples, int replica, int nreplica) {
    size_t one = bq_fold_need(arch);
    for (int m = 0; m < arch->sites; m++) one = larger(one, bq_arena_need(1, arch->site[m].cols, BQ_F32));
    return 2 * bq_channels_size(arch) + larger(one, bq_channels_need(arch, samples, replica, nreplica));
}

/* ---- the kind ---- */

static const bq_choice statistics[] = {
    {"absmax", BQ_CHANNEL_ABSMAX}, {"range", BQ_CHANNEL_RANGE}, {"mean", BQ_CHANNEL_MEAN}, {0}};
static const bq_choice formulas[] = {{"alpha", BQ_SMOOTH_ALPHA}, {"log", BQ_SMOOTH_LOG}, {0}};
static const bq_choice entries[] = {{"norms", BQ_ENTRIES_NORMS}, {"all", BQ_ENTRIES_ALL}, {0}};
static const bq_key keys[] = {
    {"statistic", BQ_KEY_CHOICE, BQ_AT(bq_smooth_options, statistic), .value = "absmax", .choice = statistics,
     .help = "The statistic a of an input channel over all samples: max abs (`absmax`: MIT, Quark), max - "
             "min (`range`: llm-compressor), or mean abs (`mean`)."},
    {"formula", BQ_KEY_CHOICE, BQ_AT(bq_smooth_options, form.kind), .value = "alpha", .choice = formulas,
     .help = "The scale of a channel with largest weight w: a^alpha / w^(1 - alpha) (`alpha`), or a / log2(2 "
             "+ a) (`log`: llm-compressor's log_equalization)."},
    {"alpha", BQ_KEY_REAL, BQ_AT(bq_smooth_options, form.ratio), .value = "0.5", .max = 1,
     .help = "With formula `alpha`: the larger, the more range moves from inputs to weights. Quark's default "
             "is 1, that of others 0.5; MIT advises 0.85 for Llama-3 and 0.8 for Mistral."},
    {"weight_factor", BQ_KEY_REAL, BQ_AT(bq_smooth_options, form.weight_factor), .value = "1", .min = 1e-6,
     .max = 1e6, .help = "w is multiplied by this. llm-compressor: 2."},
    {"weight_floor", BQ_KEY_REAL, BQ_AT(bq_smooth_options, form.weight_floor), .value = "1e-5", .max = 1,
     .help = "The least value of w. 0: none, and where w is 0 the scale is a (llm-compressor)."},
    {"floor", BQ_KEY_REAL, BQ_AT(bq_smooth_options, form.floor), .value = "1e-5", .min = 1e-12, .max = 1,
     .help = "The least scale. Quark: 1e-3."},
    {"entries", BQ_KEY_CHOICE, BQ_AT(bq_smooth_options, entries), .value = "norms", .choice = entries,
     .help = "Which inputs are scaled: those that norms compute (q, k, v and gate, up), or also those of o "
             "and down, through v and up (`all`: Quark; torchao, without `fuse`)."},
    {"fuse", BQ_KEY_BOOL, BQ_AT(bq_smooth_options, fuse), .value = "true",
     .help = "Fold the scales into the norms or linears before. False: each linear has its own scales beside "
             "its weights, and its inputs are multiplied by 1 / scale before they are rounded (torchao). "
             "Then only `rtn`, `lpbq` and `hqq` may follow, and only the output `safetensors` can hold the "
             "result, with `bits.activations` 16."},
    {0}};

static unsigned more(const void *o) { return ((const bq_smooth_options *)o)->fuse ? 0 : BQ_PASS_PRESCALES; }

static size_t need(const void *o, const bq_pass_size *of) {
    (void)o;
    return bq_smooth_need(of->arch, of->samples, of->replica, of->nreplica);
}

static bq_effort cost(const void *o, const bq_cost *c) {
    (void)o;
    bq_effort e = {0};
    bq_effort_add(&e, c->samples, bq_effort_forward(c->arch, c->tokens));
    return e;
}

static int64_t run(bq_pass_context *c, const void *o) {
    bq_pass_smoothquant(c, o);
    return 0;
}

const bq_pass_kind bq_pass_kind_smoothquant = {
    .scope = {"phases.N.passes.N, pass: smoothquant",
              "Divides input channels with large values by scales and multiplies the weights by them, so "
              "that inputs are easier to round, as for W8A8 (SmoothQuant); the model computes the same. "
              "Costs a forward. Prepares: a pass that quantizes must follow.",
              keys, BQ_PASS_OPTIONS_OF(bq_smooth_options)},
    .name = "smoothquant",
    .traits = BQ_PASS_CALIBRATED | BQ_PASS_HANDS_ON | BQ_PASS_ZEROS,
    .more = more,
    .need = need,
    .cost = cost,
    .run = run,
};
