/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/gram.h"

#include "block/common/capture.h"
#include "comm/treesum.h"

typedef struct {
    bq_pass_context *c;
    bq_gram_set set;
    bq_treesum sum[2][BQ_SITES]; /* of h; of cross */
    bq_mat input[BQ_SITES];      /* (T, K), for cross: the inputs in the pass's stream */
    bq_mat part;                 /* for sums in f64: room for the f32 product of a sample */
} collector;

static bool wanted(const bq_arch *arch, bq_gram_set set, int kind, int m) {
    return kind ? bq_gram_crosses(arch, set, m) : bq_gram_has(set, m);
}

/* The most columns of a site of the set. */
static int64_t widest(const bq_arch *arch, bq_gram_set set) {
    int64_t most = 0;
    for (int m = set.first; m < set.first + set.sites; m++)
        if (arch->site[m].cols > most) most = arch->site[m].cols;
    return most;
}

void bq_gram_push(bq_gram *g, const bq_arch *arch, bq_gram_set set, bq_arena *mem) {
    *g = (bq_gram){0};
    for (int m = set.first; m < set.first + set.sites; m++) {
        int64_t k = arch->site[m].cols;
        g->h[m] = bq_arena_push(mem, k, k, set.type);
        if (bq_gram_crosses(arch, set, m)) g->cross[m] = bq_arena_push(mem, k, k, set.type);
    }
}

size_t bq_gram_need(const bq_arch *arch, bq_gram_set set) {
    size_t sum = 0;
    for (int m = set.first; m < set.first + set.sites; m++)
        sum += (size_t)(1 + bq_gram_crosses(arch, set, m)) *
               bq_arena_need(arch->site[m].cols, arch->site[m].cols, set.type);
    return sum;
}

static void all_leaves(int64_t samples, int nreplica, bq_shard *out) {
    for (int r = 0; r < nreplica; r++) out[r] = bq_shard_of(samples, r, nreplica);
}

static int buffers(int64_t samples, int replica, int nreplica) {
    bq_shard mine = bq_shard_of(samples, replica, nreplica);
    return bq_treesum_buffers(mine.first, mine.count);
}

size_t bq_gram_collect_need(const bq_arch *arch, bq_gram_set set, int64_t tokens, int64_t samples,
                            int replica, int nreplica) {
    bq_shard leaves[BQ_REPLICAS];
    size_t sum = 0, during = 0, after = 0;
    int64_t most = widest(arch, set);
    if (set.type == BQ_F64) during += bq_arena_need(most, most, BQ_F32);
    all_leaves(samples, nreplica, leaves);
    for (int m = set.first; m < set.first + set.sites; m++) {
        int64_t k = arch->site[m].cols;
        for (int kind = 0; kind < 2; kind++) {
            if (!wanted(arch, set, kind, m)) continue;
            sum += (size_t)(buffers(samples, replica, nreplica) - 1) * bq_arena_need(k, k, set.type);
            size_t exchange =
                nreplica > 1 ? bq_treesum_exchange(replica, nreplica, leaves, k, k, set.type) : 0;
            after = exchange > after ? exchange : after;
        }
        if (bq_gram_crosses(arch, set, m)) during += bq_arena_need(tokens, k, BQ_F32);
    }
    return sum + (during > after ? during : after);
}

/* Where the product of a sample is to be written; `add` then takes it into the sum. */
static bq_mat part_of(const collector *a, bq_treesum *sum) {
    bq_mat next = bq_treesum_next(sum), part = a->part;
    part.rows = part.cols = part.ld = next.rows;
    return a->set.type == BQ_F64 ? part : next;
}

static void add(collector *a, bq_treesum *sum, bq_mat part, int64_t sample) {
    bq_dev *dev = a->c->dev;
    if (a->set.type == BQ_F64) {
        dev->op->zero(dev, bq_treesum_next(sum));
        dev->op->add(dev, part, bq_treesum_next(sum));
    }
    bq_treesum_add(sum, sample);
}

/* Add (x_fp - x)^T x of a sample.  x, of the pass's stream, is in a->input; the argument x is room for the
 * block's input. */
