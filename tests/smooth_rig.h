/* smooth_rig.h - a small random block with grouped queries, biases and loud channels, and its samples: what
 * the tests of the smoothing passes share. */
#ifndef SMOOTH_RIG_H
#define SMOOTH_RIG_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "block/autosmooth.h"
#include "block/awq.h"
#include "block/smooth.h"

enum { SAMPLES = 9, TOKENS = 13, H = 24, INTER = 264, HEADS = 4, KV = 2, HEAD = 6 };

typedef struct {
    bq_dev dev;
    bq_arch arch;
    bq_block blk, original;
    bq_work work;
    bq_quantized q;
    bq_pass_context c;
    bq_comm alone;
    float stream[SAMPLES][TOKENS * H];
} rig;

static inline float noise(uint64_t seed, uint32_t sample, uint32_t i) {
    uint32_t r[4];
    bq_philox((bq_rng_key){.seed = seed, .sample = sample}, i / 4, r);
    return (float)r[i % 4] / 4294967296.0f - 0.5f;
}

static inline bq_mat rig_fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    rig *r = ctx;
    /* what keeps the function looks at the original's stream, unless it is to see the quantized one alone */
    if (stream != (r->c.input == BQ_INPUTS_QT ? BQ_STREAM_QT : BQ_STREAM_FP)) abort();
    return bq_mat_host(r->stream[sample], TOKENS, H, BQ_F32);
}

/* Every value from its place in memory: the same for both families. */
static inline void rig_fill(rig *r) {
    for (int m = 0; m < BQ_MATS; m++) {
        for (int64_t i = 0; i < r->arch.rows[m] * r->arch.cols[m]; i++)
            bq_f32(r->blk.w[m])[i] = noise(1, (uint32_t)m, (uint32_t)i);
        for (int64_t i = 0; i < r->arch.rows[m]; i++)
            bq_f32(r->blk.bias[m])[i] = noise(2, (uint32_t)m, (uint32_t)i);
    }
    for (uint32_t i = 0; i < 2 * H; i++)
        bq_f32(r->blk.norm[i / H])[i % H] = (1 + noise(3, 0, i)) * (i % 7 == 3 ? 15.0f : 1.0f);
    for (int64_t i = r->arch.rows[BQ_QKV] * H - 3 * H; i < r->arch.rows[BQ_QKV] * H; i++)
        bq_f32(r->blk.w[BQ_QKV])[i] *= 9;
    for (int64_t i = 2 * INTER * H - 4 * H; i < 2 * INTER * H; i++) bq_f32(r->blk.w[BQ_GATE_UP])[i] *= 9;
}

static inline rig *rig_open(bq_family family, int threads, bq_scheme scheme) {
    rig *r = calloc(1, sizeof *r);
    bq_scheme schemes[BQ_ARCH_LINEARS];
    bq_model m = {.family = family,
                  .hidden = H,
                  .inter = INTER,
                  .vocab = 31,
                  .blocks = 2,
                  .heads = HEADS,
                  .kv_heads = KV,
                  .head_dim = HEAD,
                  .eps = 1e-5,
                  .attention_bias = true,
                  .mlp_bias = true,
                  .rope = {.dim = HEAD, .theta = 1e4, .attention = 1}};
    if (!r || bq_dev_open(&r->dev, "cpu", threads, (size_t)16 << 20)) abort();
    bq_arch_of(&m, &r->arch);
    for (int i = 0; i < r->arch.linears; i++) schemes[i] = scheme;
    bq_block_push(&r->blk, &r->arch, &r->dev.mem);
    bq_block_push(&r->original, &r->arch, &r->dev.mem);
    bq_work_push(&r->work, &r->arch, TOKENS, false, &r->dev.mem);
    bq_quantized_push(&r->q, &r->arch, schemes, &r->dev.mem);
    bq_quantized_push_pre(&r->q, &r->dev.mem);
    rig_fill(r);
    for (int k = 0; k < BQ_MATS; k++) {
        r->dev.op->copy(&r->dev, r->blk.w[k], r->original.w[k]);
        r->dev.op->copy(&r->dev, r->blk.bias[k], r->original.bias[k]);
    }
    for (int k = 0; k < 2; k++) r->dev.op->copy(&r->dev, r->blk.norm[k], r->original.norm[k]);
    for (int i = 0; i < TOKENS * HEAD / 2; i++)
        bq_f32(r->work.cos)[i] = cosf((float)i * 0.1f), bq_f32(r->work.sin)[i] = sinf((float)i * 0.1f);
    for (uint32_t s = 0; s < SAMPLES; s++)
        for (uint32_t i = 0; i < TOKENS * H; i++) r->stream[s][i] = noise(4, s, i);
    r->alone = (bq_comm){.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};
    r->c = (bq_pass_context){.dev = &r->dev,
                             .blk = &r->blk,
                             .work = &r->work,
                             .q = &r->q,
                             .comm = &r->alone,
                             .samples = SAMPLES,
                             .tokens = TOKENS,
                             .fetch = rig_fetch,
                             .ctx = r};
    return r;
}

