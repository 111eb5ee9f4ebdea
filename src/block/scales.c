#include "block/scales.h"

#include "block/capture.h"
#include "comm/treesum.h"

#include <math.h>

enum { LOSSES = BQ_MATS * BQ_CANDIDATES };

typedef struct {
    bq_pass_context *c;
    const bq_scales_options *o;
    bq_mat act[BQ_MATS], weight[BQ_MATS]; /* statistics, (1, cols) */
    bq_mat scale, have, want;             /* flat room: one scale, two outputs */
    bq_treesum sum;                       /* (LOSSES, 1) */
} search;

static bool searched(const search *t, int m) {
    bool grouped = bq_fusion_of(t->c->q->arch, m).repeat > 1;
    return t->o->inspect[m] != BQ_INSPECT_OFF && !(grouped && t->o->gqa == BQ_GQA_SKIP);
}

static bq_mat scale_of(search *t, int m, int candidate) {
    bq_mat s = bq_mat_cols(t->scale, 0, t->act[m].cols);
    s.ld = s.cols;
    t->c->dev->op->smooth_scale(t->c->dev, t->o->form[candidate], t->act[m], t->weight[m], s);
    return s;
}

/* Columns of the output that matrix m is judged by. */
static int64_t width(const bq_arch *arch, int m, bq_inspect how) {
    return how == BQ_INSPECT_SELF ? arch->rows[m] : arch->model.hidden;
}

/* That output with matrices w, from what the forward of this sample has left.  It may overwrite what lies
 * behind matrix m, and with BQ_INSPECT_BLOCK what lies behind its module. */
static void inspect(search *t, int m, const bq_mat w[BQ_MATS], bq_mat x, bq_mat out) {
    bq_dev *dev = t->c->dev;
    bq_work *k = t->c->work;
    const bq_block *blk = t->c->blk;
    bq_inspect how = t->o->inspect[m];
    bool attention = m == BQ_QKV || m == BQ_O;
    if (how == BQ_INSPECT_SELF) {
        bq_block_linear(dev, blk, m, w, bq_capture_input(k, m), false, out);
        return;
    }
    if (m == BQ_QKV) bq_block_heads(dev, blk, w, k);
    if (m == BQ_GATE_UP) bq_block_gated(dev, blk, w, k);
    if (how == BQ_INSPECT_MODULE) {
        int last = attention ? BQ_O : BQ_DOWN;
        bq_block_linear(dev, blk, last, w, bq_capture_input(k, last), false, out);
    } else if (attention) {
        bq_block_rest(dev, blk, w, k, x, out);
    } else {
        dev->op->copy(dev, k->m, out);
        bq_block_linear(dev, blk, BQ_DOWN, w, k->z, true, out);
    }
}

/* Matrix m as candidate scales would have it quantized, in q->what. */
static void quantized(search *t, int m, bq_mat s) {
    bq_quantized *q = t->c->q;
    for (int i = 0; i < q->arch->linears; i++)
        if (q->arch->linear[i].mat == m)
            t->c->dev->op->smooth_weights(t->c->dev, bq_linear_view(q->arch, i, t->c->blk->w), s,
                                          q->scheme[i], bq_linear_view(q->arch, i, q->what));
}

static bq_mat output_in(bq_mat room, int64_t rows, int64_t cols) {
    room.rows = rows, room.cols = room.ld = cols;
    return room;
}

static void try_all(search *t, int m, bq_mat x, double loss[BQ_CANDIDATES]) {
    bq_pass_context *c = t->c;
    const bq_arch *arch = c->q->arch;
    int64_t cols = width(arch, m, t->o->inspect[m]);
    bq_mat want = output_in(t->want, c->tokens, cols), have = output_in(t->have, c->tokens, cols), w[BQ_MATS];
    for (int i = 0; i < BQ_MATS; i++) w[i] = c->blk->w[i];
    inspect(t, m, w, x, want);
    w[m] = c->q->what[m];
    for (int k = 0; k < t->o->candidates; k++) {
        bq_mat s = scale_of(t, m, k);
        if (t->o->gqa == BQ_GQA_GROUP) bq_fold_group(c->dev, arch, m, s);
        quantized(t, m, s);
        inspect(t, m, w, x, have);
        c->dev->op->distance(c->dev, have, want, t->o->loss, &loss[k]);
    }
}

static void visit(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    static const int order[BQ_MATS] = {BQ_O, BQ_DOWN, BQ_GATE_UP,
                                       BQ_QKV}; /* none needs what one before overwrites */
    search *t = ctx;
    bq_pass_context *c = t->c;
    double loss[BQ_MATS][BQ_CANDIDATES] = {{0}};
    float leaf[LOSSES];
    bool whole = true; /* the workspace is as the forward left it */
    for (int i = 0; i < BQ_MATS; i++) {
        int m = order[i];
        if (!searched(t, m)) continue;
        if (!whole) bq_block_forward(c->dev, c->blk, c->blk->w, c->work, x, y);
        try_all(t, m, x, loss[m]);
        whole = t->o->inspect[m] != BQ_INSPECT_BLOCK;
    }
    c->dev->op->wait(c->dev);
    for (int m = 0; m < BQ_MATS; m++)
        for (int k = 0; k < BQ_CANDIDATES; k++) leaf[m * BQ_CANDIDATES + k] = (float)loss[m][k];
    c->dev->op->put(c->dev, bq_mat_host(leaf, LOSSES, 1, BQ_F32), bq_treesum_next(&t->sum));
    c->dev->op->wait(c->dev);
    bq_treesum_add(&t->sum, sample);
}

