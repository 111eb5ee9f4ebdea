/* autosmooth.h - Auto-SmoothQuant as AMD Quark does it (smoothquant.md 4): per matrix the best of ten powers
 * of the activations' maxima.  A pass that prepares. */
#ifndef BQ_AUTOSMOOTH_H
#define BQ_AUTOSMOOTH_H

#include "block/common/scales.h"

/* loss: Quark's names; rmse is its mean of sqrt|d|.  By default mae, and as Quark's map for Llama has it: qkv
 * and gate_up judged by their modules, o and down by their own output. */
typedef struct {
    bq_distance loss;
    bq_gqa gqa;
    bq_inspect inspect[BQ_MATS];
    int activations; /* of scales.h */
    bq_search search;
} bq_autosmooth_options;

/* Ratios 0.0 ... 0.9 of max |x|, floor 1e-4; 0.0 scales nothing.  result may be NULL.  Returns as
 * bq_scales_search.  Collective over stage. */
int64_t bq_pass_autosmooth(bq_pass_context *c, const bq_autosmooth_options *o, bq_scales_result *result);

size_t bq_autosmooth_need(const bq_arch *arch, const bq_autosmooth_options *o, int64_t tokens,
                          int64_t samples, int replica, int nreplica);

#endif
