/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/search.h"

#include "base/shard.h"
#include "comm/treesum.h"

#include <math.h>

void bq_pass_rtn(bq_pass_context *c) {
    bq_quantized *q = c->q;
    const bq_ops *op = c->dev->op;
    for (int m = 0; m < q->arch->sites; m++) op->copy(c->dev, c->blk->w[m], q->fold[m]);
    bq_quantized_outer(c->dev, q);
    for (int i = 0; i < q->arch->linears; i++) bq_linear_range(c->dev, q, i);
    bq_quantized_encode(c->dev, q);
}

void bq_pass_rtn_mse(bq_pass_context *c, bq_shrink ends) {
    bq_quantized *q = c->q;
    const bq_ops *op = c->dev->op;
    for (int m = 0; m < q->arch->sites; m++) op->copy(c->dev, c->blk->w[m], q->fold[m]);
    bq_quantized_outer(c->dev, q);
    for (int i = 0; i < q->arch->linears; i++) {
        if (bq_scheme_tiled(q->scheme[i])) {
            bq_linear_range(c->dev, q, i);
            continue;
        }
        bq_mat w = bq_linear_grouped(q->arch, q->scheme, i, q->fold), scale = q->scale[i], zero = q->zero[i];
        bq_shard mine = bq_shard_of(w.rows, c->comm->replica, c->comm->nreplica);
        op->range_mse(c->dev, bq_mat_rows(w, mine.first, mine.count), q->scheme[i], ends,
                      bq_mat_rows(scale, mine.first, mine.count),
                      zero.data ? bq_mat_rows(zero, mine.first, mine.count) : zero);
        bq_comm_gather_rows(c->comm, c->dev, scale);
        if (zero.data) bq_comm_gather_rows(c->comm, c->dev, zero);
    }
    bq_quantized_encode(c->dev, q);
}

const bq_choice bq_norm_choices[] = {{"l2", BQ_NORM_2}, {"l2.4", BQ_NORM_24}, {0}};

bq_shrink bq_shrink_of(const bq_shrink_options *o) {
    long count = lround(o->grid * o->shrink);
    return (bq_shrink){o->grid, count < 1 ? 1 : (int)count, o->norm, 0};
}

/* ---- the kind ---- */

typedef enum { MINMAX, MSE, EXPANDED, FOUR_OVER_SIX } clip;
typedef struct {
    clip clip;
    bq_shrink_options ends;
} options;

static const bq_choice clips[] = {
    {"minmax", MINMAX}, {"mse", MSE}, {"expanded", EXPANDED}, {"four_over_six", FOUR_OVER_SIX}, {0}};
static const bq_key keys[] = {
    {"clip", BQ_KEY_CHOICE, BQ_AT(options, clip), .value = "minmax", .choice = clips,
     .help =
         "`minmax`: a grid covers all its weights. `mse`: its ends shrink to the least error of the "
         "weights, which takes longer. `expanded`: they may also grow, up to twice, which makes blocks of "
         "floats (NVFP4, MX) better: their numbers are not evenly spaced. `four_over_six`: of NVFP4, a "
         "block's largest value becomes the number 6 or the number 4, whichever has the least sum of "
         "squared errors."},
    BQ_SHRINK_KEYS(options, ends),
    {0}};

static const char *suffix(const void *o) {
    static const char *const of[] = {NULL, "_mse", "_expanded", "_46"};
    return of[((const options *)o)->clip];
}

static int64_t run(bq_pass_context *c, const void *pass) {
    const options *o = pass;
    bq_shrink ends = bq_shrink_of(&o->ends);
    if (o->clip == EXPANDED) ends.more = ends.steps;
    if (o->clip == FOUR_OVER_SIX) ends = (bq_shrink){2, 1, BQ_NORM_2, 1}; /* 1 and 6 / 4 */
    if (o->clip == MINMAX)
        bq_pass_rtn(c);
    else
        bq_pass_rtn_mse(c, ends);
    return 0;
}

const bq_pass_kind bq_pass_kind_rtn = {
    .scope = {"phases.N.passes.N, pass: rtn",
              "Rounds each weight to the nearest value of its grid. Needs no data. The simplest pass: to "
              "compare with, or to end a phase of passes that prepare.",
              keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "rtn",
    .traits = BQ_PASS_QUANTIZES | BQ_PASS_ZEROS | BQ_PASS_TILES,
    .suffix = suffix,
    .run = run,
};
