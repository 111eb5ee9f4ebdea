/* treesum.h - sums whose bits do not depend on how the parts are spread.
 *
 * Parts 0 .. n-1 arrive in order and are added in the binary tree of a counter: equal-sized partial sums merge, so at
 * most log2(n) + 1 buffers live at once, and part i's place in the tree depends on i alone.  At the end the remaining
 * partial sums are merged from the smallest to the largest. */
#ifndef BQ_TREESUM_H
#define BQ_TREESUM_H

#include "kernels/ops.h"

#define BQ_TREE_LEVELS 24 /* parts < 2^23 */

typedef struct {
    bq_dev *dev;
    bq_mat level[BQ_TREE_LEVELS]; /* level k holds the sum of 2^k parts while full */
    bool full[BQ_TREE_LEVELS];
    int levels;
} bq_treesum;

/* Buffers that a sum of `parts` parts takes. */
int bq_treesum_levels(int64_t parts);

/* Sums of up to `parts` matrices of the shape of `first`, which serves as the first buffer; the others come from the
 * device's arena (the caller's mark and reset give them back).  Local. */
void bq_treesum_open(bq_treesum *sum, bq_dev *dev, int64_t parts, bq_mat first);

/* Where the next part is to be written; contents undefined.  Then `add` takes it in. */
bq_mat bq_treesum_next(bq_treesum *sum);
void bq_treesum_add(bq_treesum *sum);

/* The sum of all parts added since open or the last end; a view of one of the buffers, valid until the next call. */
bq_mat bq_treesum_end(bq_treesum *sum);

#endif
