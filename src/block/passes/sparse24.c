/* SPDX-License-Identifier: Apache-2.0 */
/* The pass sparse24: in each row, two of four neighbouring weights become 0 before they are quantized (2:4
 * sparsity, which tensor cores use).  Those of least importance go: |w|, or |w| times the norm of the input
 * channel (Wanda: Sun et al., 2023).  SparseGPT is in GPTQ's loop: `sparse` of the pass gptq. */
#include "block/passes/sparse.h"

#include "block/common/channels.h"

typedef enum { MAGNITUDE, WANDA } method;

typedef struct {
    method method;
    int root; /* the norm itself; 0: its square */
} options;

static const bq_choice methods[] = {{"magnitude", MAGNITUDE}, {"wanda", WANDA}, {0}};
static const bq_choice norms[] = {{"l2", 1}, {"squared", 0}, {0}};
static const bq_key keys[] = {
    {"method", BQ_KEY_CHOICE, BQ_AT(options, method), .value = "wanda", .choice = methods,
     .help = "Which weights become 0: those with the smallest |w| (`magnitude`: reads no samples), or with "
             "the smallest |w| times the norm of their input channel over all samples (`wanda`: costs a "
             "forward)."},
    {"norm", BQ_KEY_CHOICE, BQ_AT(options, root), .value = "l2", .choice = norms,
     .help = "Of `wanda`: the norm, as its paper has it, or its square (`squared`: torchao)."},
    {0}};

void bq_sparse_blind(bq_pass_context *c) {
    for (int m = 0; m < c->q->arch->sites; m++) {
        c->dev->op->sparse24(c->dev, c->blk->w[m], (bq_mat){0}, false);
        c->dev->op->copy(c->dev, c->blk->w[m], c->q->fold[m]);
    }
    bq_quantized_encode(c->dev, c->q);
}

static int64_t run(bq_pass_context *c, const void *pass) {
    const options *o = pass;
    size_t mark = bq_arena_mark(&c->dev->mem);
    bq_mat act[BQ_SITES] = {{0}};
    if (o->method == WANDA) {
        bq_channels_push(c->dev, c->q->arch, act);
        bq_channels(c, BQ_CHANNEL_SQUARES, act, (bq_onlooker){0});
    }
    for (int m = 0; m < c->q->arch->sites; m++) c->dev->op->sparse24(c->dev, c->blk->w[m], act[m], o->root);
    bq_arena_reset(&c->dev->mem, mark);
    return 0;
}

static void blind(bq_pass_context *c, const void *o) {
    (void)o;
    bq_sparse_blind(c);
}

static unsigned more(const void *o) {
    return ((const options *)o)->method == WANDA ? BQ_PASS_CALIBRATED | BQ_PASS_HANDS_ON : 0;
}

static const char *suffix(const void *o) {
    return ((const options *)o)->method == WANDA ? "_wanda" : "_magnitude";
}

static size_t need(const void *o, const bq_pass_size *of) {
    if (((const options *)o)->method != WANDA) return 0;
    return bq_channels_size(of->arch) + bq_channels_need(of->arch, of->samples, of->replica, of->nreplica);
}

static bq_effort cost(const void *o, const bq_cost *c) {
    bq_effort e = {0};
    if (((const options *)o)->method == WANDA)
        bq_effort_add(&e, c->samples, bq_effort_forward(c->arch, c->tokens));
    return e;
}

const bq_pass_kind bq_pass_kind_sparse24 = {
    .scope =
        {"phases.N.passes.N, pass: sparse24",
         "Makes two of four neighbouring weights of each row 0 (2:4 sparsity). The passes behind it keep "
         "the zeros, `gptq` with `sparse` kept. Every grid has 0, so the codes stand for 0 exactly. "
         "Prepares: a pass that quantizes must follow.",
         keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "sparse24",
    .traits = BQ_PASS_ZEROS | BQ_PASS_SPARSE,
    .more = more,
    .suffix = suffix,
    .need = need,
    .cost = cost,
    .run = run,
    .blind = blind,
};
