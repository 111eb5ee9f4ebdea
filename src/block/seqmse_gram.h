/* seqmse_gram.h - the Gram matrix of one matrix's inputs over all samples. */
#ifndef BQ_BLOCK_SEQMSE_GRAM_H
#define BQ_BLOCK_SEQMSE_GRAM_H

#include "block/pass.h"

/* gram = sum over all samples of x^T x, x (T, cols) the input of matrix m in the block with matrices w, fed
 * with the phase's stream.  gram: (cols, cols), contiguous.  One leaf of the fixed tree a sample, so its bits
 * do not depend on the replicas.  Collective over stage. */
void bq_seqmse_gram(bq_pass_context *c, const bq_mat w[BQ_MATS], int m, bq_mat gram);

/* Arena bytes while it runs. */
size_t bq_seqmse_gram_need(const bq_arch *arch, int64_t tokens, int64_t samples, int m, int replica,
                           int nreplica);

#endif
