/* SPDX-License-Identifier: Apache-2.0 */
/* The pass hqq, half-quadratic quantization (HQQ: Badri and Shaji, 2023): it fits grids to the weights
 * alone.  An iteration makes codes, leaves a part of the large errors out of the fit, and solves for one
 * number of each grid (kernels/quadratic.h).  Rows do not depend on each other, so any number of replicas
 * gives the same bytes.
 *
 * HQQ solves for the zero point with the scale fixed, and its zero points are fractions.  Where the scheme
 * has zero points that are floats they stay so.  Else a zero point is a code, as most output formats need it,
 * so it is rounded at the end.  That loses most of the gain: with any whole zero point the grid has the same
 * multiples of the scale, and only its ends move.
 *
 * Each group stops by its own error and keeps its best grid.  torchao and hqq stop all groups of a matrix
 * together, by the mean error of the matrix, and keep the last grids: `stop` `matrix`.  Then rows depend on
 * each other, so every replica computes all of them. */
#include "block/passes/search.h"

#include "base/shard.h"
#include "comm/treesum.h"

#include <math.h>

typedef enum { GROUP, MATRIX } stop;
typedef struct {
    bq_quadratic o;
    stop stop;
} options;

static const bq_choice stops[] = {{"group", GROUP}, {"matrix", MATRIX}, {0}};
static const bq_choice solves[] = {{"zero", BQ_SOLVE_ZERO}, {"scale", BQ_SOLVE_SCALE}, {0}};
static const bq_key keys[] = {
    {"solve", BQ_KEY_CHOICE, BQ_AT(options, o.solve), .value = "zero", .choice = solves,
     .help = "What the iterations change. `zero`: the zero points, as HQQ does, rounded to codes at the end "
             "unless the scheme's `zero` is `float`; symmetric grids have none and stay as they are. "
             "`scale`: the scales (the same as torchao's "
             "HQQ_SCALE_ONLY where no error exceeds the limit of `beta`). It makes the mean error of the "
             "weights smaller but clips large weights, so check the perplexity."},
    {"iterations", BQ_KEY_INT, BQ_AT(options, o.iterations), .value = "20", .min = 1, .max = 1000,
     .help = "Most iterations for a group; each reads its weights once. torchao and hqq have 20."},
    {"lp_norm", BQ_KEY_REAL, BQ_AT(options, o.p), .value = "0.7", .min = 0.1, .max = 1,
     .help = "The power of an error in the sum that is made small. The smaller it is, the less outliers "
             "change the grid."},
    {"beta", BQ_KEY_REAL, BQ_AT(options, o.beta), .value = "10", .min = 1e-3, .max = 1e9,
     .help = "A part of each error above (1 / `beta`)^(1 / (2 - `lp_norm`)) is left out of the fit. With the "
             "defaults that limit is 0.17, and most models have no such errors. Raise `beta`, for example to "
             "1000, to leave out more."},
    {"kappa", BQ_KEY_REAL, BQ_AT(options, o.kappa), .value = "1.01", .min = 1, .max = 10,
     .help = "`beta` is multiplied by this after each iteration (torchao: 1.01, hqq: 1)."},
    {"early_stop", BQ_KEY_BOOL, BQ_AT(options, o.early_stop), .value = "true",
     .help = "A group ends when its mean error no longer falls, and keeps the grid with the least. False: it "
             "takes all iterations and keeps the last grid, which may be worse."},
    {"round_start", BQ_KEY_BOOL, BQ_AT(options, o.start), .value = "false", .brief = true,
     .help = "Round the zero points before the first iteration (torchao with 4 bits; hqq's `round_zero`)."},
    {"stop", BQ_KEY_CHOICE, BQ_AT(options, stop), .value = "group", .choice = stops, .brief = true,
     .help = "`matrix`: with `early_stop`, `solve` `zero` and zero points that are floats, all groups of a "
             "matrix end together, when the mean error of the matrix no longer falls, and keep the zero "
             "points of the last iteration (torchao, hqq). Replicas do not share this work."},
    {0}};

int bq_hqq_matrix(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero, bq_mat code,
                  bq_mat w_hat) {
    const int most = o.iterations;
    const bq_type type = s.scale;
    float best = INFINITY;
    int n = 0;
    o.early_stop = false, o.iterations = 0, s.scale = BQ_F32;
    if (o.start) dev->op->half_quadratic(dev, w, s, o, scale, zero); /* rounds zero points */
    for (o.start = false, o.iterations = 1; n < most; o.beta *= o.kappa) {
        double sum;
        dev->op->quantize(dev, w, scale, zero, s, code);
        dev->op->dequantize(dev, code, scale, zero, s, w_hat);
        dev->op->distance(dev, w, w_hat, BQ_DISTANCE_MAE, &sum);
        dev->op->wait(dev);
        const float error = (float)(sum / ((double)w.rows * (double)w.cols));
        dev->op->half_quadratic(dev, w, s, o, scale, zero);
        n++;
        if (!(error < best)) break;
        best = error;
    }
    s.scale = type, o.iterations = 0;
    dev->op->half_quadratic(dev, w, s, o, scale, zero); /* to their type */
    return n;
}

static int64_t run(bq_pass_context *c, const void *pass) {
    bq_quantized *q = c->q;
    const options *of = pass;
    if (!c->grid) bq_pass_rtn(c);
    for (int i = 0; i < q->arch->linears; i++) {
        bq_mat w = bq_linear_grouped(q->arch, q->scheme, i, q->fold), scale = q->scale[i], zero = q->zero[i];
        bq_shard mine = bq_shard_of(w.rows, c->comm->replica, c->comm->nreplica);
        bq_quadratic o = of->o;
        if (q->scheme[i].symmetric && o.solve == BQ_SOLVE_ZERO) continue;
        if (of->stop == MATRIX && o.early_stop && o.solve == BQ_SOLVE_ZERO &&
            bq_scheme_offset(q->scheme[i])) {
            bq_hqq_matrix(c->dev, w, q->scheme[i], o, scale, zero,
                          bq_linear_grouped(q->arch, q->scheme, i, q->code),
                          bq_linear_grouped(q->arch, q->scheme, i, q->w_hat));
            continue;
        }
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
    .scope = {"phases.N.passes.N, pass: hqq",
              "Fits each grid to its weights by half-quadratic iterations (HQQ). Starts from the grids of "
              "the passes before, or from min-max. Needs no data and takes seconds. With `solve` `zero` it "
              "is about as good as rtn where zero points are codes, because their fractions are lost: set "
              "`zero` `float` in `bits`.",
              keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "hqq",
    .traits = BQ_PASS_QUANTIZES | BQ_PASS_ZEROS | BQ_PASS_INTEGERS,
    .run = run,
};
