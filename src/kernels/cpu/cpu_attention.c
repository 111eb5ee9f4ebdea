/* Attention by tiles of queries x keys: scores of a tile by BLAS, softmax by vectors, then BLAS again.
 *
 * A BLAS call of this size would spend its time packing, unless it is so small that OpenBLAS (AVX-512) has
 * kernels that do without: at most 10^6 multiplications, no transposed right operand, best in 64 columns.  So
 * tiles are that small, and keys (backward: values too) are transposed once before, in blocks of 64.
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

#define BLOCK   64      /* keys of a transposed block */
#define KEYS    128     /* keys of a tile */
#define QUERIES 160     /* at most, of a tile */
#define SMALL   1000000 /* multiplications of a call without packing */
#define WORKERS 64      /* threads at most */
#define TASKS   32      /* backward tasks to aim for: keeps 16 threads busy without many buffers to add */

typedef struct {
    bq_attention a;
    int64_t tokens, queries, tiles; /* queries of a tile; tiles of queries */
    int64_t group;                  /* query heads that share a kv head */
    bq_mat q, k, v, out, lse, dout, dq;
    bq_mat kt, vt; /* transposed: row kv * blocks + b is block b of that head, hd x BLOCK */
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

static int64_t queries_of(bq_attention a) {
    return most(16, least(QUERIES, SMALL / (KEYS * a.head_dim) / 8 * 8));
}

static int64_t pieces(int64_t n, int64_t length) { return (n + length - 1) / length; }

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
                 .queries = queries_of(a),
                 .tiles = pieces(t, queries_of(a)),
                 .group = a.heads / a.kv_heads,
                 .q = q,
                 .k = k,
                 .v = v,
                 .out = out,
                 .lse = lse};
}

/* The key tiles that query tile i sees. */
static int64_t first_key(const job *j, int64_t i) {
    return j->a.window > 0 ? most(0, i * j->queries - j->a.window + 1) / KEYS : 0;
}
static int64_t end_key(const job *j, int64_t i) {
    return pieces(least((i + 1) * j->queries, j->tokens), KEYS);
}

/* Columns end with the last key that the last row sees. */
static bq_tile tile_at(const job *j, int64_t i, int64_t key) {
    int64_t first = i * j->queries, rows = least(j->queries, j->tokens - first);
    return (bq_tile){.rows = rows,
                     .cols = least(KEYS, first + rows - key * KEYS),
                     .ld = KEYS,
                     .shift = first - key * KEYS,
                     .window = j->a.window};
}

/* ---- scratch: one slot a thread, always for WORKERS of them, so that a plan holds for any number ---- */

/* Two tiles of scores, two numbers a row. */
static int64_t work_numbers(const job *j) { return (2 * KEYS + 2) * least(j->queries, j->tokens); }

static bq_mat push_work(bq_arena *mem, const job *j) {
    return bq_arena_push(mem, WORKERS, work_numbers(j), BQ_F32);
}

static int workers(void) { return (int)least(omp_get_max_threads(), WORKERS); }

/* ---- transposed keys and values ---- */

static bq_mat push_transposed(bq_arena *mem, bq_attention a, int64_t tokens) {
    return bq_arena_push(mem, a.kv_heads * pieces(tokens, BLOCK), a.head_dim * BLOCK, BQ_F32);
}

static void transpose(bq_attention a, bq_mat m, bq_mat to) {
    int64_t blocks = pieces(m.rows, BLOCK), hd = a.head_dim;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a.kv_heads * blocks; n++) {
        int64_t first = n % blocks * BLOCK, rows = least(BLOCK, m.rows - first);
        float *block = bq_mat_at(to, n, 0);
        for (int64_t r = 0; r < rows; r++) {
            const float *from = head(m, first + r, n / blocks, hd);
            for (int64_t c = 0; c < hd; c++) block[c * BLOCK + r] = from[c];
        }
    }
}

/* to (rows x t.cols, ld KEYS) = alpha x (rows x hd) times the transposed keys of a tile */
static void score(const job *j, bq_tile t, float alpha, const float *x, int64_t ldx, bq_mat keys, int64_t kv,
                  int64_t key, float *to) {
    int64_t row = kv * pieces(j->tokens, BLOCK) + key * (KEYS / BLOCK);
    for (int64_t c = 0; c < t.cols; c += BLOCK)
        multiply(false, false, t.rows, least(BLOCK, t.cols - c), j->a.head_dim, alpha, x, ldx,
                 bq_mat_at(keys, row + c / BLOCK, 0), BLOCK, 0, to + c, KEYS);
}

/* ---- forward ---- */

/* work: scores of a tile, then maxima and sums of the rows. */
static void attend(const job *j, int64_t h, int64_t i, float *work) {
    int64_t hd = j->a.head_dim, kv = h / j->group, row = i * j->queries,
            rows = least(j->queries, j->tokens - row);
    float *s = work, *max = s + rows * KEYS, *sum = max + rows, *out = head(j->out, row, h, hd);
    for (int64_t r = 0; r < rows; r++) max[r] = -INFINITY, sum[r] = 0;
    int64_t first = first_key(j, i), end = end_key(j, i);
    for (int64_t key = first; key < end; key++) {
        bq_tile t = tile_at(j, i, key);
        score(j, t, j->a.scale, head(j->q, row, h, hd), j->q.ld, j->kt, kv, key, s);
        bq_vec()->softmax_tile(t, s, max, sum, key > first ? hd : 0, j->out.ld, out);
        multiply(false, false, rows, hd, t.cols, 1, s, KEYS, head(j->v, key * KEYS, kv, hd), j->v.ld,
                 key > first ? 1 : 0, out, j->out.ld);
    }
    float *lse = bq_mat_at(j->lse, h, row);
    for (int64_t r = 0; r < rows; r++) {
        bq_vec()->times(hd, 1.0f / sum[r], out + r * j->out.ld, out + r * j->out.ld);
        lse[r] = (float)((double)max[r] + log((double)sum[r]));
    }
}

