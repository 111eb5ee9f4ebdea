/* SPDX-License-Identifier: Apache-2.0 */
/* Attention by tiles of queries x keys (attend.h): the scores of a tile, its softmax, then products again.
 *
 * Forward: a task is one query tile of one head.  It goes over the keys with a running maximum and sum.
 * Backward: a task is one kv head and a run of query tiles.  It owns its rows of dq.  It adds to dk and dv in
 * a buffer of its own, and at the end the buffers are added in order.  Runs depend on the shape alone, so the
 * order of a sum does not depend on the number of threads. */
#include "kernels/cpu/attend.h"
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/vec.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define WORKERS 64 /* threads, at most */
#define TASKS   32 /* tasks of the backward to aim for: enough for 16 threads, without many buffers to add */

static bq_attend check(const bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out,
                       bq_mat lse) {
    int64_t t = q.rows;
    BQ_CHECK(a.kv_heads > 0 && a.heads % a.kv_heads == 0 && a.head_dim > 0 && a.value_dim >= 0 &&
                 a.window >= 0,
             "attention: %ld heads, %ld kv heads of %ld, window %ld", (long)a.heads, (long)a.kv_heads,
             (long)a.head_dim, (long)a.window);
    bq_attend j = bq_attend_of(dev->compute, a, t);
    BQ_WANT(dev, t, a.heads * a.head_dim, q);
    BQ_WANT(dev, t, a.kv_heads * a.head_dim, k);
    BQ_WANT(dev, t, a.heads * j.vd, out);
    BQ_WANT(dev, t, a.kv_heads * j.vd, v);
    BQ_WANT(dev, a.heads, t, lse);
    if (a.sinks.data) BQ_WANT(dev, 1, a.heads, a.sinks);
    BQ_CHECK(most(most(q.ld, out.ld), most(k.ld, v.ld)) <= INT32_MAX, "attention: an ld beyond the BLAS");
    j.q = q, j.k = k, j.v = v, j.out = out, j.lse = lse;
    return j;
}

/* ---- scratch: one part for each thread, always for WORKERS threads, so that one plan holds for all ---- */

static bq_mat push_work(bq_arena *mem, const bq_attend *j) {
    return bq_arena_push(mem, WORKERS, bq_attend_numbers(j), BQ_F32);
}

static int workers(void) { return (int)least(omp_get_max_threads(), WORKERS); }

static bq_mat push_transposed(bq_arena *mem, const bq_attend *j, int64_t hd) {
    return bq_arena_push(mem, j->a.kv_heads * pieces(j->tokens, BQ_ATTEND_BLOCK), hd * BQ_ATTEND_BLOCK,
                         BQ_F32);
}

/* Room for pairs of rows.  Only our own products need it. */
static bq_mat push_paired(bq_arena *mem, const bq_attend *j, int64_t hd) {
    return bq_arena_push(mem, j->own ? (j->tokens + 1) / 2 : 0, j->a.kv_heads * hd, BQ_F32);
}

/* ---- forward ---- */

static void attend(const bq_attend *j, int64_t h, int64_t i, float *work) {
    int64_t hd = j->a.head_dim, vd = j->vd, kv = h / j->group, row = i * j->queries,
            rows = least(j->queries, j->tokens - row);
    bq_attend_parts p = bq_attend_parts_of(j, work);
    float *out = head(j->out, row, h, vd);
    const float *sink = j->a.sinks.data ? bq_mat_at(j->a.sinks, 0, h) : NULL;
    for (int64_t r = 0; r < rows; r++) p.max[r] = sink ? *sink : -INFINITY, p.sum[r] = sink ? 1 : 0;
    bq_small_left q = bq_attend_rows(j, rows, hd, head(j->q, row, h, hd), j->q.ld, p.q[0]);
    int64_t first = first_key(j, i), end = end_key(j, i);
    for (int64_t key = first; key < end; key++) {
        bq_tile t = tile_at(j, i, key);
        bq_attend_score(j, t, j->a.scale, q, j->kt, kv, key, p.s);
        bq_vec()->softmax_tile(t, p.s, p.max, p.sum, key > first ? vd : 0, j->out.ld, out);
        bq_attend_weigh(j, t, 1, bq_attend_rows(j, rows, t.cols, p.s, BQ_ATTEND_LD, p.rows),
                        bq_attend_keys(j, j->vp, key, kv), vd, key > first, out, j->out.ld);
    }
    float *lse = bq_mat_at(j->lse, h, row);
    for (int64_t r = 0; r < rows; r++) {
        bq_vec()->times(vd, 1.0f / p.sum[r], out + r * j->out.ld, out + r * j->out.ld);
        lse[r] = (float)((double)p.max[r] + log((double)p.sum[r]));
    }
}

