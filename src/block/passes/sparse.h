/* SPDX-License-Identifier: Apache-2.0 */
/* sparse.h - 2:4 sparsity: what the passes that leave zeros share. */
#ifndef BQ_SPARSE_H
#define BQ_SPARSE_H

#include "block/passes/pass.h"

/* Make two of four neighbours 0 in all weights of c->blk, by |w|, and make the codes again on the grids that
 * c->q has: bq_pass_kind.blind.  Local. */
void bq_sparse_blind(bq_pass_context *c);

#endif
