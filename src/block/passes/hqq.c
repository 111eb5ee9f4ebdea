/* Half-quadratic quantization (HQQ, torchao.md 5): grids by a fixed point on the weights alone.  An iteration
 * makes codes, takes the large errors out of the fit, and solves for one number of each grid
 * (kernels/quadratic.h).  Rows are independent, so any number of replicas gives the same bytes.
 *
 * HQQ solves for the zero point at a fixed scale, and its zero points are fractions.  blockq's are codes, as
 * the formats of its outputs want them (io/export.h), so they are rounded at the end.  Most of the gain is
 * lost by that: with any whole zero point the grid has the same multiples of the scale, and only its ends
 * move.
 *
 * A group stops by its own error.  torchao and hqq stop all groups of a matrix at once, by the mean over the
 * matrix, which would make rows depend on each other. */
#include "block/passes/pass.h"

#include "base/shard.h"
#include "comm/treesum.h"

static const bq_choice solves[] = {{"zero", BQ_SOLVE_ZERO}, {"scale", BQ_SOLVE_SCALE}, {0}};
static const bq_key keys[] = {

    {"solve", BQ_KEY_CHOICE, BQ_AT(bq_quadratic, solve), .value = "zero", .choice = solves,
     .help = "What the iterations change. `zero`: the zero points, as HQQ does, rounded to codes at the end; "
             "symmetric grids have none and stay as they are. `scale`: the scales (without errors beyond "
             "`beta`'s limit: torchao's HQQ_SCALE_ONLY), which makes the mean error of the weights smaller, "
             "but clips large weights, so check the perplexity."},
    {"iterations", BQ_KEY_INT, BQ_AT(bq_quadratic, iterations), .value = "20", .min = 1, .max = 1000,
     .help = "Most iterations of a group; each reads its weights once. 20 are torchao's and hqq's."},
    {"lp_norm", BQ_KEY_REAL, BQ_AT(bq_quadratic, p), .value = "0.7", .min = 0.1, .max = 1,
     .help = "Errors count by this power. The smaller it is, the less do outliers pull at the grid."},
    {"beta", BQ_KEY_REAL, BQ_AT(bq_quadratic, beta), .value = "10", .min = 1e-3, .max = 1e9,
     .help = "Errors beyond (1 / `beta`)^(1 / (2 - `lp_norm`)), 0.17 with the defaults, are taken out of the "
             "fit in part. Weights of most models have none. Raise it, to 1000 say, to leave out more."},
    {"kappa", BQ_KEY_REAL, BQ_AT(bq_quadratic, kappa), .value = "1.01", .min = 1, .max = 10,
     .help = "`beta` grows by this factor in each iteration (torchao: 1.01, hqq: 1)."},
    {"early_stop", BQ_KEY_BOOL, BQ_AT(bq_quadratic, early_stop), .value = "true",
     .help =
         "A group ends when its mean error no longer falls, and keeps the grid of the least. Otherwise it "
         "takes all iterations and keeps the last grid, which may be worse."},
    {0}};

static int64_t run(bq_pass_context *c, const void *pass) {
    bq_quantized *q = c->q;
    if (!c->grid) bq_pass_rtn(c);
    for (int i = 0; i < q->arch->linears; i++) {
        bq_mat w = bq_linear_grouped(q->arch, q->scheme, i, q->fold), scale = q->scale[i], zero = q->zero[i];
        bq_shard mine = bq_shard_of(w.rows, c->comm->replica, c->comm->nreplica);
        bq_quadratic o = *(const bq_quadratic *)pass;
        if (q->scheme[i].symmetric && o.solve == BQ_SOLVE_ZERO) continue;
        o.whole = true;
        c->dev->op->half_quadratic(c->dev, bq_mat_rows(w, mine.first, mine.count), q->scheme[i], o,
                                   bq_mat_rows(scale, mine.first, mine.count),
                                   zero.data ? bq_mat_rows(zero, mine.first, mine.count) : zero);
        bq_comm_gather_rows(c->comm, c->dev, scale);
        if (zero.data) bq_comm_gather_rows(c->comm, c->dev, zero);
    }
    bq_quantized_encode(c->dev, q);
    return 0;
}

const bq_pass_kind bq_pass_kind_hqq = {
    .scope =
        {"phases.N.passes.N, pass: hqq",
         "Fits each grid to its weights by half-quadratic iterations (HQQ), from the grids of the passes "
         "before, or from min-max. Needs no data and takes seconds. With `zero` it is about as good as rtn, "
         "because the fractions of HQQ's zero points cannot be stored.",
         keys, BQ_PASS_OPTIONS_OF(bq_quadratic)},
    .name = "hqq",
    .traits = BQ_PASS_QUANTIZES | BQ_PASS_ZEROS,
    .run = run,
};