void bq_cpu_attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse) {
    bq_attend j = check(dev, a, q, k, v, out, lse);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat work = push_work(&dev->mem, &j);
    j.kt = push_transposed(&dev->mem, &j, a.head_dim);
    j.vp = bq_attend_paired(&j, v, push_paired(&dev->mem, &j, j.vd));
    bq_attend_transpose(&j, k, j.kt);
#pragma omp parallel for schedule(dynamic) num_threads(workers())
    for (int64_t n = 0; n < a.heads * j.tiles; n++) /* tiles with the most keys first; short
                                                       ones fill the end */
        attend(&j, n % a.heads, j.tiles - 1 - n / a.heads, bq_mat_at(work, omp_get_thread_num(), 0));
    bq_arena_reset(&dev->mem, mark);
}

/* ---- backward ---- */

/* How the query tiles are cut into runs of about equal work (a tile's work grows with its number), and the
 * rows of dk and dv that a run adds to. */
typedef struct {
    int count;
    int64_t first[TASKS + 1];        /* run r has query tiles [first[r], first[r + 1]) */
    int64_t row[TASKS], rows[TASKS]; /* the keys it adds to: the first, how many */
    int64_t before[TASKS + 1];       /* sum of `rows` of the runs before */
} runs;

static runs cut(const bq_attend *j) {
    runs r = {.count = (int)most(1, least(j->tiles, pieces(TASKS, j->a.kv_heads)))};
    for (int n = 0; n <= r.count; n++) {
        double share = (double)n / r.count;
        r.first[n] = (int64_t)((double)j->tiles * (j->a.window > 0 ? share : sqrt(share)) + 0.5);
    }
    for (int n = 0; n < r.count; n++) {
        if (r.first[n] < r.first[n + 1]) {
            r.row[n] = first_key(j, r.first[n]) * BQ_ATTEND_KEYS;
            r.rows[n] = least(r.first[n + 1] * j->queries, j->tokens) - r.row[n];
        }
        r.before[n + 1] = r.before[n] + r.rows[n];
    }
    return r;
}

/* Where a run adds dk and dv of its kv head: `rows` rows, of which the first belongs to key `row`. */
typedef struct {
    float *dk, *dv;
    int64_t ldk, ldv, row, rows;
} sums;

/* One head and one query tile of a run: scores, probabilities and their gradients, one key
 * tile after the other. */
static void differentiate(const bq_attend *j, int64_t h, int64_t i, float *work, sums to) {
    int64_t hd = j->a.head_dim, vd = j->vd, kv = h / j->group, row = i * j->queries,
            rows = least(j->queries, j->tokens - row), ldq = j->q.ld, ldd = j->dout.ld;
    bq_attend_parts p = bq_attend_parts_of(j, work);
    float *d = p.max, *dq = head(j->dq, row, h, hd);
    const float *q = head(j->q, row, h, hd), *dout = head(j->dout, row, h, vd),
                *out = head(j->out, row, h, vd);
    for (int64_t r = 0; r < rows; r++) d[r] = bq_vec()->dot(vd, dout + r * ldd, out + r * j->out.ld);
    bq_small_left q_rows = bq_attend_rows(j, rows, hd, q, ldq, p.q[0]),
                  dout_rows = bq_attend_rows(j, rows, vd, dout, ldd, p.dout[0]);
    bq_small_right q_columns = bq_attend_columns(j, rows, hd, q, ldq, p.q[1]),
                   dout_columns = bq_attend_columns(j, rows, vd, dout, ldd, p.dout[1]);
    int64_t first = first_key(j, i), end = end_key(j, i);
    for (int64_t key = first; key < end; key++) {
        bq_tile t = tile_at(j, i, key);
        float scale = j->a.scale, *dk = to.dk + (key * BQ_ATTEND_KEYS - to.row) * to.ldk,
              *dv = to.dv + (key * BQ_ATTEND_KEYS - to.row) * to.ldv;
        bq_attend_score(j, t, scale, q_rows, j->kt, kv, key, p.s);
        bq_attend_score(j, t, 1, dout_rows, j->vt, kv, key, p.dp);
        bq_vec()->softmax_bwd(t, bq_mat_at(j->lse, h, row), d, p.s, p.dp);
        const float *s = p.s, *ds = p.dp;
        if (j->word == 2) {
            bq_small_pair_columns(rows, t.cols, p.s, BQ_ATTEND_LD, p.columns[0], BQ_ATTEND_LD),
                s = p.columns[0];
            bq_small_pair_columns(rows, t.cols, p.dp, BQ_ATTEND_LD, p.columns[1], BQ_ATTEND_LD),
                ds = p.columns[1];
        }
        bq_attend_gather(j, t, 1, s, dout_columns, vd, dv, to.ldv);
        bq_attend_gather(j, t, scale, ds, q_columns, hd, dk, to.ldk);
        bq_attend_weigh(j, t, scale, bq_attend_rows(j, rows, t.cols, p.dp, BQ_ATTEND_LD, p.rows),
                        bq_attend_keys(j, j->kp, key, kv), hd, key > first, dq, j->dq.ld);
    }
}

