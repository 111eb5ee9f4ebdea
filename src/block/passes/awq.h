/* SPDX-License-Identifier: Apache-2.0 */
/* awq.h - the pass awq, activation-aware weight quantization (Lin et al., 2024): weights of input channels
 * with a large mean |x| are scaled up before rounding; then weights are clipped where that makes the outputs
 * better.  A pass that prepares. */
#ifndef BQ_AWQ_H
#define BQ_AWQ_H

#include "block/common/scales.h"

/* The 20 candidates, from a = mean |x| and w = the relative mean of |w| (channels.h):
 *   duo      no scaling, and a^r / w^(1 - r), r = i / 18, i = 0 ... 18 (llm-compressor's default)
 *   to_one   a^r, r = i / 19 (llm-compressor without duo scaling); not with duo
 *   neither  a^r, r = i / 20 (MIT, Quark) */
typedef struct {
    bool duo, to_one, clip;
    bq_gqa gqa;
    int activations; /* see bq_scales_options */
    bq_search search;
} bq_awq_options;

/* Compares the outputs that Auto-SmoothQuant does, by MSE.  result: see scales.h; may be NULL.  Returns as
 * bq_scales_search.  Collective over stage. */
int64_t bq_pass_awq(bq_pass_context *c, const bq_awq_options *o, bq_scales_result *result);

/* The clipping alone, of c->blk: the weights of each row and group, but not of q and k, are clamped to the
 * best of ten limits, from their largest |w| down to 0.55 of it.  The best one has the least squared error
 * of the group's part of the output, over at most 512 tokens spread evenly over all samples.  Unlike MIT's,
 * the ranges of grids always include 0.  Collective over stage. */
void bq_awq_clip(bq_pass_context *c);

/* Device bytes that the pass takes beside block, result and workspace. */
size_t bq_awq_need(const bq_arch *arch, const bq_scheme *scheme, const bq_awq_options *o, int64_t tokens,
                   int64_t samples, int replica, int nreplica);

#endif