static void total(search *t, bq_scales_result *result) {
    bq_pass_context *c = t->c;
    bq_shard leaves[BQ_REPLICAS], own = bq_shard_of(LOSSES, c->comm->replica, c->comm->nreplica);
    float host[LOSSES];
    for (int r = 0; r < c->comm->nreplica; r++) leaves[r] = bq_shard_of(c->samples, r, c->comm->nreplica);
    bq_mat all = bq_arena_push(&c->dev->mem, LOSSES, 1, BQ_F32);
    c->dev->op->copy(c->dev, bq_treesum_end(&t->sum, c->comm, leaves, own),
                     bq_mat_rows(all, own.first, own.count));
    bq_comm_gather_rows(c->comm, c->dev, all);
    c->dev->op->get(c->dev, all, bq_mat_host(host, LOSSES, 1, BQ_F32));
    c->dev->op->wait(c->dev);
    double rows = (double)c->samples * (double)c->tokens;
    for (int m = 0; m < BQ_MATS; m++) {
        double cols = (double)width(c->q->arch, m, t->o->inspect[m]);
        result->best[m] = -1;
        for (int k = 0; k < BQ_CANDIDATES; k++) {
            double loss = result->loss[m][k] = (double)host[m * BQ_CANDIDATES + k] / (rows * cols);
            bool first = result->best[m] < 0;
            if (!searched(t, m) || k >= t->o->candidates || !isfinite(loss)) continue;
            if (first || loss < result->loss[m][result->best[m]]) result->best[m] = k;
        }
    }
}

static void open_search(search *t) {
    bq_pass_context *c = t->c;
    bq_arena *mem = &c->dev->mem;
    const bq_arch *arch = c->q->arch;
    int64_t cols = 0, out = 0;
    bq_channels_push(c->dev, arch, t->act);
    bq_channels_push(c->dev, arch, t->weight);
    for (int m = 0; m < BQ_MATS; m++) {
        cols = arch->cols[m] > cols ? arch->cols[m] : cols;
        out = arch->rows[m] > out ? arch->rows[m] : out;
    }
    t->scale = bq_arena_push(mem, 1, cols, BQ_F32);
    t->have = bq_arena_push(mem, c->tokens, out, BQ_F32);
    t->want = bq_arena_push(mem, c->tokens, out, BQ_F32);
    bq_shard mine = bq_shard_of(c->samples, c->comm->replica, c->comm->nreplica);
    int room = bq_treesum_buffers(mine.first, mine.count);
    bq_treesum_open(&t->sum, c->dev, room > 1 ? room : 1, bq_arena_push(mem, LOSSES, 1, BQ_F32));
}

void bq_scales_search(bq_pass_context *c, const bq_scales_options *o, bq_scales_result *result) {
    size_t mark = bq_arena_mark(&c->dev->mem);
    search t = {.c = c, .o = o};
    open_search(&t);
    bq_channels(c, o->statistic, t.act);
    for (int m = 0; m < BQ_MATS; m++) bq_channels_weight(c, m, true, t.weight[m]);
    bq_capture(c, BQ_STREAM_FP, c->blk->w, visit, &t);
    total(&t, result);
    for (int m = 0; m < BQ_MATS; m++) {
        if (result->best[m] < 0) continue;
        bq_mat s = scale_of(&t, m, result->best[m]);
        bq_fold_group(c->dev, c->q->arch, m, s);
        bq_fold_apply(c->dev, c->blk, m, s);
    }
    bq_arena_reset(&c->dev->mem, mark);
}

size_t bq_scales_need(const bq_arch *arch, int64_t tokens, int64_t samples, int replica, int nreplica) {
    bq_shard leaves[BQ_REPLICAS];
    int64_t cols = 0, out = 0;
    for (int m = 0; m < BQ_MATS; m++) {
        cols = arch->cols[m] > cols ? arch->cols[m] : cols;
        out = arch->rows[m] > out ? arch->rows[m] : out;
    }
    for (int r = 0; r < nreplica; r++) leaves[r] = bq_shard_of(samples, r, nreplica);
    int room = bq_treesum_buffers(leaves[replica].first, leaves[replica].count);
    size_t sum = 2 * bq_channels_size(arch) + bq_arena_need(1, cols, BQ_F32);
    sum += 2 * bq_arena_need(tokens, out, BQ_F32) + bq_fold_need(arch);
    sum += (size_t)(room > 1 ? room + 1 : 2) * bq_arena_need(LOSSES, 1, BQ_F32);
    sum += bq_treesum_exchange(replica, nreplica, leaves, LOSSES, 1);
    return sum + bq_channels_need(arch, tokens, samples, replica, nreplica);
}
