/* SPDX-License-Identifier: Apache-2.0 */
/* rig.h - a toy model and one of its blocks, ready for a pass: what the tests of blocks and passes share.
 *
 *     rig *r = rig_open(&(rig_spec){.model = {.hidden = 24, .inter = 40, .heads = 4, .kv_heads = 2},
 *                                   .scheme = &w4, .samples = 6, .tokens = 19, .noise = {2, 3}});
 *     bq_pass_rtn(&r->c);
 *     rig_close(r);
 *
 * This file fills bq_model, bq_pass_context and the buffers of a block for the tests, so that a change of
 * these structs changes this file and not each test.  A test then overwrites what it wants otherwise:
 * weights, samples, fields of r->c.
 *
 * The rig owns all that it points to; rig_close frees it.  An error here ends the program by abort(), since
 * programs without cmocka use the rig, too. */
#ifndef BQ_TESTS_RIG_H
#define BQ_TESTS_RIG_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "block/passes/pass.h"

enum { RIG_SITES = 4 }; /* of a dense block without latent attention */

/* A head has hidden / heads channels, and all of them are rotated, but with latent attention the last two. */
typedef struct {
    int family;
    int64_t hidden, inter, heads, kv_heads;
    int64_t vocab; /* 0: 31 */
    int blocks;    /* 0: 2 */
    bool bias;     /* all linears have one */
} rig_model;

static inline bq_arch rig_arch(rig_model toy) {
    int64_t head = toy.hidden / toy.heads;
    bool latent = bq_family_at(toy.family)->norm[BQ_NORM_KV_A] != NULL;
    bq_model m = {.family = toy.family,
                  .hidden = toy.hidden,
                  .inter = toy.inter,
                  .vocab = toy.vocab ? toy.vocab : 31,
                  .blocks = toy.blocks ? toy.blocks : 2,
                  .heads = toy.heads,
                  .kv_heads = latent ? toy.heads : toy.kv_heads,
                  .head_dim = head,
                  .q_rank = latent ? 10 : 0,
                  .kv_rank = latent ? 7 : 0,
                  .nope_dim = latent ? head - 2 : 0,
                  .rope_dim = latent ? 2 : 0,
                  .value_dim = latent ? 5 : 0,
                  .rope_pairs = true,
                  .eps = 1e-5,
                  .attention_bias = toy.bias,
                  .mlp_bias = toy.bias,
                  .rope = {.dim = latent ? 2 : head, .theta = 1e4, .attention = 1}};
    bq_arch arch;
    bq_arch_of(&m, &arch);
    return arch;
}

typedef struct {
    rig_model model;
    const bq_scheme *scheme; /* linear i has scheme[i % schemes] */
    int schemes;             /* 0: 1 */
    int threads;             /* 0: 1 */
    int64_t samples, tokens;
    uint64_t noise[3]; /* the seed of each stream's samples; 0: there is no such stream */
    int64_t steps;     /* the most that a pass trains: room for losses, a batch, the backward; 0: none */
    bool pre;          /* room for factors of what linears are fed */
} rig_spec;

typedef struct {
    bq_dev dev; /* cpu, with an arena of 32 MiB */
    bq_arch arch;
    bq_block blk, original; /* original: a copy that rig_keep makes */
    bq_work work;
    bq_quantized q;
    bq_pass_context c; /* of one rank; input: FP */
    float *stream[3];  /* (samples, tokens, hidden) each, NULL where there is none */
    size_t watched;    /* see rig_watch */
} rig;

static const bq_comm rig_alone = {.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};

/* In [-0.5, 0.5): a function of its arguments alone. */
static inline float rig_noise(uint64_t seed, uint32_t sample, uint32_t i) {
    uint32_t r[4];
    bq_philox((bq_rng_key){.seed = seed, .sample = sample}, i / 4, r);
    return (float)r[i % 4] / 4294967296.0f - 0.5f;
}

static inline void rig_noise_fill(float *to, int64_t n, uint64_t seed, uint32_t sample) {
    for (int64_t i = 0; i < n; i++) to[i] = rig_noise(seed, sample, (uint32_t)i);
}

static inline void *rig_room(size_t n, size_t size) {
    void *room = calloc(n, size);
    if (!room) abort();
    return room;
}

/* Values of a sample, (tokens, hidden). */
static inline float *rig_sample(const rig *r, bq_stream_id stream, int64_t sample) {
    if (!r->stream[stream]) abort();
    return r->stream[stream] + sample * r->c.tokens * r->arch.model.hidden;
}

/* c.fetch.  A pass that asks for a stream that the rig does not have ends the program. */
static inline bq_mat rig_fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    const rig *r = ctx;
    return bq_mat_host(rig_sample(r, stream, sample), r->c.tokens, r->arch.model.hidden, BQ_F32);
}

