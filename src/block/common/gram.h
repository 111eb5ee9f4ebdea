/* SPDX-License-Identifier: Apache-2.0 */
/* gram.h - Gram matrices of the inputs of a block's sites, for GPTQ, QEP and Sequential MSE.
 *
 * h = sum x^T x over all samples, with x (T, K) the input of a site in one sample.  It is not divided by
 * the number of tokens or samples.  The products of one sample are f32, their sums f32 or f64.  The samples
 * are the leaves of the fixed tree of comm/treesum.h, so the bits do not depend on the number of replicas. */
#ifndef BQ_GRAM_H
#define BQ_GRAM_H

#include "block/common/midway.h"

typedef struct {
    bq_mat h[BQ_SITES];     /* (K, K) of the set's type; data NULL where the set does not have it */
    bq_mat cross[BQ_SITES]; /* (K, K), likewise: sum (x_fp - x)^T x, x_fp being the input in the FP stream */
} bq_gram;

/* For which sites: h for `sites` of them from `first` on; with `cross` the other for those of them that are
 * not down. */
typedef struct {
    int first, sites;
    bool cross;
    bq_type type; /* of the sums */
} bq_gram_set;

static inline bool bq_gram_has(bq_gram_set set, int m) { return m >= set.first && m < set.first + set.sites; }
static inline bool bq_gram_crosses(const bq_arch *arch, bq_gram_set set, int m) {
    return set.cross && bq_gram_has(set, m) && arch->site[m].role != BQ_DOWN;
}

/* Push the matrices of the set; the caller's mark and reset take them back. */
void bq_gram_push(bq_gram *g, const bq_arch *arch, bq_gram_set set, bq_arena *mem);

/* Compute them, on all replicas: the samples of the pass's stream (bq_capture_stream) go through the block
 * with the matrices w; for cross those of the FP stream go through it with its own matrices, too.  Collective
 * over stage. */
void bq_gram_collect(bq_pass_context *c, const bq_mat *w, bq_gram_set set, bq_gram *g);
/* The same for a set of one site: the walk goes on from the site before it (midway.h). */
void bq_gram_collect_midway(bq_midway *way, const bq_mat *w, bq_gram_set set, bq_gram *g);

/* Arena bytes of push; and what either collect takes beside them. */
size_t bq_gram_need(const bq_arch *arch, bq_gram_set set);
size_t bq_gram_collect_need(const bq_arch *arch, bq_gram_set set, int64_t tokens, int64_t samples,
                            int replica, int nreplica);

#endif
