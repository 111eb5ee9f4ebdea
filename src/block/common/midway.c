/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/midway.h"

#include "comm/heartbeat.h"

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

void bq_midway_open(bq_midway *a, bq_pass_context *c) {
    const bq_arch *arch = c->q->arch;
    bq_arena *mem = &c->dev->mem;
    bq_shard share = bq_shard_of(c->samples, c->comm->replica, c->comm->nreplica);
    *a = (bq_midway){.c = c, .share = share, .kept = c->keeps < share.count ? c->keeps : share.count};
    if (!a->kept) return;
    int64_t rows = a->kept * c->tokens;
    a->m = bq_arena_push(mem, rows, arch->model.hidden, BQ_F32);
    a->o = a->z = bq_arena_push(mem, rows, larger(bq_arch_heads(arch), bq_arch_inter(arch)), BQ_F32);
    a->o.cols = a->o.ld = bq_arch_heads(arch);
    a->z.cols = a->z.ld = bq_arch_inter(arch);
}

size_t bq_midway_need(const bq_arch *arch, int64_t tokens, int64_t kept) {
    if (!kept) return 0;
    return bq_arena_need(kept * tokens, arch->model.hidden, BQ_F32) +
           bq_arena_need(kept * tokens, larger(bq_arch_heads(arch), bq_arch_inter(arch)), BQ_F32);
}

/* The workspace for sample i of the share: where its state is kept, m, o and z are that state. */
static bq_work work_of(const bq_midway *a, int64_t i) {
    bq_work k = *a->c->work;
    int64_t t = a->c->tokens;
    if (i < a->kept) k.m = bq_mat_rows(a->m, i * t, t), k.o = bq_mat_rows(a->o, i * t, t);
    if (i < a->kept) k.z = bq_mat_rows(a->z, i * t, t);
    return k;
}

/* Take sample i of the share to the input of site `to`, or to the output.  Nothing inside attention is kept,
 * nor n: norm 2 is computed again for down. */
static void bring(const bq_midway *a, int64_t i, int to, const bq_mat *w, bq_work *k) {
    bq_pass_context *c = a->c;
    const bq_arch *arch = c->blk->arch;
    bq_role role = to < arch->sites ? arch->site[to].role : BQ_ROLES;
    bool kept = i < a->kept, again = !kept || bq_role_attends(role);
    if (again || to == bq_arch_mlp(arch))
        c->dev->op->put(c->dev, c->fetch(c->ctx, bq_capture_stream(c->input), a->share.first + i), k->x);
    if (kept && role == BQ_DOWN) bq_block_norm(c->dev, c->blk, k);
    bq_block_parts(c->dev, c->blk, w, k, again ? 0 : to, to, k->x, k->x);
}

void bq_midway_to(bq_midway *a, int to, const bq_mat *w, bq_visit visit, void *ctx) {
    bq_pass_context *c = a->c;
    const bq_arch *arch = c->q->arch;
    for (int64_t i = 0; i < a->share.count; i++) {
        bq_work k = work_of(a, i);
        bring(a, i, to, w, &k);
        visit(ctx, a->share.first + i, k.x, to == arch->sites ? k.x : bq_block_input(arch, &k, to));
        c->dev->op->wait(c->dev);
        bq_heartbeat();
    }
}

static void hand_on(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    bq_pass_context *c = ctx;
    (void)x;
    c->advance(c->ctx, sample, y);
}

void bq_midway_end(bq_midway *a, const bq_mat *w) {
    if (a->c->advance) bq_midway_to(a, a->c->q->arch->sites, w, hand_on, a->c);
}
