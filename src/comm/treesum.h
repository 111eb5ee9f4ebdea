/* treesum.h - sums whose bits do not depend on how the parts are spread over replicas.
 *
 * The parts of a sum are the leaves 0 .. n-1 of a binary tree: node (level, index) is the sum of leaves
 * [index << level, (index + 1) << level).  Two finished siblings merge at once, so at most about log2(n)
 * buffers live at a time; what cannot merge any more at the end (n is no power of two) is added from the
 * right to the left.  A replica that has a contiguous range of the leaves ends with a few whole nodes of the
 * same tree: these are exchanged by row slices, and the owner of a slice goes on merging by the same rule. So
 * a leaf's place in the sum depends on its number alone. */
#ifndef BQ_TREESUM_H
#define BQ_TREESUM_H

#include "base/shard.h"
#include "comm/comm.h"
#include "kernels/ops.h"

#define BQ_TREE_NODES 48 /* leaves < 2^23 */

typedef struct {
    int level;
    int64_t index;
    bq_mat sum;
} bq_tree_node;

typedef struct {
    bq_dev *dev;
    int nodes, buffers, free_buffers;
    bq_tree_node node[BQ_TREE_NODES]; /* finished, in the order of their leaves */
    bq_mat buffer[BQ_TREE_NODES], free_buffer[BQ_TREE_NODES];
} bq_treesum;

/* Buffers that a sum over leaves [first, first + count) takes while it runs. */
int bq_treesum_buffers(int64_t first, int64_t count);

/* Room for `buffers` matrices of the shape and type (f32 or f64) of `first`, which is the first of them; the
 * others come from the device's arena (the caller's mark and reset give them back).  Local. */
void bq_treesum_open(bq_treesum *sum, bq_dev *dev, int buffers, bq_mat first);

/* Where the next leaf's part is to be written; contents undefined.  `add` then takes it in; leaves come in
 * order. */
bq_mat bq_treesum_next(bq_treesum *sum);
void bq_treesum_add(bq_treesum *sum, int64_t leaf);

/* The sum of all leaves of all replicas of the stage, for my share of the rows: a view that is valid until
 * the next call. leaves   which leaves each replica has added: comm->nreplica ranges that follow each other;
 * may be empty rows     my rows of the matrix, as bq_shard_of gives them What the others send stays in the
 * arena (bq_treesum_exchange bytes) until the caller resets it.  Collective over stage. */
bq_mat bq_treesum_end(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows);

/* Arena bytes of bq_treesum_end for a matrix of that shape and type. */
size_t bq_treesum_exchange(int replica, int nreplica, const bq_shard *leaves, int64_t rows, int64_t cols,
                           bq_type type);

/* Every replica's rows of m, on all replicas: replica r has rows [first[r], first[r + 1]), first has nreplica
 * + 1 entries.  m: contiguous, f32 or f64.  Collective over stage. */
void bq_comm_gather_slices(const bq_comm *comm, bq_dev *dev, bq_mat m, const int64_t *first);

/* Every replica's rows of m (bq_shard_of its rows), on all replicas.  m: contiguous, f32 or f64.  Collective
 * over stage. */
void bq_comm_gather_rows(const bq_comm *comm, bq_dev *dev, bq_mat m);

/* The same for a vector of f32 on the device, of which each element is nonzero on one replica.  Collective
 * over stage. */
void bq_comm_fill_scales(const bq_comm *comm, bq_dev *dev, bq_mat v);

/* The largest over the stage of each element of an f32 vector on the device.  Collective over stage. */
void bq_comm_stage_max(const bq_comm *comm, bq_dev *dev, bq_mat v);

/* values[i] of everybody = the one nonzero values[i] of the stage (others pass 0).  Collective over stage. */
void bq_comm_fill(const bq_comm *comm, double *values, int64_t count);

#endif
