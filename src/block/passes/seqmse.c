/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/search.h"

#include "block/common/gram.h"
#include "comm/heartbeat.h"
#include "comm/treesum.h"

/* Room for a slab of rows: the errors e, e H, the grids of a candidate, the least losses. */
typedef struct {
    bq_mat e, he, scale, zero, loss;
} room;

static room push_room(bq_arena *mem, int64_t rows, int64_t cols, int64_t groups, bool symmetric) {
    room r = {.e = bq_arena_push(mem, rows, cols, BQ_F32), .he = bq_arena_push(mem, rows, cols, BQ_F32)};
    r.scale = bq_arena_push(mem, rows * groups, 1, BQ_F32);
    if (!symmetric) r.zero = bq_arena_push(mem, rows * groups, 1, BQ_F32);
    r.loss = bq_arena_push(mem, rows * groups, 1, BQ_F64);
    return r;
}

static size_t room_need(int64_t rows, int64_t cols, int64_t groups, bool symmetric) {
    return 2 * bq_arena_need(rows, cols, BQ_F32) +
           (symmetric ? 1 : 2) * bq_arena_need(rows * groups, 1, BQ_F32) +
           bq_arena_need(rows * groups, 1, BQ_F64);
}

/* he = e H; with groups the columns of each group times its square on the diagonal of H. */
static void multiply(bq_dev *dev, bq_mat e, bq_mat gram, int64_t groups, bq_mat he) {
    int64_t group = e.cols / groups;
    for (int64_t g = 0; g < groups; g++)
        dev->op->gemm(dev, false, false, 1, bq_mat_cols(e, g * group, group),
                      bq_mat_cols(bq_mat_rows(gram, g * group, group), g * group, group), 0,
                      bq_mat_cols(he, g * group, group));
}

void bq_seqmse_slab(bq_dev *dev, bq_quantized *q, int i, int64_t first, int64_t count, int candidates,
                    bq_mat gram, bq_mat loss) {
    size_t mark = bq_arena_mark(&dev->mem);
    int64_t cols = q->arch->linear[i].cols, groups = bq_linear_groups(q->arch, q->scheme, i);
    bq_scheme s = q->scheme[i];
    room r = push_room(&dev->mem, count, cols, groups, s.symmetric);
    bq_mat w = bq_mat_rows(bq_linear_grouped(q->arch, q->scheme, i, q->fold), first * groups, count * groups);
    bq_mat best = bq_mat_rows(q->scale[i], first * groups, count * groups), best_zero = {0};
    if (!s.symmetric) best_zero = bq_mat_rows(q->zero[i], first * groups, count * groups);
    bq_mat e = bq_mat_reshape(r.e, w.cols), he = bq_mat_reshape(r.he, w.cols);
    for (int k = candidates; k > 0; k--) {
        dev->op->range_shrunk(dev, w, s, (float)k / (float)candidates, r.scale, r.zero, e);
        multiply(dev, r.e, gram, groups, r.he);
        dev->op->range_better(dev, k == candidates, e, he, r.scale, r.zero, r.loss, best, best_zero);
    }
    if (loss.data) dev->op->copy(dev, r.loss, loss);
    bq_arena_reset(&dev->mem, mark);
}

static int64_t slabs_of(int64_t rows) { return (rows + BQ_SEARCH_SLAB - 1) / BQ_SEARCH_SLAB; }

/* The first row of a slab; for the slab after the last, the number of rows. */
static int64_t row_of(int64_t slab, int64_t rows) {
    return slab * BQ_SEARCH_SLAB < rows ? slab * BQ_SEARCH_SLAB : rows;
}

/* Search the grids of my slabs of linear i, then give all replicas those of all. */
static void search(bq_pass_context *c, int i, int candidates, bq_mat gram) {
    bq_quantized *q = c->q;
    int64_t rows = q->arch->linear[i].rows, first[BQ_REPLICAS + 1];
    int64_t groups = bq_linear_groups(q->arch, q->scheme, i), slabs = slabs_of(rows);
    bq_shard mine = bq_shard_of(slabs, c->comm->replica, c->comm->nreplica);
    for (int64_t k = mine.first; k < mine.first + mine.count; k++) {
        bq_seqmse_slab(c->dev, q, i, row_of(k, rows), row_of(k + 1, rows) - row_of(k, rows), candidates, gram,
                       (bq_mat){0});
        bq_heartbeat();
    }
    for (int r = 0; r <= c->comm->nreplica; r++)
        first[r] =
            r < c->comm->nreplica ? row_of(bq_shard_of(slabs, r, c->comm->nreplica).first, rows) : rows;
    bq_comm_gather_slices(c->comm, c->dev, bq_mat_reshape(q->scale[i], groups), first);
    if (q->zero[i].data) bq_comm_gather_slices(c->comm, c->dev, bq_mat_reshape(q->zero[i], groups), first);
}

