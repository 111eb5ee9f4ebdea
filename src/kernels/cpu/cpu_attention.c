/* Attention by tiles of queries x keys: scores of a tile by one BLAS call, softmax by vectors, then BLAS
 * again.
 *
 * Forward: one task is a query tile of one head; keys pass by with a running maximum and sum.  Backward: one
 * task is a key/value head and a run of query tiles; it owns its rows of dq and adds dk and dv into a buffer
 * of its own, and the buffers are added in order at the end.  Runs depend on the shape alone, so sums have
 * one order for any number of threads. */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/vec.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#define TILE  128 /* queries and keys a side; a pair of tiles stays in the second level cache */
#define TASKS 32  /* backward tasks to aim for: keeps 16 threads busy without many buffers to add */

typedef struct {
    bq_attention a;
    int64_t tokens, tiles, group; /* group: query heads that share a kv head */
    bq_mat q, k, v, out, lse, dout, dq;
} job;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static float *head(bq_mat m, int64_t row, int64_t h, int64_t hd) {
    return (float *)bq_mat_at(m, row, h * hd);
}

static void multiply(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                     int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)m, (int)n,
                (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

static void want(bq_mat m, int64_t rows, int64_t cols, const char *what) {
    BQ_CHECK(m.rows == rows && m.cols == cols && m.type == BQ_F32 && m.ld >= cols && m.ld < 1l << 31,
             "attention: %s is %ld x %ld %s, not %ld x %ld F32", what, (long)m.rows, (long)m.cols,
             bq_type_name(m.type), (long)rows, (long)cols);
}

static job check(bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse) {
    int64_t t = q.rows;
    BQ_CHECK(a.kv_heads > 0 && a.heads % a.kv_heads == 0 && a.head_dim > 0 && a.window >= 0,
             "attention: %ld heads, %ld kv heads of %ld, window %ld", (long)a.heads, (long)a.kv_heads,
             (long)a.head_dim, (long)a.window);
    want(q, t, a.heads * a.head_dim, "q"), want(out, t, a.heads * a.head_dim, "out");
    want(k, t, a.kv_heads * a.head_dim, "k"), want(v, t, a.kv_heads * a.head_dim, "v");
    want(lse, a.heads, t, "lse");
    return (job){.a = a,
                 .tokens = t,
                 .tiles = (t + TILE - 1) / TILE,
                 .group = a.heads / a.kv_heads,
                 .q = q,
                 .k = k,
                 .v = v,
                 .out = out,
                 .lse = lse};
}

/* The first key tile that query tile i sees; the last one is i itself. */
static int64_t first_key(int64_t window, int64_t i) {
    return window > 0 ? most(0, i * TILE - window + 1) / TILE : 0;
}

static bq_tile tile_at(const job *j, int64_t i, int64_t key) {
    return (bq_tile){.rows = least(TILE, j->tokens - i * TILE),
                     .cols = least(TILE, j->tokens - key * TILE),
                     .ld = TILE,
                     .shift = (i - key) * TILE,
                     .window = j->a.window};
}

/* ---- forward ---- */

/* work: TILE x TILE scores, then maxima and sums of the rows. */
static void attend(const job *j, int64_t h, int64_t i, float *work) {
    int64_t hd = j->a.head_dim, kv = h / j->group, row = i * TILE, rows = least(TILE, j->tokens - row);
    float *s = work, *max = work + TILE * TILE, *sum = max + TILE, *out = head(j->out, row, h, hd);
    for (int64_t r = 0; r < rows; r++) max[r] = -INFINITY, sum[r] = 0;
    int64_t first = first_key(j->a.window, i);
    for (int64_t key = first; key <= i; key++) {
        bq_tile t = tile_at(j, i, key);
        multiply(false, true, rows, t.cols, hd, j->a.scale, head(j->q, row, h, hd), j->q.ld,
                 head(j->k, key * TILE, kv, hd), j->k.ld, 0, s, TILE);
        bq_vec()->softmax_tile(t, s, max, sum, key > first ? hd : 0, j->out.ld, out);
        multiply(false, false, rows, hd, t.cols, 1, s, TILE, head(j->v, key * TILE, kv, hd), j->v.ld,
                 key > first ? 1 : 0, out, j->out.ld);
    }
    float *lse = bq_mat_at(j->lse, h, row);
    for (int64_t r = 0; r < rows; r++) {
        bq_vec()->times(hd, 1.0f / sum[r], out + r * j->out.ld, out + r * j->out.ld);
        lse[r] = (float)((double)max[r] + log((double)sum[r]));
    }
}

static bq_mat push_work(bq_arena *mem, int64_t numbers) {
    return bq_arena_push(mem, omp_get_max_threads(), numbers, BQ_F32);
}

#define FORWARD_WORK  (TILE * TILE + 2 * TILE)
#define BACKWARD_WORK (2 * TILE * TILE + TILE)

void bq_cpu_attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse) {
    job j = check(a, q, k, v, out, lse);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat work = push_work(&dev->mem, FORWARD_WORK);
#pragma omp parallel for schedule(dynamic) num_threads((int)work.rows)
    for (int64_t n = 0; n < a.heads * j.tiles; n++) /* long rows first: short ones fill the end */
        attend(&j, n % a.heads, j.tiles - 1 - n / a.heads, bq_mat_at(work, omp_get_thread_num(), 0));
    bq_arena_reset(&dev->mem, mark);
}

