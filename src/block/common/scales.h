/* scales.h - the search that Auto-SmoothQuant and AWQ share: of several scales for a matrix's input channels,
 * the one whose quantized weights change a module's output least (smoothquant.md 4.1, 5.1).
 *
 * Every matrix is searched on the original weights and on the stream that preparing passes see (capture.h);
 * then all chosen scales are folded into the block. A candidate's weights are Q(W s) / s on the unscaled
 * input, which is Q(W s) on x / s; where inputs are rounded, the input is Q(x / s) s.  Of some samples at a
 * time, a few thousand tokens, inputs and outputs are held, and each candidate's weights are made once for
 * all of them.  They are held from the walk that takes the statistics, where a share is no more than that, or
 * the first rounds of a halving; the others have a second forward.  Losses are summed in f64 inside a sample,
 * over samples in a fixed tree, so that how many are held changes no bit. */
#ifndef BQ_SCALES_H
#define BQ_SCALES_H

#include "block/common/channels.h"
#include "block/common/fold.h"
#include "block/common/halving.h"

#define BQ_CANDIDATES 20

/* Whose output is compared: the matrix's own, that of its module (attention or MLP), or the block's;
 * BQ_INSPECT_OFF leaves the matrix unscaled. */
typedef enum { BQ_INSPECT_OFF, BQ_INSPECT_SELF, BQ_INSPECT_MODULE, BQ_INSPECT_BLOCK } bq_inspect;

/* Heads that share a value head have one scale.  BQ_GQA_GROUP: candidates are grouped before they are tried;
 * BQ_GQA_LATE: only what was chosen is (Quark); BQ_GQA_SKIP: o is left unscaled then (MIT, llm-compressor).
 */
typedef enum { BQ_GQA_GROUP, BQ_GQA_LATE, BQ_GQA_SKIP } bq_gqa;

typedef struct {
    bq_channel_statistic statistic;
    bq_distance loss;
    bq_gqa gqa;
    bq_inspect inspect[BQ_MATS];
    int activations;  /* bits that a candidate's input is rounded to, a scale a token; 0, 16: it is not.  What
                         the module makes of it on the way to its output is as it was */
    bq_search search; /* of halving.h */
    int candidates;
    bq_smooth_form form[BQ_CANDIDATES];
} bq_scales_options;

/* best: number of the candidate, -1 where nothing was searched or no loss was a number.  loss: means over all
 * elements of the output, in the samples that the candidate was tried on: not all, where halving has dropped
 * it. */
typedef struct {
    int best[BQ_MATS];
    double loss[BQ_MATS][BQ_CANDIDATES];
} bq_scales_result;

/* Ties go to the earlier candidate; with halving the best of those that have seen all samples wins.
 * c->q->w_hat is overwritten.  Returns 0, or BQ_PASS_STOPPED with the block as it was. Collective over stage.
 */
int64_t bq_scales_search(bq_pass_context *c, const bq_scales_options *o, bq_scales_result *result);

/* Samples of a share that are held at a time: some thousand tokens, so that the time that a candidate's
 * weights take to be made is little beside their use. */
int64_t bq_scales_room(int64_t tokens, int64_t samples);

/* Keys that its passes share. */
extern const bq_choice bq_gqa_choices[];
#define BQ_SCALES_KEYS(type, field)                                                                          \
    {"activations",                                                                                          \
     BQ_KEY_INT,                                                                                             \
     BQ_AT(type, field.activations),                                                                         \
     .value = "16",                                                                                          \
     .min = 8,                                                                                               \
     .max = 16,                                                                                              \
     .step = 8,                                                                                              \
     .help = "Bits that the search rounds the scaled inputs to, with a scale for each token, as Quark does " \
             "where the scheme does (W8A8); 16: as they are."},                                              \
    {                                                                                                        \
        "search", BQ_KEY_CHOICE, BQ_AT(type, field.search),                                                  \
            .value = "all", .choice = bq_search_choices,                                                     \
            .help =                                                                                          \
                "Every candidate is tried on all samples (`all`), or the better half goes on after 1/8, "    \
                "1/4 and 1/2 of them (`halving`): about a third of the work, and the choice may differ."     \
    }

/* Work of such a search with so many candidates. */
bq_effort bq_scales_cost(const bq_cost *c, int candidates, bq_search how);

size_t bq_scales_need(const bq_arch *arch, const bq_scales_options *o, int64_t tokens, int64_t samples,
                      int replica, int nreplica);

#endif