static void add_cross(collector *a, int64_t sample, bq_mat x) {
    bq_pass_context *c = a->c;
    const bq_ops *op = c->dev->op;
    const bq_arch *arch = c->blk->arch;
    int last = a->set.first + a->set.sites - 1;
    while (!bq_gram_crosses(arch, a->set, last)) last--;
    op->put(c->dev, c->fetch(c->ctx, BQ_STREAM_FP, sample), x);
    bq_block_parts(c->dev, c->blk, c->blk->w, c->work, 0, last, x, (bq_mat){0});
    for (int m = a->set.first; m <= last; m++) {
        if (!bq_gram_crosses(arch, a->set, m)) continue;
        bq_mat fp = bq_block_input(arch, c->work, m), to = part_of(a, &a->sum[1][m]);
        op->scale(c->dev, fp, -1, fp);
        op->add(c->dev, a->input[m], fp);
        op->gemm(c->dev, true, false, -1, fp, a->input[m], 0, to);
        add(a, &a->sum[1][m], to, sample);
    }
}

static void take(collector *a, int m, int64_t sample, bq_mat in) {
    bq_dev *dev = a->c->dev;
    bq_mat to = part_of(a, &a->sum[0][m]);
    dev->op->gram(dev, in, to);
    add(a, &a->sum[0][m], to, sample);
    if (a->input[m].data) dev->op->copy(dev, in, a->input[m]);
}

/* Is there a cross in the set? */
static bool crosses(const collector *a) {
    bool any = false;
    for (int m = a->set.first; m < a->set.first + a->set.sites; m++) any |= a->input[m].data != NULL;
    return any;
}

/* add_cross may overwrite x: it is not read again. */
static void visit(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    collector *a = ctx;
    (void)y;
    for (int m = a->set.first; m < a->set.first + a->set.sites; m++)
        take(a, m, sample, bq_block_input(a->c->blk->arch, a->c->work, m));
    if (crosses(a)) add_cross(a, sample, x);
}

static void visit_midway(void *ctx, int64_t sample, bq_mat x, bq_mat in) {
    collector *a = ctx;
    take(a, a->set.first, sample, in);
    if (crosses(a)) add_cross(a, sample, x);
}

/* Replace my part of the sum by the sum over all replicas. */
static void finish(bq_pass_context *c, bq_treesum *sum, bq_mat to) {
    bq_dev *dev = c->dev;
    bq_shard leaves[BQ_REPLICAS], rows = bq_shard_of(to.rows, c->comm->replica, c->comm->nreplica);
    size_t mark = bq_arena_mark(&dev->mem);
    all_leaves(c->samples, c->comm->nreplica, leaves);
    bq_mat total = bq_treesum_end(sum, c->comm, leaves, rows);
    bq_mat mine = bq_mat_rows(to, rows.first, rows.count);
    total.rows = rows.count; /* without other replicas it is the whole matrix */
    if (total.data != mine.data && rows.count) dev->op->copy(dev, total, mine);
    bq_arena_reset(&dev->mem, mark);
    bq_comm_gather_rows(c->comm, dev, to);
}

/* way: the walk that goes on to the only site of the set; NULL: one forward for all its sites. */
static void collect(collector *a, bq_midway *way, const bq_mat *w, bq_gram *g) {
    bq_pass_context *c = a->c;
    bq_gram_set set = a->set;
    bq_arena *mem = &c->dev->mem;
    size_t mark = bq_arena_mark(mem);
    int room = buffers(c->samples, c->comm->replica, c->comm->nreplica), end = set.first + set.sites;
    for (int m = set.first; m < end; m++) {
        bq_treesum_open(&a->sum[0][m], c->dev, room, g->h[m]);
        if (g->cross[m].data) bq_treesum_open(&a->sum[1][m], c->dev, room, g->cross[m]);
    }
    size_t sums = bq_arena_mark(mem);
    int64_t most = widest(c->q->arch, set);
    if (set.type == BQ_F64) a->part = bq_arena_push(mem, most, most, BQ_F32);
    for (int m = set.first; m < end; m++)
        if (g->cross[m].data) a->input[m] = bq_arena_push(mem, c->tokens, g->h[m].cols, BQ_F32);
    if (way)
        bq_midway_to(way, set.first, w, visit_midway, a);
    else
        bq_capture(c, bq_capture_stream(c->input), bq_every, w, false, visit, a);
    bq_arena_reset(mem, sums);
    for (int m = set.first; m < end; m++) {
        finish(c, &a->sum[0][m], g->h[m]);
        if (g->cross[m].data) finish(c, &a->sum[1][m], g->cross[m]);
    }
    bq_arena_reset(mem, mark);
}

void bq_gram_collect(bq_pass_context *c, const bq_mat *w, bq_gram_set set, bq_gram *g) {
    collect(&(collector){.c = c, .set = set}, NULL, w, g);
}

void bq_gram_collect_midway(bq_midway *way, const bq_mat *w, bq_gram_set set, bq_gram *g) {
    collect(&(collector){.c = way->c, .set = set}, way, w, g);
}