void bq_pass_seqmse(bq_pass_context *c, const bq_seqmse_options *o) {
    bq_quantized *q = c->q;
    const bq_ops *op = c->dev->op;
    for (int m = 0; m < q->arch->sites; m++) op->copy(c->dev, c->blk->w[m], q->fold[m]);
    bq_quantized_outer(c->dev, q);
    for (int m = 0; m < q->arch->sites; m++) op->copy(c->dev, c->blk->w[m], q->w_hat[m]);
    size_t start = bq_arena_mark(&c->dev->mem);
    bq_midway way;
    bq_midway_open(&way, c);
    for (int m = 0; m < q->arch->sites; m++) {
        size_t mark = bq_arena_mark(&c->dev->mem);
        const bq_site *site = &q->arch->site[m];
        bq_gram_set one = {.first = m, .sites = 1};
        bq_gram gram;
        bq_gram_push(&gram, q->arch, one, &c->dev->mem);
        bq_gram_collect_midway(&way, q->w_hat, one, &gram);
        for (int i = site->first; i < site->first + site->linears; i++) {
            search(c, i, o->candidates, gram.h[m]);
            bq_linear_encode(c->dev, q, i);
        }
        bq_arena_reset(&c->dev->mem, mark);
    }
    bq_midway_end(&way, q->w_hat);
    bq_arena_reset(&c->dev->mem, start);
}

size_t bq_seqmse_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                      int replica, int nreplica) {
    size_t most = 0;
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        bq_gram_set one = {.first = l->site, .sites = 1};
        size_t gram = bq_gram_collect_need(arch, one, tokens, samples, replica, nreplica);
        size_t slab =
            room_need(row_of(1, l->rows), l->cols, bq_linear_groups(arch, scheme, i), scheme[i].symmetric);
        size_t sum = bq_gram_need(arch, one) + (slab > gram ? slab : gram);
        most = sum > most ? sum : most;
    }
    return most;
}

/* ---- the kind ---- */

static const bq_key keys[] = {{"candidates", BQ_KEY_INT, BQ_AT(bq_seqmse_options, candidates), .value = "20",
                               .min = 1, .max = 1000,
                               .help = "How many grids are tried: the min-max ends times (i + 1) / "
                                       "`candidates`. The time of the search grows with it."},
                              {0}};

static size_t need(const void *o, const bq_pass_size *of) {
    (void)o;
    return bq_seqmse_need(of->arch, of->scheme, of->tokens, of->samples, of->replica, of->nreplica);
}

static bq_effort cost(const void *o, const bq_cost *c) {
    bq_effort e = bq_effort_grams(c);
    bq_effort_add(&e, 1, bq_effort_rows(c));
    for (int m = 0; m < c->arch->sites; m++) bq_effort_add(&e, 1, bq_effort_midway(c, m));
    e.flop[BQ_RATE_PRODUCTS] +=
        2 * ((const bq_seqmse_options *)o)->candidates * bq_effort_powers(c->arch, 1, 2) / c->replicas;
    return e;
}

static int64_t run(bq_pass_context *c, const void *o) {
    bq_pass_seqmse(c, o);
    return 0;
}

const bq_pass_kind bq_pass_kind_seqmse = {
    .scope = {"phases.N.passes.N, pass: seqmse",
              "Narrows the grid of each row, or group, to the least error of the linear's output, one matrix "
              "after the other (AIMET's Sequential MSE). Costs about a forward of the samples, and products "
              "with a Gram matrix for each candidate.",
              keys, BQ_PASS_OPTIONS_OF(bq_seqmse_options)},
    .name = "seqmse",
    .traits = BQ_PASS_CALIBRATED | BQ_PASS_QUANTIZES | BQ_PASS_ZEROS | BQ_PASS_KEEPS | BQ_PASS_MOMENTS,
    .need = need,
    .cost = cost,
    .run = run,
};