static void differentiate_run(const bq_attend *j, int64_t kv, int64_t first, int64_t end, float *work,
                              sums to) {
    for (int64_t t = 0; t < to.rows; t++) {
        memset(to.dk + t * to.ldk, 0, (size_t)j->a.head_dim * sizeof *to.dk);
        memset(to.dv + t * to.ldv, 0, (size_t)j->vd * sizeof *to.dv);
    }
    for (int64_t h = kv * j->group; h < (kv + 1) * j->group; h++)
        for (int64_t i = first; i < end; i++) differentiate(j, h, i, work, to);
}

/* Row t of a kv head: the sum over the runs that have it, in order. */
static void add_runs(const runs *r, bq_mat part, int64_t t, int64_t kv, int64_t hd, int64_t vd, float *dk,
                     float *dv) {
    bool any = false;
    for (int n = 0; n < r->count; n++) {
        int64_t at = t - r->row[n];
        if (at < 0 || at >= r->rows[n]) continue;
        float *from = bq_mat_at(part, kv * r->before[r->count] + r->before[n] + at, 0);
        if (any)
            bq_vec()->add(hd, from, dk), bq_vec()->add(vd, from + hd, dv);
        else
            memcpy(dk, from, (size_t)hd * sizeof *dk), memcpy(dv, from + hd, (size_t)vd * sizeof *dv);
        any = true;
    }
}

static bq_mat push_part(bq_arena *mem, const bq_attend *j, const runs *r) {
    return bq_arena_push(mem, r->count > 1 ? j->a.kv_heads * r->before[r->count] : 0, j->a.head_dim + j->vd,
                         BQ_F32);
}

void bq_cpu_attention_bwd(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                          bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv) {
    bq_attend j = check(dev, a, q, k, v, out, lse);
    BQ_WANT(dev, q.rows, q.cols, dq);
    BQ_WANT(dev, k.rows, k.cols, dk);
    BQ_WANT(dev, out.rows, out.cols, dout);
    BQ_WANT(dev, v.rows, v.cols, dv);
    BQ_CHECK(most(most(dout.ld, dq.ld), most(dk.ld, dv.ld)) <= INT32_MAX, "attention: an ld beyond the BLAS");
    j.dout = dout, j.dq = dq;
    runs r = cut(&j);
    int64_t hd = a.head_dim, vd = j.vd, all = r.before[r.count];
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat work = push_work(&dev->mem, &j), part = push_part(&dev->mem, &j, &r);
    j.kt = push_transposed(&dev->mem, &j, hd), j.vt = push_transposed(&dev->mem, &j, vd);
    j.kp = bq_attend_paired(&j, k, push_paired(&dev->mem, &j, hd));
    bq_attend_transpose(&j, k, j.kt), bq_attend_transpose(&j, v, j.vt);
#pragma omp parallel for schedule(dynamic) num_threads(workers())
    for (int64_t n = 0; n < a.kv_heads * r.count; n++) {
        int64_t kv = n % a.kv_heads, run = n / a.kv_heads;
        sums to = {head(dk, 0, kv, hd), head(dv, 0, kv, vd), dk.ld, dv.ld, 0, j.tokens};
        if (r.count > 1) { /* a single run adds to dk and dv themselves */
            float *at = bq_mat_at(part, kv * all + r.before[run], 0);
            to = (sums){at, at + hd, hd + vd, hd + vd, r.row[run], r.rows[run]};
        }
        differentiate_run(&j, kv, r.first[run], r.first[run + 1], bq_mat_at(work, omp_get_thread_num(), 0),
                          to);
    }
    if (r.count > 1) {
#pragma omp parallel for schedule(static)
        for (int64_t t = 0; t < j.tokens; t++)
            for (int64_t kv = 0; kv < a.kv_heads; kv++)
                add_runs(&r, part, t, kv, hd, vd, head(dk, t, kv, hd), head(dv, t, kv, vd));
    }
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_cpu_attention_scratch(int64_t tokens, bq_attention a) {
    bq_attend j = bq_attend_of(BQ_COMPUTE_F32, a, tokens); /* the room is the same for every compute */
    runs r = cut(&j);
    return bq_arena_need(WORKERS, bq_attend_numbers(&j), BQ_F32) +
           bq_arena_need(r.count > 1 ? a.kv_heads * r.before[r.count] : 0, a.head_dim + j.vd, BQ_F32) +
           bq_arena_need(j.own ? (tokens + 1) / 2 : 0, a.kv_heads * a.head_dim, BQ_F32) +
           bq_arena_need(a.kv_heads * pieces(tokens, BQ_ATTEND_BLOCK), a.head_dim * BQ_ATTEND_BLOCK, BQ_F32) +
           bq_arena_need(a.kv_heads * pieces(tokens, BQ_ATTEND_BLOCK), j.vd * BQ_ATTEND_BLOCK, BQ_F32);
}