void bq_cpu_attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse) {
    job j = check(a, q, k, v, out, lse);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat work = push_work(&dev->mem, &j);
    j.kt = push_transposed(&dev->mem, a, j.tokens);
    transpose(a, k, j.kt);
#pragma omp parallel for schedule(dynamic) num_threads(workers())
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

static runs cut(const job *j) {
    runs r = {.count = (int)most(1, least(j->tiles, pieces(TASKS, j->a.kv_heads)))};
    for (int n = 0; n <= r.count; n++) {
        double share = (double)n / r.count;
        r.first[n] = (int64_t)((double)j->tiles * (j->a.window > 0 ? share : sqrt(share)) + 0.5);
    }
    for (int n = 0; n < r.count; n++) {
        if (r.first[n] < r.first[n + 1]) {
            r.row[n] = first_key(j, r.first[n]) * KEYS;
            r.rows[n] = least(r.first[n + 1] * j->queries, j->tokens) - r.row[n];
        }
        r.before[n + 1] = r.before[n] + r.rows[n];
    }
    return r;
}

/* Where a run's dk and dv of its kv head grow; the first of `rows` rows is that of key `row`. */
typedef struct {
    float *dk, *dv;
    int64_t ldk, ldv, row, rows;
} sums;

/* One head and query tile of a run: scores, probabilities and their gradients, key tile by key tile. */
static void differentiate(const job *j, int64_t h, int64_t i, float *work, sums to) {
    int64_t hd = j->a.head_dim, kv = h / j->group, row = i * j->queries,
            rows = least(j->queries, j->tokens - row);
    float *s = work, *dp = s + rows * KEYS, *d = dp + rows * KEYS, *dq = head(j->dq, row, h, hd);
    const float *q = head(j->q, row, h, hd), *dout = head(j->dout, row, h, hd),
                *out = head(j->out, row, h, hd);
    for (int64_t r = 0; r < rows; r++) d[r] = bq_vec()->dot(hd, dout + r * j->dout.ld, out + r * j->out.ld);
    int64_t first = first_key(j, i), end = end_key(j, i);
    for (int64_t key = first; key < end; key++) {
        bq_tile t = tile_at(j, i, key);
        float scale = j->a.scale, *dk = to.dk + (key * KEYS - to.row) * to.ldk,
              *dv = to.dv + (key * KEYS - to.row) * to.ldv;
        score(j, t, scale, q, j->q.ld, j->kt, kv, key, s);
        score(j, t, 1, dout, j->dout.ld, j->vt, kv, key, dp);
        bq_vec()->softmax_bwd(t, bq_mat_at(j->lse, h, row), d, s, dp);
        multiply(true, false, t.cols, hd, rows, 1, s, KEYS, dout, j->dout.ld, 1, dv, to.ldv);
        multiply(true, false, t.cols, hd, rows, scale, dp, KEYS, q, j->q.ld, 1, dk, to.ldk);
        multiply(false, false, rows, hd, t.cols, scale, dp, KEYS, head(j->k, key * KEYS, kv, hd), j->k.ld,
                 key > first ? 1 : 0, dq, j->dq.ld);
    }
}

static void differentiate_run(const job *j, int64_t kv, int64_t first, int64_t end, float *work, sums to) {
    for (int64_t t = 0; t < to.rows; t++) {
        memset(to.dk + t * to.ldk, 0, (size_t)j->a.head_dim * sizeof *to.dk);
        memset(to.dv + t * to.ldv, 0, (size_t)j->a.head_dim * sizeof *to.dv);
    }
    for (int64_t h = kv * j->group; h < (kv + 1) * j->group; h++)
        for (int64_t i = first; i < end; i++) differentiate(j, h, i, work, to);
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
    runs r = cut(&j);
    int64_t hd = a.head_dim, all = r.before[r.count];
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat work = push_work(&dev->mem, &j), part = push_part(&dev->mem, a, &r);
    j.kt = push_transposed(&dev->mem, a, j.tokens), j.vt = push_transposed(&dev->mem, a, j.tokens);
    transpose(a, k, j.kt), transpose(a, v, j.vt);
#pragma omp parallel for schedule(dynamic) num_threads(workers())
    for (int64_t n = 0; n < a.kv_heads * r.count; n++) {
        int64_t kv = n % a.kv_heads, run = n / a.kv_heads;
        sums to = {head(dk, 0, kv, hd), head(dv, 0, kv, hd), dk.ld, dv.ld, 0, j.tokens};
        if (r.count > 1) { /* a single run needs no buffer */
            float *at = bq_mat_at(part, kv * all + r.before[run], 0);
            to = (sums){at, at + hd, 2 * hd, 2 * hd, r.row[run], r.rows[run]};
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
    job j = {.a = a, .tokens = tokens, .queries = queries_of(a), .tiles = pieces(tokens, queries_of(a))};
    runs r = cut(&j);
    return bq_arena_need(WORKERS, work_numbers(&j), BQ_F32) +
           bq_arena_need(r.count > 1 ? a.kv_heads * r.before[r.count] : 0, 2 * a.head_dim, BQ_F32) +
           2 * bq_arena_need(a.kv_heads * pieces(tokens, BLOCK), a.head_dim * BLOCK, BQ_F32);
}
