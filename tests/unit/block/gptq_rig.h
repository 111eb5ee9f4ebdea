/* gptq_rig.h - a small random block with streams and a gptq pass over it, for the tests of one rank and of
 * many.  Rows of its matrices fill more than one panel. */
#ifndef GPTQ_RIG_H
#define GPTQ_RIG_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "block/gptq.h"
#include "block/midway.h"

enum { RIG_SAMPLES = 7, RIG_TOKENS = 40, RIG_H = 48 };

typedef struct {
    bq_dev dev;
    bq_arch arch;
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    float stream[3][RIG_SAMPLES][RIG_TOKENS * RIG_H];
    int64_t samples, keeps;
    float out[RIG_SAMPLES]
             [RIG_TOKENS * RIG_H]; /* what the last pass has handed on, of the samples since `next` */
    int64_t next;                  /* the sample that comes next, -1: nobody takes them */
    bq_inputs input;
    bool grid;
    size_t taken; /* of the arena, by the last pass */
} gptq_rig;

static inline float rig_noise(uint64_t seed, uint32_t sample, uint32_t i) {
    uint32_t r[4];
    bq_philox((bq_rng_key){.seed = seed, .sample = sample}, i / 4, r);
    return (float)r[i % 4] / 4294967296.0f - 0.5f;
}

static inline bq_mat rig_fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    gptq_rig *r = ctx;
    return bq_mat_host(r->stream[stream][sample], RIG_TOKENS, RIG_H, BQ_F32);
}

static inline void rig_advance(void *ctx, int64_t sample, bq_mat y) {
    gptq_rig *r = ctx;
    if (sample != r->next++) abort();
    r->dev.op->get(&r->dev, y, bq_mat_host(r->out[sample], RIG_TOKENS, RIG_H, BQ_F32));
    r->dev.op->wait(&r->dev);
}

static inline gptq_rig *rig_open(const bq_scheme *scheme, int schemes, int threads) {
    gptq_rig *r = calloc(1, sizeof *r);
    if (!r) abort();
    bq_model m = {.family = BQ_LLAMA,
                  .hidden = RIG_H,
                  .inter = 144,
                  .vocab = 31,
                  .blocks = 2,
                  .heads = 6,
                  .kv_heads = 2,
                  .head_dim = 8,
                  .eps = 1e-5,
                  .rope = {.dim = 8, .theta = 1e4, .attention = 1}};
    bq_arch_of(&m, &r->arch);
    if (bq_dev_open(&r->dev, "cpu", threads, (size_t)24 << 20)) abort();
    for (int i = 0; i < r->arch.linears; i++) r->scheme[i] = scheme[i % schemes];
    bq_block_push(&r->blk, &r->arch, &r->dev.mem);
    bq_work_push(&r->work, &r->arch, RIG_TOKENS, false, &r->dev.mem);
    bq_quantized_push(&r->q, &r->arch, r->scheme, &r->dev.mem);
    for (int k = 0; k < BQ_MATS; k++)
        for (int64_t i = 0; i < r->arch.rows[k] * r->arch.cols[k]; i++)
            bq_f32(r->blk.w[k])[i] = rig_noise(1, (uint32_t)k, (uint32_t)i);
    for (int i = 0; i < 2 * RIG_H; i++) bq_f32(r->blk.norm[i / RIG_H])[i % RIG_H] = 1 + 0.1f * (float)(i % 5);
    for (int i = 0; i < RIG_TOKENS * 4; i++)
        bq_f32(r->work.cos)[i] = cosf((float)i * 0.1f), bq_f32(r->work.sin)[i] = sinf((float)i * 0.1f);
    for (uint32_t s = 0; s < RIG_SAMPLES; s++)
        for (uint32_t i = 0; i < RIG_TOKENS * RIG_H; i++) {
            float x = rig_noise(2, s, i) + (i % RIG_H ? 0.7f * rig_noise(2, s, i - 1) : 0);
            r->stream[BQ_STREAM_FP][s][i] = x;
            r->stream[BQ_STREAM_QT][s][i] = x + 0.3f * rig_noise(3, s, i);
        }
    r->samples = r->keeps = RIG_SAMPLES, r->next = -1, r->input = BQ_INPUTS_QT;
    return r;
}

static inline void rig_close(gptq_rig *r) {
    bq_dev_close(&r->dev);
    free(r);
}

static inline bq_pass_context rig_context(gptq_rig *r, const bq_comm *comm) {
    return (bq_pass_context){.dev = &r->dev,
                             .blk = &r->blk,
                             .work = &r->work,
                             .q = &r->q,
                             .grid = r->grid,
                             .comm = comm,
                             .samples = r->samples,
                             .tokens = RIG_TOKENS,
                             .keeps = r->keeps,
                             .input = r->input,
                             .fetch = rig_fetch,
                             .advance = r->next >= 0 ? rig_advance : NULL,
                             .ctx = r};
}

/* Fingerprint of what the pass leaves. */
static inline uint64_t rig_run(gptq_rig *r, const bq_comm *comm, const bq_gptq_options *o) {
    bq_pass_context c = rig_context(r, comm);
    size_t before = r->dev.mem.used;
    r->dev.mem.peak = before;
    bq_pass_gptq(&c, o);
    if (r->dev.mem.used != before) abort();
    r->taken = r->dev.mem.peak - before;
    bq_hash *h = bq_hash_open();
    for (int m = 0; m < BQ_MATS; m++) {
        bq_hash_add(h, r->q.fold[m].data, bq_mat_bytes(r->q.fold[m]));
        bq_hash_add(h, r->q.code[m].data, bq_mat_bytes(r->q.code[m]));
        bq_hash_add(h, r->q.what[m].data, bq_mat_bytes(r->q.what[m]));
    }
    for (int i = 0; i < r->arch.linears; i++) {
        bq_hash_add(h, r->q.scale[i].data, bq_mat_bytes(r->q.scale[i]));
        bq_hash_add(h, r->q.zero[i].data, r->q.zero[i].data ? bq_mat_bytes(r->q.zero[i]) : 0);
    }
    return bq_hash_close(h);
}

static inline size_t rig_need(const gptq_rig *r, const bq_comm *comm, const bq_gptq_options *o) {
    return bq_gptq_need(&r->arch, r->scheme, RIG_TOKENS, r->samples, o, comm->replica, comm->nreplica) +
           (o->sequential ? bq_midway_need(&r->arch, RIG_TOKENS, r->keeps) : 0) +
           bq_op_scratch(RIG_TOKENS, r->arch.attention, r->arch.model.vocab);
}

static const bq_comm rig_alone = {.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};

/* One, three, six and other numbers of groups a row, of several widths, some with zero points. */
static const bq_scheme rig_mixed[] = {{4, -1, true, BQ_F32, BQ_GRID_AIMET},
                                      {3, 16, false, BQ_BF16, BQ_GRID_AIMET},
                                      {4, 8, true, BQ_F16, BQ_GRID_ABSMAX},
                                      {2, 48, true, BQ_F32, BQ_GRID_AIMET},
                                      {8, -1, false, BQ_F32, BQ_GRID_AIMET}};

#endif