static inline void rig_close(rig *r) {
    bq_dev_close(&r->dev);
    free(r);
}

/* All that a preparing pass may change. */
static inline uint64_t rig_hash(const rig *r) {
    bq_hash *h = bq_hash_open();
    for (int m = 0; m < BQ_MATS; m++) {
        bq_hash_add(h, r->blk.w[m].data, bq_mat_bytes(r->blk.w[m]));
        bq_hash_add(h, r->blk.bias[m].data, bq_mat_bytes(r->blk.bias[m]));
    }
    for (int n = 0; n < 2; n++) bq_hash_add(h, r->blk.norm[n].data, bq_mat_bytes(r->blk.norm[n]));
    for (int i = 0; i < r->arch.linears && r->blk.pre; i++)
        bq_hash_add(h, r->blk.pre[i].data, bq_mat_bytes(r->blk.pre[i]));
    return bq_hash_close(h);
}

static const bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_AIMET}, w4g8 = {4, 8, false, BQ_F32, BQ_GRID_AIMET};
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
} rig_options;

static inline rig_options rig_variant(int variant) {
    rig_options o = {{BQ_CHANNEL_ABSMAX, alpha_half, BQ_ENTRIES_ALL, true},
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
    for (int m = 0; m < BQ_MATS && variant == 5; m++) o.autosmooth.inspect[m] = BQ_INSPECT_BLOCK;
    if (variant == 8) o.awq.duo = true, o.awq.gqa = BQ_GQA_SKIP, o.awq.activations = 8;
    if (variant == 9) o.awq.search = BQ_SEARCH_HALVING, o.awq.activations = 8;
    if (variant == SMOOTH_CLIP) o.awq.clip = true;
    if (variant == SMOOTH_KEPT) o.smooth.fuse = false;
    return o;
}

static inline int64_t rig_pass(rig *r, int variant, bq_scales_result *result) {
    rig_options o = rig_variant(variant);
    if (variant >= SMOOTH_AWQ && variant != SMOOTH_KEPT) return bq_pass_awq(&r->c, &o.awq, result);
    if (variant >= SMOOTH_SEARCH && variant != SMOOTH_KEPT)
        return bq_pass_autosmooth(&r->c, &o.autosmooth, result);
    bq_pass_smoothquant(&r->c, &o.smooth);
    return 0;
}

static inline size_t rig_need(const rig *r, int variant) {
    rig_options o = rig_variant(variant);
    const bq_comm *on = r->c.comm;
    int64_t n = r->c.samples;
    if (variant < SMOOTH_SEARCH || variant == SMOOTH_KEPT)
        return bq_smooth_need(&r->arch, TOKENS, n, on->replica, on->nreplica);
    if (variant < SMOOTH_AWQ)
        return bq_autosmooth_need(&r->arch, &o.autosmooth, TOKENS, n, on->replica, on->nreplica);
    return bq_awq_need(&r->arch, r->q.scheme, &o.awq, TOKENS, n, on->replica, on->nreplica);
}

#endif
