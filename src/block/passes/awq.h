/* awq.h - activation-aware weight quantization (smoothquant.md 5): channels that are loud on average are
 * scaled up before rounding, then rows are clipped where that helps their outputs.  A pass that prepares. */
#ifndef BQ_AWQ_H
#define BQ_AWQ_H

#include "block/common/scales.h"

/* duo: candidates from activations and weights, as llm-compressor's default: nothing, and ratios i / 18; else
 * ratios i / 20 of activations alone, up to 0.95 (MIT, Quark).  plain grids of llm-compressor end at 1:
 * `to_one`, i / 19. */
typedef struct {
    bool duo, to_one, clip;
    bq_gqa gqa;
    int activations; /* of scales.h */
    bq_search search;
} bq_awq_options;

/* MSE of the outputs that Auto-SmoothQuant looks at, too.  result may be NULL.  Returns as
 * bq_scales_search.  Collective over stage. */
int64_t bq_pass_awq(bq_pass_context *c, const bq_awq_options *o, bq_scales_result *result);

/* The clipping alone: for each row of each group (not of q and k) the best of ten limits from the row's
 * largest weight down to 0.55 of it, by the squared error of the group's share of the output on 512 tokens
 * spread over all samples; the weights are clamped to it.  Grids force 0 into their range here, as everywhere
 * in blockq.  Collective over stage. */
void bq_awq_clip(bq_pass_context *c);

size_t bq_awq_need(const bq_arch *arch, const bq_scheme *scheme, const bq_awq_options *o, int64_t tokens,
                   int64_t samples, int replica, int nreplica);

#endif