/* Weights are noise of seed 1, biases of seed 2, norms 1; angles are small multiples of 0.1. */
static inline void rig_fill(rig *r, const rig_spec *spec) {
    for (int m = 0; m < r->arch.sites; m++) {
        rig_noise_fill(bq_f32(r->blk.w[m]), r->arch.site[m].rows * r->arch.site[m].cols, 1, (uint32_t)m);
        if (r->blk.bias[m].data) rig_noise_fill(bq_f32(r->blk.bias[m]), r->arch.site[m].rows, 2, (uint32_t)m);
    }
    for (int n = 0; n < BQ_NORMS; n++)
        for (int64_t i = 0; i < r->arch.gains[n]; i++) bq_f32(r->blk.norm[n])[i] = 1;
    for (int i = 0; i < r->work.cos->rows * r->work.cos->cols; i++)
        bq_f32(*r->work.cos)[i] = cosf((float)i * 0.1f), bq_f32(*r->work.sin)[i] = sinf((float)i * 0.1f);
    for (int k = 0; k < 3; k++) {
        int64_t n = spec->tokens * spec->model.hidden;
        if (!spec->noise[k]) continue;
        r->stream[k] = rig_room((size_t)(spec->samples * n), sizeof(float));
        for (int64_t s = 0; s < spec->samples; s++)
            rig_noise_fill(r->stream[k] + s * n, n, spec->noise[k], (uint32_t)s);
    }
}

static inline rig *rig_open(const rig_spec *spec) {
    rig *r = rig_room(1, sizeof *r);
    bq_scheme scheme[BQ_ARCH_LINEARS];
    r->arch = rig_arch(spec->model);
    if (bq_dev_open(&r->dev, "cpu", spec->threads ? spec->threads : 1, (size_t)32 << 20)) abort();
    for (int i = 0; i < r->arch.linears; i++) scheme[i] = spec->scheme[spec->schemes ? i % spec->schemes : 0];
    bq_block_push(&r->blk, &r->arch, &r->dev.mem);
    bq_work_push(&r->work, &r->arch, spec->tokens, spec->steps > 0, &r->dev.mem);
    bq_quantized_push(&r->q, &r->arch, scheme, &r->dev.mem);
    if (spec->pre) bq_quantized_push_pre(&r->q, &r->dev.mem);
    rig_fill(r, spec);
    r->c = (bq_pass_context){.dev = &r->dev,
                             .blk = &r->blk,
                             .work = &r->work,
                             .q = &r->q,
                             .comm = &rig_alone,
                             .samples = spec->samples,
                             .tokens = spec->tokens,
                             .fetch = rig_fetch,
                             .ctx = r};
    if (!spec->steps) return r;
    r->c.batch = rig_room((size_t)spec->samples + 2, sizeof(double));
    r->c.losses = rig_room((size_t)spec->steps, sizeof(double));
    r->c.at = (bq_rng_key){.seed = 7, .block = 1};
    return r;
}

static inline void rig_close(rig *r) {
    bq_dev_close(&r->dev);
    for (int k = 0; k < 3; k++) free(r->stream[k]);
    free(r->c.batch), free(r->c.losses);
    free(r);
}

/* Copies the block as it is now to r->original. */
static inline void rig_keep(rig *r) {
    bq_block_push(&r->original, &r->arch, &r->dev.mem);
    for (int m = 0; m < r->arch.sites; m++) {
        r->dev.op->copy(&r->dev, r->blk.w[m], r->original.w[m]);
        if (r->blk.bias[m].data) r->dev.op->copy(&r->dev, r->blk.bias[m], r->original.bias[m]);
    }
    for (int n = 0; n < BQ_NORMS; n++)
        if (r->arch.gains[n]) r->dev.op->copy(&r->dev, r->blk.norm[n], r->original.norm[n]);
}

/* All matrices that a quantizing pass fills; their number.  Data are NULL where there are no zero points. */
enum { RIG_PARTS = 3 * BQ_SITES + 2 * BQ_ARCH_LINEARS };
static inline int rig_quantized_parts(const rig *r, bq_mat part[RIG_PARTS]) {
    int n = 0;
    for (int m = 0; m < r->arch.sites; m++)
        part[n++] = r->q.fold[m], part[n++] = r->q.code[m], part[n++] = r->q.w_hat[m];
    for (int i = 0; i < r->arch.linears; i++) part[n++] = r->q.scale[i], part[n++] = r->q.zero[i];
    return n;
}

static inline uint64_t rig_hash_parts(const bq_mat *part, int n) {
    bq_hash *h = bq_hash_open();
    for (int i = 0; i < n; i++)
        if (part[i].data) bq_hash_add(h, part[i].data, bq_mat_bytes(part[i]));
    return bq_hash_close(h);
}

static inline uint64_t rig_quantized_hash(const rig *r) {
    bq_mat part[RIG_PARTS];
    return rig_hash_parts(part, rig_quantized_parts(r, part));
}

/* All that a preparing pass may change. */
static inline uint64_t rig_block_hash(const rig *r) {
    bq_mat part[2 * BQ_SITES + BQ_NORMS + BQ_ARCH_LINEARS];
    int n = 0;
    for (int m = 0; m < r->arch.sites; m++) part[n++] = r->blk.w[m], part[n++] = r->blk.bias[m];
    for (int k = 0; k < BQ_NORMS; k++) part[n++] = r->blk.norm[k];
    for (int i = 0; i < r->arch.linears && r->blk.pre; i++) part[n++] = r->blk.pre[i];
    return rig_hash_parts(part, n);
}

/* rig_watch returns the arena bytes in use; rig_taken, the most that were taken beyond them since then. */
static inline size_t rig_watch(rig *r) { return r->watched = r->dev.mem.peak = r->dev.mem.used; }
static inline size_t rig_taken(const rig *r) { return r->dev.mem.peak - r->watched; }

#endif
