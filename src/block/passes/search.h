/* search.h - grids by search: clipping by the error of the weights, by that of a linear's output, and scales
 * in two levels.  No gradients: candidates are tried, and each row (with groups: each group of a row) keeps
 * its best.  Rows are independent, so any number of replicas gives the same bytes. */
#ifndef BQ_BLOCK_SEARCH_H
#define BQ_BLOCK_SEARCH_H

#include "block/passes/pass.h"

/* How far the ends of a grid are narrowed in a search for the least error of the weights: keys of rtn and
 * gptq.  Ends are tried times 1 - i / grid, i < grid * shrink. */
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
     .help = "With `mse`: ends are tried times 1 - i / `grid`, i = 0, 1, ..."},                              \
        {"shrink",                                                                                           \
         BQ_KEY_REAL,                                                                                        \
         BQ_AT(type, field.shrink),                                                                          \
         .value = "0.8",                                                                                     \
         .max = 1,                                                                                           \
         .help = "With `mse`: how far they shrink, so that `grid` * `shrink` ends are tried. "               \
                 "llm-compressor: 0.2."},                                                                    \
    {                                                                                                        \
        "norm", BQ_KEY_CHOICE, BQ_AT(type, field.norm),                                                      \
            .value = "l2.4", .choice = bq_norm_choices,                                                      \
            .help = "With `mse`: a weight's error counts by its "                                            \
                    "power 2 or 2.4."                                                                        \
    }

/* Round to nearest on grids whose ends are the row's, shrunk to the least error of the weights (range_mse in
 * kernels/ops.h; gptq.md 6.2).  Needs no data.  Collective over stage. */
void bq_pass_rtn_mse(bq_pass_context *c, bq_shrink ends);

/* Sequential MSE as AIMET does it (adascale.md 5.5).  Candidates are the min-max ends times (i + 1) / n, i =
 * 0 .. n - 1.  For each row of a linear the one with the least sum over all calibration tokens of
 * (x w_hat - x w)^2 is taken, both products with the same x: what the linear is fed when the linears before it in the
 * block (qkv, o, gate_up, down) are quantized already and those behind it are not, and the block reads the
 * phase's stream.  With groups the products run over the group's columns, and each group chooses for itself.
 * Among equals the widest wins (AIMET's narrowest), and so do the min-max ends where the error is no number.
 *
 * The sum is e^T H e with e = w_hat - w and H = sum x x^T: one Gram matrix a linear's input, summed over the
 * samples by the fixed tree, and then n products of the errors with H: 2 n rows cols^2 flop a matrix, or 2 n
 * rows cols group.  Multiplying the tokens by each candidate would be 2 n rows cols tokens, and there are
 * more tokens than columns (32 samples of 512 are 16384; the widest matrices have 8192 to 14336 columns, and
 * groups 64).  Replicas share the rows in slabs of BQ_SEARCH_SLAB that no launch changes: a GEMM's bits
 * depend on its shape. */
typedef struct {
    int candidates;
} bq_seqmse_options;

#define BQ_SEARCH_SLAB 256

/* Leaves codes and grids in c->q; the weights behind them are the block's.  The samples halt before each
 * matrix (midway.h), and c->advance gets the outputs.  Collective over stage. */
void bq_pass_seqmse(bq_pass_context *c, const bq_seqmse_options *o);

/* Device bytes it takes beside block, result, workspace and what it keeps of samples (bq_midway_need). */
size_t bq_seqmse_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                      int replica, int nreplica);

/* The search alone: grids of linear i's rows [first, first + count), at most BQ_SEARCH_SLAB, from c->q->fold
 * into c->q's scales and zero points.  gram: (cols, cols), of the linear's inputs.  loss: (count * groups, 1)
 * f64, gets the least error; its data NULL: nobody wants it.  Local. */
void bq_seqmse_slab(bq_dev *dev, bq_quantized *q, int i, int64_t first, int64_t count, int candidates,
                    bq_mat gram, bq_mat loss);

/* Scales in two levels, AIMET's LPBQ (adascale.md 5.4): in each row with groups they become whole multiples,
 * 1 .. 2^(decompressed - bits), of the row's unit, its largest scale divided by that power (range_levels in
 * kernels/ops.h), so that the codes times the multiples are integers of `decompressed` bits a channel.  The
 * unit is largest scale / 2^(decompressed - bits) of the result, too.  Rows of a single group, and linears of
 * as many bits, keep their scales.  Starts from c->q's grids where c->grid is set, else from min-max.
 * Symmetric schemes.  Local. */
void bq_pass_lpbq(bq_pass_context *c, int decompressed);

#endif
