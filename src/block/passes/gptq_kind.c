/* SPDX-License-Identifier: Apache-2.0 */
/* The kind of pass `gptq`: its keys, memory and cost. */
#include "block/passes/gptq.h"
#include "block/passes/search.h"
#include "block/passes/sparse.h"

#include <stdio.h>

typedef struct {
    bq_gptq_options gptq; /* its `ends` are made from the next field */
    bq_shrink_options ends;
} options;

static const bq_choice orders[] = {
    {"none", BQ_ORDER_NONE}, {"act", BQ_ORDER_ACT}, {"gar", BQ_ORDER_GAR}, {0}};
static const bq_choice clips[] = {
    {"minmax", BQ_CLIP_MINMAX}, {"mse", BQ_CLIP_MSE}, {"hessian", BQ_CLIP_HESSIAN}, {0}};
static const bq_choice sparses[] = {
    {"none", BQ_SPARSE_NONE}, {"2:4", BQ_SPARSE_TWO}, {"kept", BQ_SPARSE_KEPT}, {0}};
static const bq_choice sums[] = {{"f32", BQ_F32}, {"f64", BQ_F64}, {0}};
static const bq_key keys[] = {
    {"damp", BQ_KEY_REAL, BQ_AT(options, gptq.damp), .value = "0.01", .min = 1e-6, .max = 1,
     .help = "Added to the diagonal of the Gram matrix, as a share of the diagonal's mean. Where the matrix "
             "is still not positive definite it is raised in steps of 0.01, and the log says so."},
    {"order", BQ_KEY_CHOICE, BQ_AT(options, gptq.order), .value = "act", .choice = orders,
     .help =
         "The order in which columns are quantized. `act`: by the diagonal of the Gram matrix, the largest "
         "first; grids are fitted before. `gar`: whole groups by their largest diagonal, and inside a group "
         "as `act`. `none`: as stored. With `gar` and `none` the grid of a group is fitted when its turn "
         "comes, to the compensated weights. Codes are always stored in the model's order."},
    {"clip", BQ_KEY_CHOICE, BQ_AT(options, gptq.clip), .value = "hessian", .choice = clips,
     .help = "How grids are fitted. `minmax`: to the range of the weights. `mse`: narrower, to the least "
             "error of the weights, as with `rtn`. `hessian`: the same with squared errors times the "
             "diagonal of the Gram matrix. Has no effect after a pass that leaves grids."},
    BQ_SHRINK_KEYS(options, ends),
    {"sequential", BQ_KEY_BOOL, BQ_AT(options, gptq.sequential), .value = "false",
     .help = "Quantize the matrices of a block one after the other: o, gate_up and down see inputs that come "
             "from quantized linears. Needs less memory, one Gram matrix at a time. The samples go through "
             "the block once, as far as half of the free memory holds their state (`plan` says how many); "
             "the others start again for each matrix. As the last pass of a phase it saves a forward of the "
             "quantized stream."},
    {"gram", BQ_KEY_CHOICE, BQ_AT(options, gptq.gram), .value = "f32", .choice = sums,
     .help = "Type of the sums of Gram matrices over the samples. `f64` is more exact and takes twice the "
             "memory for them. The products of one sample are computed as `compute` says."},
    {"qep", BQ_KEY_REAL, BQ_AT(options, gptq.qep), .value = "0", .max = 1,
     .help = "Share of the correction of QEP (its paper: 0.5): before they are quantized, the weights of all "
             "linears but down make up for what the quantized blocks before have changed in their inputs. "
             "Needs `inputs` qt or mix, a second forward, and a second Gram matrix for each input."},
    {"sparse", BQ_KEY_CHOICE, BQ_AT(options, gptq.sparse), .value = "none", .choice = sparses, .brief = true,
     .help = "`2:4`: of four neighbours in a row two become 0, chosen when their turn comes by |w| over the "
             "diagonal of the factor, and the columns behind make up for them (SparseGPT); needs `order` "
             "none. `kept`: weights that are 0 stay 0, as behind `sparse24`."},
    {"refine", BQ_KEY_INT, BQ_AT(options, gptq.refine), .value = "0", .max = 100, .brief = true,
     .help =
         "Sweeps of coordinate descent after GPTQ: each code in turn becomes the one that makes the error "
         "of its row's outputs least while all others stay. The error is that of the damped Gram matrix, "
         "and of the weights after `qep`; a row whose error does not fall stays as GPTQ left it. A sweep "
         "takes about twice the time of GPTQ's columns. Keeps the Gram matrix beside its factor, and the "
         "weights. Needs `sparse` none."},
    {"refit", BQ_KEY_BOOL, BQ_AT(options, gptq.refit), .value = "true", .brief = true,
     .help =
         "With `refine`: after each sweep, refit the scale of each row or group so that the same error is "
         "least; takes as long as a sweep. Scales of one byte, of tiles, with zero points that are "
         "floats, or from a pass before stay as they are."},
    {0}};

