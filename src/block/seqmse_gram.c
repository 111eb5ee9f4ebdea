#include "block/seqmse_gram.h"

#include "block/capture.h"
#include "comm/treesum.h"

typedef struct {
    bq_pass_context *c;
    int m;
    bq_treesum sum;
} grams;

static void add(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    grams *g = ctx;
    (void)x, (void)y;
    bq_mat in = bq_capture_input(g->c->work, g->m);
    g->c->dev->op->gemm(g->c->dev, true, false, 1, in, in, 0, bq_treesum_next(&g->sum));
    bq_treesum_add(&g->sum, sample);
}

static int buffers(int64_t samples, int replica, int nreplica) {
    bq_shard s = bq_shard_of(samples, replica, nreplica);
    int n = bq_treesum_buffers(s.first, s.count);
    return n > 1 ? n : 1;
}

void bq_seqmse_gram(bq_pass_context *c, const bq_mat w[BQ_MATS], int m, bq_mat gram) {
    bq_arena *mem = &c->dev->mem;
    size_t mark = bq_arena_mark(mem);
    bq_shard leaves[BQ_REPLICAS], mine = bq_shard_of(gram.rows, c->comm->replica, c->comm->nreplica);
    for (int r = 0; r < c->comm->nreplica; r++) leaves[r] = bq_shard_of(c->samples, r, c->comm->nreplica);
    grams g = {.c = c, .m = m};
    bq_treesum_open(&g.sum, c->dev, buffers(c->samples, c->comm->replica, c->comm->nreplica),
                    bq_arena_push(mem, gram.rows, gram.cols, BQ_F32));
    bq_capture(c, bq_capture_stream(c->input), w, add, &g);
    bq_mat sum = bq_treesum_end(&g.sum, c->comm, leaves, mine);
    c->dev->op->copy(c->dev, sum, bq_mat_rows(gram, mine.first, mine.count));
    bq_comm_gather_rows(c->comm, c->dev, gram);
    bq_arena_reset(mem, mark);
}

size_t bq_seqmse_gram_need(const bq_arch *arch, int64_t tokens, int64_t samples, int m, int replica,
                           int nreplica) {
    bq_shard leaves[BQ_REPLICAS];
    int64_t cols = arch->cols[m];
    for (int r = 0; r < nreplica; r++) leaves[r] = bq_shard_of(samples, r, nreplica);
    size_t sums = (size_t)buffers(samples, replica, nreplica) * bq_arena_need(cols, cols, BQ_F32);
    size_t exchange = bq_treesum_exchange(replica, nreplica, leaves, cols, cols),
           capture = bq_capture_need(arch, tokens);
    return sums + (exchange > capture ? exchange : capture);
}
