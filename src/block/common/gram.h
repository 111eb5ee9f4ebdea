/* gram.h - second moments of what the four matrices of a block are fed: for GPTQ and its kin (gptq.md
 * 2, 10.1).
 *
 * Raw sums over all tokens of all samples, h = sum x^T x with x (T, K) the inputs of a matrix in one sample,
 * added by the fixed tree of comm/treesum.h with one leaf a sample: the same bits for any number of replicas.
 * A sample's own moments are f32; their sums are f32 or f64.
 * Whoever uses them divides by what he counts. */
#ifndef BQ_GRAM_H
#define BQ_GRAM_H

#include "block/common/midway.h"

#define BQ_ALL_MATS ((1u << BQ_MATS) - 1)

typedef struct {
    bq_mat h[BQ_MATS];     /* (K, K) of the set's type; data NULL where not asked for */
    bq_mat cross[BQ_MATS]; /* (K, K): sum (x_fp - x)^T x, the same for these */
} bq_gram;

/* Which matrices, as sets of bits 1 << m.  cross is a part of which. */
typedef struct {
    unsigned which, cross;
    bq_type type; /* of the sums */
} bq_gram_set;

/* Push the matrices of the set; the caller's mark and reset give them back. */
void bq_gram_push(bq_gram *g, const bq_arch *arch, bq_gram_set set, bq_arena *mem);

/* Fill them: the samples of the pass's stream (bq_capture_stream) go through the block with matrices w, and
 * for cross the FP stream through its own as well.  All of it on all replicas.  Collective over stage. */
void bq_gram_collect(bq_pass_context *c, const bq_mat w[BQ_MATS], bq_gram_set set, bq_gram *g);
/* The same for a set of matrix m alone, the samples coming to before it from before the matrix ahead of it.
 */
void bq_gram_collect_midway(bq_midway *way, int m, const bq_mat w[BQ_MATS], bq_gram_set set, bq_gram *g);

/* Arena bytes of push; and of collect, either way, on top of it. */
size_t bq_gram_need(const bq_arch *arch, bq_gram_set set);
size_t bq_gram_collect_need(const bq_arch *arch, bq_gram_set set, int64_t tokens, int64_t samples,
                            int replica, int nreplica);

#endif