/* ---- backward ---- */

/* How the query tiles are cut into runs of about equal work (a tile's work grows with its index), and the
 * rows of dk and dv that each run adds to. */
typedef struct {
    int count;
    int64_t first[TASKS + 1];        /* query tiles [first[r], first[r + 1]) */
    int64_t row[TASKS], rows[TASKS]; /* keys */
    int64_t before[TASKS + 1];       /* rows of the runs before */
} runs;

static runs cut(bq_attention a, int64_t tokens) {
    int64_t tiles = (tokens + TILE - 1) / TILE;
    runs r = {.count = (int)most(1, least(tiles, (TASKS + a.kv_heads - 1) / a.kv_heads))};
    for (int n = 0; n <= r.count; n++) {
        double share = (double)n / r.count;
        r.first[n] = (int64_t)((double)tiles * (a.window > 0 ? share : sqrt(share)) + 0.5);
    }
    for (int n = 0; n < r.count; n++) {
        r.row[n] = r.first[n] < r.first[n + 1] ? first_key(a.window, r.first[n]) * TILE : 0;
        r.rows[n] = r.first[n] < r.first[n + 1] ? least(r.first[n + 1] * TILE, tokens) - r.row[n] : 0;
        r.before[n + 1] = r.before[n] + r.rows[n];
    }
    return r;
}

/* Where a run's dk and dv of its kv head grow; the first row is that of key `row`. */
typedef struct {
    float *dk, *dv;
    int64_t ldk, ldv, row;
} sums;

/* One head and query tile of a run: scores, probabilities and their gradients, key tile by key tile.  Key
 * tiles from `fresh` on have not been added to yet. */
static void differentiate(const job *j, int64_t h, int64_t i, int64_t fresh, float *work, sums to) {
    int64_t hd = j->a.head_dim, kv = h / j->group, row = i * TILE, rows = least(TILE, j->tokens - row);
    float *s = work, *dp = s + TILE * TILE, *d = dp + TILE * TILE, *dq = head(j->dq, row, h, hd);
    const float *q = head(j->q, row, h, hd), *dout = head(j->dout, row, h, hd),
                *out = head(j->out, row, h, hd);
    for (int64_t r = 0; r < rows; r++) d[r] = bq_vec()->dot(hd, dout + r * j->dout.ld, out + r * j->out.ld);
    int64_t first = first_key(j->a.window, i);
    for (int64_t key = first; key <= i; key++) {
        bq_tile t = tile_at(j, i, key);
        int64_t at = key * TILE - to.row;
        const float *k = head(j->k, key * TILE, kv, hd), *v = head(j->v, key * TILE, kv, hd);
        float old = key < fresh ? 1 : 0, scale = j->a.scale;
        multiply(false, true, rows, t.cols, hd, scale, q, j->q.ld, k, j->k.ld, 0, s, TILE);
        multiply(false, true, rows, t.cols, hd, 1, dout, j->dout.ld, v, j->v.ld, 0, dp, TILE);
        bq_vec()->softmax_bwd(t, bq_mat_at(j->lse, h, row), d, s, dp);
        multiply(true, false, t.cols, hd, rows, 1, s, TILE, dout, j->dout.ld, old, to.dv + at * to.ldv,
                 to.ldv);
        multiply(true, false, t.cols, hd, rows, scale, dp, TILE, q, j->q.ld, old, to.dk + at * to.ldk,
                 to.ldk);
        multiply(false, false, rows, hd, t.cols, scale, dp, TILE, k, j->k.ld, key > first ? 1 : 0, dq,
                 j->dq.ld);
    }
}

