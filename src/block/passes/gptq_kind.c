/* The kind of pass `gptq`: its keys, and what they mean for others. */
#include "block/passes/gptq.h"
#include "block/passes/search.h"

#include <stdio.h>

typedef struct {
    bq_gptq_options gptq; /* but for ends */
    bq_shrink_options ends;
} options;

static const bq_choice orders[] = {
    {"none", BQ_ORDER_NONE}, {"act", BQ_ORDER_ACT}, {"gar", BQ_ORDER_GAR}, {0}};
static const bq_choice clips[] = {
    {"minmax", BQ_CLIP_MINMAX}, {"mse", BQ_CLIP_MSE}, {"hessian", BQ_CLIP_HESSIAN}, {0}};
static const bq_choice sums[] = {{"f32", BQ_F32}, {"f64", BQ_F64}, {0}};
static const bq_key keys[] = {

    {"damp", BQ_KEY_REAL, BQ_AT(options, gptq.damp), .value = "0.01", .min = 1e-6, .max = 1,
     .help =
         "Added to the diagonal of the Gram matrix, as a share of its mean. Raised in steps of 0.01 where "
         "the matrix is not positive definite."},
    {"order", BQ_KEY_CHOICE, BQ_AT(options, gptq.order), .value = "act", .choice = orders,
     .help =
         "Columns by falling diagonal of the Gram matrix, with grids fitted before (act); groups, and the "
         "columns in them, by the same (gar); as they stand (none). With gar and none the grid of a group "
         "is fitted to the compensated weights. Stored codes always stand in the model's order."},
    {"clip", BQ_KEY_CHOICE, BQ_AT(options, gptq.clip), .value = "hessian", .choice = clips,
     .help = "Grids cover the range of the weights (minmax), or are narrowed to the least error of the "
             "weights (mse, as with rtn), or of the weights' squares times the diagonal of the Gram matrix "
             "(hessian). A pass before that leaves grids decides instead."},
    BQ_SHRINK_KEYS(options, ends),
    {"sequential", BQ_KEY_BOOL, BQ_AT(options, gptq.sequential), .value = "false",
     .help =
         "Inputs of o, gate_up and down see the linears before them in the block quantized. One Gram matrix "
         "is in memory at a time, and the samples go through the block once, kept where they halt before a "
         "matrix, as many as half of the memory left holds (`plan` says how many; the others start again "
         "for each matrix). As a phase's last pass it spares the quantized stream a forward."},
    {"gram", BQ_KEY_CHOICE, BQ_AT(options, gptq.gram), .value = "f32", .choice = sums,
     .help = "Type of the sums of Gram matrices over the samples. `f64` takes twice the memory for them; a "
             "sample's own products are made as `compute` says."},
    {"qep", BQ_KEY_REAL, BQ_AT(options, gptq.qep), .value = "0", .max = 1,
     .help = "Share of the QEP correction: weights first make up for what the quantized blocks before have "
             "done to their inputs (not down_proj). Needs `inputs` qt or mix, and a second forward."},
    {0}};

static bool corrects(const options *o) { return o->gptq.qep > 0; }

static unsigned more(const void *pass) {
    const options *o = pass;
    return (corrects(o) ? BQ_PASS_FP : 0) | (o->gptq.sequential ? BQ_PASS_KEEPS : 0);
}

static bool fits(const void *o, bq_inputs inputs, bq_pass_reason *why) {
    if (!corrects(o) || inputs != BQ_INPUTS_FP) return true;
    snprintf(why->key, sizeof why->key, "qep");
    snprintf(why->why, sizeof why->why, "needs inputs qt or mix: with fp there is nothing to correct");
    return false;
}

static const char *remedy(const void *o) {
    return ((const options *)o)->gptq.sequential ? NULL : "set sequential, which takes one matrix at a time";
}

static size_t need(const void *o, const bq_pass_size *of) {
    return bq_gptq_need(of->arch, of->scheme, of->tokens, of->samples, &((const options *)o)->gptq,
                        of->replica, of->nreplica);
}

static bq_effort cost(const void *pass, const bq_cost *c) {
    const options *o = pass;
    bool sequential = o->gptq.sequential;
    bq_effort e = {0};
    for (int m = BQ_QKV; m < BQ_MATS && sequential; m++) bq_effort_add(&e, 1, bq_effort_midway(c, m));
    if (!sequential) bq_effort_add(&e, c->samples, bq_effort_forward_to(c->arch, c->tokens, BQ_DOWN));
    for (int m = sequential ? BQ_QKV : BQ_GATE_UP; m < BQ_DOWN && corrects(o); m++)
        bq_effort_add(&e, c->samples, bq_effort_forward_to(c->arch, c->tokens, m));
    bq_effort_add(&e, corrects(o) ? 2 : 1, bq_effort_grams(c));
    bq_effort_add(&e, 1, bq_effort_rows(c));
    e.flop += bq_effort_powers(c->arch, 1, 2) / c->replicas; /* rows cols^2: rows are shared */
    e.flop64 += bq_effort_factors(c);
    e.sent += c->replicas > 1 ? 4 * bq_effort_powers(c->arch, 0, 2) : 0;
    return e;
}

static int64_t run(bq_pass_context *c, const void *pass) {
    const options *recipe = pass;
    bq_gptq_options o = recipe->gptq;
    o.ends = bq_shrink_of(&recipe->ends);
    bq_pass_gptq(c, &o);
    return 0;
}

const bq_pass_kind bq_pass_kind_gptq = {
    .scope = {"phases.N.passes.N, pass: gptq",
              "Quantizes column by column; the columns behind make up for the error of those before, as the "
              "inputs' second moments say (GPTQ).",
              keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "gptq",
    .traits = BQ_PASS_CALIBRATED | BQ_PASS_QUANTIZES | BQ_PASS_ZEROS | BQ_PASS_MOMENTS,
    .more = more,
    .fits = fits,
    .remedy = remedy,
    .need = need,
    .cost = cost,
    .run = run,
};