static bool corrects(const options *o) { return o->gptq.qep > 0; }

static unsigned more(const void *pass) {
    const options *o = pass;
    return (corrects(o) ? BQ_PASS_FP : 0) | (o->gptq.sequential ? BQ_PASS_KEEPS : 0) |
           (o->gptq.sparse == BQ_SPARSE_TWO ? BQ_PASS_SPARSE : 0) |
           (o->gptq.sparse == BQ_SPARSE_NONE ? BQ_PASS_FILLS : 0);
}

static bool fits(const void *pass, bq_inputs inputs, bq_pass_reason *why) {
    const options *o = pass;
    const char *key = NULL, *text = NULL;
    if (corrects(o) && inputs == BQ_INPUTS_FP)
        key = "qep", text = "needs inputs qt or mix: with fp there is nothing to correct";
    if (corrects(o) && o->gptq.sparse == BQ_SPARSE_KEPT)
        key = "qep", text = "gives zeros other values, and sparse is kept";
    if (o->gptq.sparse == BQ_SPARSE_TWO && o->gptq.order != BQ_ORDER_NONE)
        key = "order", text = "must be none where sparse is 2:4: four neighbours are taken together";
    if (o->gptq.refine > 0 && o->gptq.sparse != BQ_SPARSE_NONE)
        key = "refine", text = "gives zeros other values: it needs sparse none";
    if (!key) return true;
    snprintf(why->key, sizeof why->key, "%s", key);
    snprintf(why->why, sizeof why->why, "%s", text);
    return false;
}

static const char *suffix(const void *o) {
    return ((const options *)o)->gptq.sparse == BQ_SPARSE_TWO ? "_sparse24" : NULL;
}

static void blind(bq_pass_context *c, const void *o) {
    if (((const options *)o)->gptq.sparse == BQ_SPARSE_TWO) bq_sparse_blind(c);
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
    int down = c->arch->sites - 1, first = sequential ? 0 : bq_arch_mlp(c->arch);
    bq_effort e = {0};
    for (int m = 0; m < c->arch->sites && sequential; m++) bq_effort_add(&e, 1, bq_effort_midway(c, m));
    if (!sequential) bq_effort_add(&e, c->samples, bq_effort_forward_to(c->arch, c->tokens, down));
    for (int m = first; m < down && corrects(o); m++)
        bq_effort_add(&e, c->samples, bq_effort_forward_to(c->arch, c->tokens, m));
    bq_effort_add(&e, corrects(o) ? 2 : 1, bq_effort_grams(c));
    bq_effort_add(&e, 1, bq_effort_rows(c));
    int products = o->gptq.refine > 0 ? 1 + o->gptq.refine * (o->gptq.refit ? 2 : 1) : 0;
    /* replicas share the rows */
    e.flop[BQ_RATE_COLUMNS] += (1 + 2 * products) * bq_effort_powers(c->arch, 1, 2) / c->replicas;
    e.flop[BQ_RATE_FACTOR] += bq_effort_factors(c);
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
              "Quantizes one column after the other; later columns make up for the error of earlier ones, by "
              "the Gram matrix of the inputs (GPTQ). Costs a forward of the samples, and a factorization for "
              "each input.",
              keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "gptq",
    .traits = BQ_PASS_CALIBRATED | BQ_PASS_QUANTIZES | BQ_PASS_ZEROS | BQ_PASS_MOMENTS | BQ_PASS_TILES,
    .more = more,
    .suffix = suffix,
    .fits = fits,
    .remedy = remedy,
    .need = need,
    .cost = cost,
    .run = run,
    .blind = blind,
};
