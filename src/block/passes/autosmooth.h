/* SPDX-License-Identifier: Apache-2.0 */
/* autosmooth.h - the pass autosmoothquant, AMD Quark's Auto-SmoothQuant: for each site the best of ten
 * powers of max |x| of the input channels.  A pass that prepares. */
#ifndef BQ_AUTOSMOOTH_H
#define BQ_AUTOSMOOTH_H

#include "block/common/scales.h"

/* The defaults are those of Quark's map for Llama: loss MAE; qkv and gate_up are judged by the outputs of
 * their modules, o and down by their own. */
typedef struct {
    bq_distance loss;
    bq_gqa gqa;
    bq_inspect inspect[BQ_ROLES];
    int activations; /* see bq_scales_options */
    bq_search search;
} bq_autosmooth_options;

/* Tries the powers 0.0, 0.1, ... 0.9, with scales of at least 1e-4; the power 0.0 scales nothing.  result:
 * see scales.h; may be NULL.  Returns as bq_scales_search.  Collective over stage. */
int64_t bq_pass_autosmooth(bq_pass_context *c, const bq_autosmooth_options *o, bq_scales_result *result);

/* Device bytes that the pass takes beside block, result and workspace. */
size_t bq_autosmooth_need(const bq_arch *arch, const bq_autosmooth_options *o, int64_t tokens,
                          int64_t samples, int replica, int nreplica);

#endif