static void differentiate_run(const job *j, int64_t kv, int64_t first, int64_t end, float *work, sums to) {
    for (int64_t h = kv * j->group; h < (kv + 1) * j->group; h++)
        for (int64_t i = first; i < end; i++) {
            int64_t fresh = h > kv * j->group ? j->tiles : i > first ? i : 0;
            differentiate(j, h, i, fresh, work, to);
        }
}

/* Row t of a kv head = sum over the runs that hold it, in order. */
static void add_runs(const runs *r, bq_mat part, int64_t t, int64_t kv, int64_t hd, float *dk, float *dv) {
    bool any = false;
    for (int n = 0; n < r->count; n++) {
        int64_t at = t - r->row[n];
        if (at < 0 || at >= r->rows[n]) continue;
        float *from = bq_mat_at(part, kv * r->before[r->count] + r->before[n] + at, 0);
        if (any)
            bq_vec()->add(hd, from, dk), bq_vec()->add(hd, from + hd, dv);
        else
            memcpy(dk, from, (size_t)hd * sizeof *dk), memcpy(dv, from + hd, (size_t)hd * sizeof *dv);
        any = true;
    }
}

static bq_mat push_part(bq_arena *mem, bq_attention a, const runs *r) {
    return bq_arena_push(mem, r->count > 1 ? a.kv_heads * r->before[r->count] : 0, 2 * a.head_dim, BQ_F32);
}

void bq_cpu_attention_bwd(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                          bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv) {
    job j = check(a, q, k, v, out, lse);
    want(dout, q.rows, q.cols, "dout"), want(dq, q.rows, q.cols, "dq");
    want(dk, k.rows, k.cols, "dk"), want(dv, k.rows, k.cols, "dv");
    j.dout = dout, j.dq = dq;
    runs r = cut(a, j.tokens);
    int64_t hd = a.head_dim, all = r.before[r.count];
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat work = push_work(&dev->mem, BACKWARD_WORK), part = push_part(&dev->mem, a, &r);
#pragma omp parallel for schedule(dynamic) num_threads((int)work.rows)
    for (int64_t n = 0; n < a.kv_heads * r.count; n++) {
        int64_t kv = n % a.kv_heads, run = n / a.kv_heads;
        sums to = {head(dk, 0, kv, hd), head(dv, 0, kv, hd), dk.ld, dv.ld,
                   0}; /* a single run needs no buffer */
        if (r.count > 1) {
            float *at = bq_mat_at(part, kv * all + r.before[run], 0);
            to = (sums){at, at + hd, 2 * hd, 2 * hd, r.row[run]};
        }
        differentiate_run(&j, kv, r.first[run], r.first[run + 1], bq_mat_at(work, omp_get_thread_num(), 0),
                          to);
    }
    if (r.count > 1) {
#pragma omp parallel for schedule(static)
        for (int64_t t = 0; t < j.tokens; t++)
            for (int64_t kv = 0; kv < a.kv_heads; kv++)
                add_runs(&r, part, t, kv, hd, head(dk, t, kv, hd), head(dv, t, kv, hd));
    }
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_cpu_attention_scratch(int64_t tokens, bq_attention a) {
    runs r = cut(a, tokens);
    return bq_arena_need(omp_get_max_threads(), BACKWARD_WORK, BQ_F32) +
           bq_arena_need(r.count > 1 ? a.kv_heads * r.before[r.count] : 0, 2 * a.head_dim, BQ_F32);
}
