/* SPDX-License-Identifier: Apache-2.0 */
/* search.h - grids found without gradients: clipping by the error of the weights (rtn with mse) or by the
 * error of a linear's output (seqmse), scales in two levels (lpbq), and HQQ's loop for a whole matrix.
 *
 * rtn and seqmse try candidates; each row, or with groups each group of a row, keeps its best grid.  Rows do
 * not depend on each other, so any number of replicas gives the same bytes. */
#ifndef BQ_BLOCK_SEARCH_H
#define BQ_BLOCK_SEARCH_H

#include "block/passes/pass.h"

/* Which grids a search for the least error of the weights tries: ends times 1 - i / grid, i = 0, 1, ...,
 * about grid * shrink of them.  Keys of rtn and gptq.  The defaults are those of the GPTQ authors' code
 * (quant.py: grid, maxshrink, norm). */
typedef struct {
    int grid;
    double shrink;
    bq_norm norm;
} bq_shrink_options;

bq_shrink bq_shrink_of(const bq_shrink_options *o);

extern const bq_choice bq_norm_choices[];
#define BQ_SHRINK_KEYS(type, field)                                                                          \
    {"grid",                                                                                                 \
     BQ_KEY_INT,                                                                                             \
     BQ_AT(type, field.grid),                                                                                \
     .value = "100",                                                                                         \
     .min = 1,                                                                                               \
     .max = 10000,                                                                                           \
     .help = "With `mse`: ends are tried times 1 - i / `grid`, i = 0, 1, ... More is finer and slower."},    \
        {"shrink",                                                                                           \
         BQ_KEY_REAL,                                                                                        \
         BQ_AT(type, field.shrink),                                                                          \
         .value = "0.8",                                                                                     \
         .max = 1,                                                                                           \
         .help = "With `mse`: how far the ends shrink: `grid` * `shrink` grids are tried. GPTQ's code has "  \
                 "0.8; llm-compressor 0.2, a quarter of the work."},                                         \
    {                                                                                                        \
        "norm", BQ_KEY_CHOICE, BQ_AT(type, field.norm),                                                      \
            .value = "l2.4", .choice = bq_norm_choices,                                                      \
            .help = "With `mse`: the power of a weight's error, 2 or 2.4 (GPTQ's code). The higher one "     \
                    "counts large errors more."                                                              \
    }

/* Round to nearest on grids whose ends are shrunk to the least error of the weights (the op range_mse).
 * Reads no samples and no grids of a pass before.  Collective over stage. */
void bq_pass_rtn_mse(bq_pass_context *c, bq_shrink ends);

/* Sequential MSE as AIMET does it.  The candidates are the min-max ends times (i + 1) / n, i = 0 ... n - 1.
 * Each row of a linear takes the one with the least sum of (x w_hat - x w)^2 over all calibration tokens.
 * Both products have the same x: the input of the linear in the phase's stream, with the matrices before it
 * in the block quantized.  With groups the products go over the columns of a group, and each group chooses
 * for itself.  Of equal errors the widest grid is taken (in AIMET the narrowest); where an error is NaN, the
 * min-max ends.
 *
 * The sum is e^T H e with e = w_hat - w and H = sum x x^T, the Gram matrix of the inputs.  That costs 2 n
 * rows cols^2 flop for a matrix, with groups 2 n rows cols group.  Multiplying the tokens by each candidate
 * would cost 2 n rows cols tokens, and there are more tokens than columns: 32 samples of 512 tokens are
 * 16384, and the widest matrices have 8192 to 14336 columns.  Replicas share the rows in slabs of
 * BQ_SEARCH_SLAB, since the bits of a GEMM depend on its shape. */
typedef struct {
    int candidates;
} bq_seqmse_options;

#define BQ_SEARCH_SLAB 256

/* Leaves codes and grids in c->q; c->q->fold are the weights of c->blk.  One walk over the samples
 * (midway.h); c->advance gets the outputs.  Collective over stage. */
void bq_pass_seqmse(bq_pass_context *c, const bq_seqmse_options *o);

/* Device bytes it takes beside block, result, workspace and the state of samples (bq_midway_need). */
size_t bq_seqmse_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                      int replica, int nreplica);

/* The search alone, for rows [first, first + count) of linear i, count <= BQ_SEARCH_SLAB: from q->fold into
 * q->scale and q->zero.  gram: (cols, cols), of the linear's inputs.  loss: (count * groups, 1) f64, gets the
 * least errors; data NULL: they are not wanted.  Local. */
void bq_seqmse_slab(bq_dev *dev, bq_quantized *q, int i, int64_t first, int64_t count, int candidates,
                    bq_mat gram, bq_mat loss);

/* Scales in two levels, AIMET's LPBQ: the scales of a row become whole multiples, 1 ... 2^(decompressed -
 * bits), of one unit, which is the row's largest scale divided by that power (the op range_levels).  So a
 * code times its multiple is an integer of `decompressed` bits.  In the result, too, the unit is the largest
 * scale / 2^(decompressed - bits).  Linears without groups, or with at least `decompressed` bits, keep their
 * scales.  Starts from c->q's grids where c->grid is set, else from min-max.  Symmetric schemes only
 * (BQ_CHECK).  Local. */
void bq_pass_lpbq(bq_pass_context *c, int decompressed);

/* HQQ's iterations for zero points that are floats, as torchao and hqq stop them: all groups, the rows of w,
 * end after the first iteration in which the mean |w_hat - w| of w, in f32, has not fallen, and keep the zero
 * points of that one.  Returns how many iterations there were.  code and w_hat are like w.  Local. */
int bq_hqq_matrix(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero, bq_mat code,
                  bq_mat w_hat);

#endif
