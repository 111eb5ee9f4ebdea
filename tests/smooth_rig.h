/* SPDX-License-Identifier: Apache-2.0 */
/* smooth_rig.h - a toy block with grouped queries, biases and loud channels, its samples, and the passes that
 * smooth it: what the tests of these passes share. */
#ifndef BQ_TESTS_SMOOTH_RIG_H
#define BQ_TESTS_SMOOTH_RIG_H

#include "rig.h"

#include "block/passes/autosmooth.h"
#include "block/passes/awq.h"
#include "block/passes/smooth.h"

enum { SAMPLES = 9, TOKENS = 13, H = 24, INTER = 264, HEADS = 4, KV = 2, HEAD = 6 };

/* The rig has the FP stream alone, and keeps the block as it is opened. */
static inline rig *smooth_open(int family, int threads, bq_scheme scheme) {
    rig *r = rig_open(&(rig_spec){.model = {family, H, INTER, HEADS, KV, .bias = true},
                                  .scheme = &scheme,
                                  .threads = threads,
                                  .samples = SAMPLES,
                                  .tokens = TOKENS,
                                  .noise = {4},
                                  .pre = true});
    for (uint32_t i = 0; i < 2 * H; i++)
        if (r->blk.norm[i / H].data)
            bq_f32(r->blk.norm[i / H])[i % H] = (1 + rig_noise(3, 0, i)) * (i % 7 == 3 ? 15.0f : 1.0f);
    for (int64_t i = r->arch.site[BQ_QKV].rows * H - 3 * H; i < r->arch.site[BQ_QKV].rows * H; i++)
        bq_f32(r->blk.w[BQ_QKV])[i] *= 9;
    for (int64_t i = 2 * INTER * H - 4 * H; i < 2 * INTER * H; i++) bq_f32(r->blk.w[BQ_GATE_UP])[i] *= 9;
    rig_keep(r);
    return r;
}

/* The phase's inputs.  The samples become the one stream that a smoothing pass may then read. */
static inline void smooth_input(rig *r, bq_inputs input) {
    r->c.input = input;
    if (input != BQ_INPUTS_QT) return;
    r->stream[BQ_STREAM_QT] = r->stream[BQ_STREAM_FP], r->stream[BQ_STREAM_FP] = NULL;
}

static const bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                       w4g8 = {4, 8, false, BQ_F32, BQ_GRID_AIMET, 1, 0};
static const bq_smooth_form alpha_half = {BQ_SMOOTH_ALPHA, 0.5, 1e-5, 1, 1e-5};

/* The passes in their variants: smoothquant, autosmoothquant, awq, which clips in the last of them; and one
 * that keeps its factors beside the weights. */
enum {
    SMOOTH_SEARCH = 3,
    SMOOTH_AWQ = 7,
    SMOOTH_CLIP = 10,
    SMOOTH_VARIANTS,
    SMOOTH_KEPT = SMOOTH_VARIANTS,
    SMOOTH_ALL
};
typedef struct {
    bq_smooth_options smooth;
    bq_autosmooth_options autosmooth;
    bq_awq_options awq;
} smooth_passes;

static inline smooth_passes smooth_variant(int variant) {
    smooth_passes o = {{BQ_CHANNEL_ABSMAX, alpha_half, BQ_ENTRIES_ALL, true},
                       {BQ_DISTANCE_MAE,
                        BQ_GQA_GROUP,
                        {BQ_INSPECT_MODULE, BQ_INSPECT_SELF, BQ_INSPECT_MODULE, BQ_INSPECT_SELF},
                        16,
                        variant == 6 ? BQ_SEARCH_HALVING : BQ_SEARCH_ALL},
                       {.gqa = BQ_GQA_GROUP}};
    if (variant == 1) o.smooth.statistic = BQ_CHANNEL_RANGE, o.smooth.form.kind = BQ_SMOOTH_LOG;
    if (variant == 2) o.smooth.statistic = BQ_CHANNEL_MEAN, o.smooth.entries = BQ_ENTRIES_NORMS;
    if (variant == 4)
        o.autosmooth.loss = BQ_DISTANCE_RMSE, o.autosmooth.gqa = BQ_GQA_LATE, o.autosmooth.activations = 8;
    for (int m = 0; m < RIG_SITES && variant == 5; m++) o.autosmooth.inspect[m] = BQ_INSPECT_BLOCK;
    if (variant == 8) o.awq.duo = true, o.awq.gqa = BQ_GQA_SKIP, o.awq.activations = 8;
    if (variant == 9) o.awq.search = BQ_SEARCH_HALVING, o.awq.activations = 8;
    if (variant == SMOOTH_CLIP) o.awq.clip = true;
    if (variant == SMOOTH_KEPT) o.smooth.fuse = false;
    return o;
}

static inline int64_t smooth_pass(rig *r, int variant, bq_scales_result *result) {
    smooth_passes o = smooth_variant(variant);
    if (variant >= SMOOTH_AWQ && variant != SMOOTH_KEPT) return bq_pass_awq(&r->c, &o.awq, result);
    if (variant >= SMOOTH_SEARCH && variant != SMOOTH_KEPT)
        return bq_pass_autosmooth(&r->c, &o.autosmooth, result);
    bq_pass_smoothquant(&r->c, &o.smooth);
    return 0;
}

static inline size_t smooth_need(const rig *r, int variant) {
    smooth_passes o = smooth_variant(variant);
    const bq_comm *on = r->c.comm;
    int64_t n = r->c.samples;
    if (variant < SMOOTH_SEARCH || variant == SMOOTH_KEPT)
        return bq_smooth_need(&r->arch, n, on->replica, on->nreplica);
    if (variant < SMOOTH_AWQ)
        return bq_autosmooth_need(&r->arch, &o.autosmooth, TOKENS, n, on->replica, on->nreplica);
    return bq_awq_need(&r->arch, r->q.scheme, &o.awq, TOKENS, n, on->replica, on->nreplica);
}

#endif
