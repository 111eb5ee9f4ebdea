/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/block.h"

#include <stddef.h>
#include <string.h>

/* The buffers of a workspace in three tables, so that bq_work_push and bq_work_need agree. */
enum { DENSE = 25, EXPERTS = 25, LATENT = 9, BUFFERS = DENSE + EXPERTS + LATENT };

typedef struct {
    size_t at; /* of the view in bq_work */
    int64_t rows, cols;
    bool wanted;
    bq_type type;
} buffer;

#define F32(field, ...)                                                                                      \
    { offsetof(bq_work, field), __VA_ARGS__, BQ_F32 }
#define I32(field, ...)                                                                                      \
    { offsetof(bq_work, field), __VA_ARGS__, BQ_I32 }

static void dense(const bq_arch *arch, int64_t t, bool train, buffer *out) {
    const bq_model *m = &arch->model;
    int64_t h = m->hidden, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim,
            qkv = arch->kind == BQ_UNIT_EXPERT ? 0 : arch->site[bq_arch_site(arch, BQ_QKV)].rows,
            o_in = bq_arch_heads(arch), angles = m->rope.dim / 2, more = m->full_rope.dim / 2;
    int64_t inter = m->experts && m->shared_inter > m->inter ? m->shared_inter : m->inter;
    bool gate = arch->extra[BQ_SHARED_GATE], o = arch->norm[BQ_NORM_O], down = arch->norm[BQ_NORM_DOWN],
         qk = arch->norm[BQ_NORM_Q], attends = arch->kind != BQ_UNIT_EXPERT;
    const buffer all[DENSE] = {
        F32(cos[0], t, angles, attends),
        F32(sin[0], t, angles, attends),
        F32(cos[1], t, more, attends && more > 0),
        F32(sin[1], t, more, attends && more > 0),
        F32(x, t, h, true),
        F32(y, t, h, true),
        F32(a, t, h, attends),
        F32(m, t, h, attends),
        F32(n, t, h, true),
        F32(raw_n, t, h, arch->experts > 0 && bq_arch_has(arch, BQ_GATE_UP)),
        F32(qkv, t, qkv, attends),
        F32(o, t, o_in, attends),
        F32(lse, m->heads, t, attends),
        F32(grid, m->kv_heads > 1 ? m->kv_heads : 1, 2, true),
        F32(gu, t, 2 * inter, inter > 0),
        F32(z, t, inter, inter > 0),
        F32(dz, t, inter, train && inter > 0),
        F32(dm, t, h, train && attends),
        F32(dn, t, h, train),
        F32(dout, t, o_in, train && attends),
        F32(dqkv, t, qkv, train && attends),
        F32(t, t, h, o || down || gate),
        F32(raw_o, t, h, train && o),
        F32(raw_down, t, h, train && (down || gate)),
        F32(raw_qk, t, q + kv, train && qk),
    };
    memcpy(out, all, sizeof all);
}

static void experts(const bq_arch *arch, int64_t t, bool train, buffer *out) {
    const bq_model *m = &arch->model;
    int64_t h = m->hidden, e = m->experts, k = m->chosen, n = t * k, ie = m->expert_inter;
    bool experts = e > 0, inside = experts && arch->kind == BQ_UNIT_BLOCK, back = inside && train,
         gate = arch->extra[BQ_SHARED_GATE];
    const buffer all[EXPERTS] = {
        F32(logits, t, e, experts),
        I32(index, t, k, experts),
        F32(weight, t, k, experts),
        I32(rows, n, 1, experts),
        I32(slots, n, 1, experts),
        I32(first, e + 1, 1, experts),
        F32(xe, n, h, inside),
        F32(gue, n, 2 * ie, inside),
        F32(ze, n, ie, inside),
        F32(ye, n, h, inside),
        F32(we, n, 1, experts),
        F32(one, n, 1, back),
        F32(dxe, n, h, back),
        F32(dze, n, ie, back),
        F32(dwe, n, 1, back),
        F32(dweight, n, 1, back),
        F32(dlogits, t, e, back),
        F32(gate_logit, t, 1, gate),
        I32(gate_index, t, 1, gate),
        F32(gate, t, 1, gate),
        I32(all, t, 1, gate),
        I32(all_slots, t, 1, gate),
        I32(all_first, 2, 1, gate),
        F32(dgate, t, 1, gate && train),
        F32(dgate_logit, t, 1, gate && train),
    };
    memcpy(out, all, sizeof all);
}

static void latent(const bq_arch *arch, int64_t t, bool train, buffer *out) {
    const bq_model *m = &arch->model;
    int64_t keys = m->heads * m->head_dim, values = m->heads * m->value_dim;
    bool there = m->kv_rank > 0, back = there && train, q = m->q_rank > 0;
    const buffer all[LATENT] = {
        F32(latent.q_a, t, m->q_rank, q),
        F32(latent.kv_a, t, m->kv_rank, there),
        F32(latent.q, t, keys, q),
        F32(latent.kv, t, m->heads * (m->nope_dim + m->value_dim), there),
        F32(latent.key, t, keys, there),
        F32(latent.value, t, values, there),
        F32(latent.dq, t, keys, q && train),
        F32(latent.dkey, t, keys, back),
        F32(latent.dvalue, t, values, back),
    };
    memcpy(out, all, sizeof all);
}

static void buffers(const bq_arch *arch, int64_t tokens, bool train, buffer out[BUFFERS]) {
    dense(arch, tokens, train, out);
    experts(arch, tokens, train, out + DENSE);
    latent(arch, tokens, train, out + DENSE + EXPERTS);
}

void bq_work_push(bq_work *work, const bq_arch *arch, int64_t tokens, bool train, bq_arena *mem) {
    buffer b[BUFFERS];
    *work = (bq_work){0};
    buffers(arch, tokens, train, b);
    for (int i = 0; i < BUFFERS; i++)
        if (b[i].wanted)
            *(bq_mat *)((char *)work + b[i].at) = bq_arena_push(mem, b[i].rows, b[i].cols, b[i].type);
}

size_t bq_work_need(const bq_arch *arch, int64_t tokens, bool train) {
    buffer b[BUFFERS];
    size_t sum = 0;
    buffers(arch, tokens, train, b);
    for (int i = 0; i < BUFFERS; i++) sum += b[i].wanted ? bq_arena_need(b[i].rows, b[i].cols, b[i].type) : 0;
    return sum;
}
