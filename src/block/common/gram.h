/* gram.h - Gram matrices of the inputs of a block's four matrices, for GPTQ, QEP and Sequential MSE.
 *
 * h = sum x^T x over all samples, with x (T, K) the input of a matrix in one sample.  It is not divided by
 * the number of tokens or samples.  The products of one sample are f32, their sums f32 or f64.  The samples
 * are the leaves of the fixed tree of comm/treesum.h, so the bits do not depend on the number of replicas. */
#ifndef BQ_GRAM_H
#define BQ_GRAM_H

#include "block/common/midway.h"

#define BQ_ALL_MATS ((1u << BQ_MATS) - 1)

typedef struct {
    bq_mat h[BQ_MATS];     /* (K, K) of the set's type; data NULL where the set does not have it */
    bq_mat cross[BQ_MATS]; /* (K, K), likewise: sum (x_fp - x)^T x, x_fp being the input in the FP stream */
} bq_gram;

/* For which matrices, as bits 1 << m: h for those in `which`, cross for those in `cross`, a subset. */
typedef struct {
    unsigned which, cross;
    bq_type type; /* of the sums */
} bq_gram_set;

/* Push the matrices of the set; the caller's mark and reset take them back. */
void bq_gram_push(bq_gram *g, const bq_arch *arch, bq_gram_set set, bq_arena *mem);

/* Compute them, on all replicas: the samples of the pass's stream (bq_capture_stream) go through the block
 * with the matrices w; for cross those of the FP stream go through it with its own matrices, too.  Collective
 * over stage. */
void bq_gram_collect(bq_pass_context *c, const bq_mat w[BQ_MATS], bq_gram_set set, bq_gram *g);
/* The same for a set that has only matrix m: the walk goes on from the matrix before it (midway.h). */
void bq_gram_collect_midway(bq_midway *way, int m, const bq_mat w[BQ_MATS], bq_gram_set set, bq_gram *g);

/* Arena bytes of push; and what either collect takes beside them. */
size_t bq_gram_need(const bq_arch *arch, bq_gram_set set);
size_t bq_gram_collect_need(const bq_arch *arch, bq_gram_set set, int64_t tokens, int64_t samples,
                            int replica, int nreplica);

#endif
