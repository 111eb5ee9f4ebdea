/* SPDX-License-Identifier: Apache-2.0 */
/* scales.h - the search that AWQ (Lin et al., 2024) and AMD Quark's Auto-SmoothQuant share: of several scales
 * for the input channels of a site, take the one whose quantized weights change an output least.
 *
 * Each site is searched with the original weights of the block, in the stream that preparing passes read
 * (capture.h); then all chosen scales are folded into the block (fold.h).  A candidate s is tried with the
 * weights Q(W s) / s on the input x, which is the same as Q(W s) on x / s.  Where inputs are rounded the
 * input is Q(x / s) s.
 *
 * Inputs and outputs of a few thousand tokens are held at a time, and the weights of a candidate are made
 * once for all of them.  Samples are held during the walk for the statistics, if all of the share fit, or all
 * of the first rounds of a halving; the others need a second forward.  Losses are summed in f64 in a sample,
 * and over samples by the fixed tree of comm/treesum.h, so the number of held samples changes no bit. */
#ifndef BQ_SCALES_H
#define BQ_SCALES_H

#include "block/common/channels.h"
#include "block/common/fold.h"
#include "block/common/halving.h"

#define BQ_CANDIDATES 20

/* Which output decides: that of the site, of its module (attention: of o; MLP: of down), or of the block.
 * BQ_INSPECT_OFF: the site is not scaled. */
typedef enum { BQ_INSPECT_OFF, BQ_INSPECT_SELF, BQ_INSPECT_MODULE, BQ_INSPECT_BLOCK } bq_inspect;

/* With grouped queries, query heads that share a value head need one scale for o (bq_fold_group).
 *   GROUP   every candidate is grouped before it is tried
 *   LATE    only the chosen scale is grouped (Quark)
 *   SKIP    o is not scaled (MIT's AWQ, llm-compressor) */
typedef enum { BQ_GQA_GROUP, BQ_GQA_LATE, BQ_GQA_SKIP } bq_gqa;

typedef struct {
    bq_channel_statistic statistic;
    bq_distance loss;
    bq_gqa gqa;
    bq_inspect inspect[BQ_ROLES]; /* by the role of a site */
    int activations; /* bits that the input of a site is rounded to, with one scale for each token; 0, 16:
                        no rounding.  Values inside the module are not rounded */
    bq_search search;
    int candidates;
    bq_smooth_form form[BQ_CANDIDATES];
} bq_scales_options;

/* best: the number of the chosen candidate; -1 where the site was not searched or no loss was finite.
 * loss: the mean over the elements of the output in the samples on which the candidate was tried; a halving
 * tries some candidates on a part of them only. */
typedef struct {
    int best[BQ_SITES];
    double loss[BQ_SITES][BQ_CANDIDATES];
} bq_scales_result;

/* Search, and fold the chosen scales into c->blk.  Of equal losses the earlier candidate is chosen; a halving
 * chooses among the candidates of its last round.  Overwrites c->q->w_hat.  Returns 0; or BQ_PASS_STOPPED,
 * with the block unchanged.  Collective over stage. */
int64_t bq_scales_search(bq_pass_context *c, const bq_scales_options *o, bq_scales_result *result);

/* How many samples of a share are held at a time.  Enough tokens that making the weights of a candidate takes
 * little time beside using them. */
int64_t bq_scales_room(int64_t tokens, int64_t samples);

/* Keys of both passes. */
extern const bq_choice bq_gqa_choices[];
#define BQ_SCALES_KEYS(type, field)                                                                          \
    {"activations",                                                                                          \
     BQ_KEY_INT,                                                                                             \
     BQ_AT(type, field.activations),                                                                         \
     .value = "16",                                                                                          \
     .min = 8,                                                                                               \
     .max = 16,                                                                                              \
     .step = 8,                                                                                              \
     .help = "Bits that the search rounds the scaled inputs to, with one scale for each token. Set 8 for "   \
             "W8A8, as Quark does; 16: no rounding."},                                                       \
    {                                                                                                        \
        "search", BQ_KEY_CHOICE, BQ_AT(type, field.search),                                                  \
            .value = "all", .choice = bq_search_choices,                                                     \
            .help =                                                                                          \
                "`all`: every candidate is tried on all samples. `halving`: only the better half goes on "   \
                "after 1/8, 1/4 and 1/2 of the samples; about a third of the work, but the choice may "      \
                "differ."                                                                                    \
    }

/* The work of a search with that many candidates. */
bq_effort bq_scales_cost(const bq_cost *c, int candidates, bq_search how);

/* Arena bytes that bq_scales_search takes. */
size_t bq_scales_need(const bq_arch *arch, const bq_scales_options *o, int64_t tokens, int64_t samples,
                      int replica, int nreplica);

#endif
