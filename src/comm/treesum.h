/* SPDX-License-Identifier: Apache-2.0 */
/* treesum.h - sums whose bits do not depend on which replica computes which part.
 *
 * The parts of a sum are the leaves 0 ... n - 1 of a binary tree.  Node (level, index) is the sum of the
 * leaves [index << level, (index + 1) << level).  Two finished siblings are added at once, so about
 * log2(n) buffers are enough.  At the end, nodes are left over where n is no power of two: they are added
 * from the right to the left.
 *
 * A replica has a contiguous range of the leaves and ends with a few whole nodes of the same tree.  Then the
 * replicas exchange these nodes: each replica gets the rows that it owns, of all nodes, and goes on adding by
 * the same rule.  So the place of a leaf in the sum depends only on its number and on n. */
#ifndef BQ_TREESUM_H
#define BQ_TREESUM_H

#include "base/shard.h"
#include "comm/comm.h"
#include "kernels/ops.h"

#define BQ_TREE_NODES 48 /* most nodes and buffers of one sum: enough below 2^23 leaves */

typedef struct {
    int level;
    int64_t index;
    bq_mat sum;
} bq_tree_node;

typedef struct {
    bq_dev *dev;
    int nodes, buffers, free_buffers;
    bq_tree_node node[BQ_TREE_NODES]; /* finished nodes, in the order of their leaves */
    bq_mat buffer[BQ_TREE_NODES], free_buffer[BQ_TREE_NODES];
} bq_treesum;

/* The number of buffers that a sum over leaves [first, first + count) needs while it runs. */
int bq_treesum_buffers(int64_t first, int64_t count);

/* Start a sum of matrices with the shape and type (f32 or f64) of `first`.  `first` is one of its
 * `buffers` buffers; the others are pushed to the device's arena, and the caller's mark and reset
 * take them back.  Local. */
void bq_treesum_open(bq_treesum *sum, bq_dev *dev, int buffers, bq_mat first);

/* next: the buffer into which the caller writes the part of the next leaf; contents undefined.  add: take
 * that part into the sum, as the leaf of that number.  Leaves come in ascending order.  Local. */
bq_mat bq_treesum_next(bq_treesum *sum);
void bq_treesum_add(bq_treesum *sum, int64_t leaf);

/* The sum of all leaves of all replicas of the stage, for the rows that this replica owns.
 *   leaves   the leaves that each replica has added: comm->nreplica ranges that follow each other, some empty
 *   rows     the rows that this replica owns: bq_shard_of(rows of the matrix, replica, nreplica)
 * The result is a view of those rows, valid until the next call on `sum`, which can then be used for a new
 * sum.  What the others send stays in the arena, bq_treesum_exchange bytes, until the caller resets it.
 * Collective over stage. */
bq_mat bq_treesum_end(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows);

/* Arena bytes that bq_treesum_end takes for a matrix of that shape and type. */
size_t bq_treesum_exchange(int replica, int nreplica, const bq_shard *leaves, int64_t rows, int64_t cols,
                           bq_type type);

/* Give every replica all rows of m (contiguous, f32 or f64), of which replica r has [first[r], first[r + 1]),
 * or those of bq_shard_of(m.rows, r, nreplica).  Collective over stage. */
void bq_comm_gather_slices(const bq_comm *comm, bq_dev *dev, bq_mat m, const int64_t *first);
void bq_comm_gather_rows(const bq_comm *comm, bq_dev *dev, bq_mat m);

/* Give every replica all elements of which at most one replica has a value that is not 0: of a contiguous f32
 * matrix on the device, of doubles on the host.  Collective over stage. */
void bq_comm_fill_scales(const bq_comm *comm, bq_dev *dev, bq_mat v);
void bq_comm_fill(const bq_comm *comm, double *values, int64_t count);

/* Each element of v (contiguous f32 on the device) becomes its largest value over the replicas; true on all
 * replicas if `mine` is true on one.  Collective over stage. */
void bq_comm_stage_max(const bq_comm *comm, bq_dev *dev, bq_mat v);
bool bq_comm_stage_any(const bq_comm *comm, bool mine);

#endif
