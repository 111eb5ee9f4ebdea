/* SPDX-License-Identifier: Apache-2.0 */
/* nccl.h - messages from GPU to GPU that do not pass through the host, by nccl.cu; in a build without NCCL
 * (nccl_none.c) open returns NULL.  There are two kinds of connection:
 *
 *   stage   (comm->nccl) between the replicas of a stage.  Messages run on the device's stream, in order with
 *           its ops: they send what earlier ops have made, and later ops see what was received.
 *   depth   (comm->depth) between the stages of a replica.  Messages run beside the ops, from start to join.
 *
 * A rank uses one of the two at a time.  NCCL forms no sums here: treesum.h decides the order of a sum.  An
 * error of the network is noticed while somebody waits, and ends the job. */
#ifndef BQ_NCCL_H
#define BQ_NCCL_H

#include "comm/comm.h"
#include "kernels/ops.h"

typedef struct bq_nccl bq_nccl;

/* Connect the replicas of my stage, or the stages of my replica.  NULL where messages must go through the
 * host: a build without NCCL, a device that is not a GPU, a single rank, or two ranks on one GPU.  Then it is
 * NULL on all ranks.  Collective over world. */
bq_nccl *bq_nccl_open(const bq_comm *comm, bq_dev *dev);
bq_nccl *bq_nccl_open_depth(const bq_comm *comm, bq_dev *dev);
void bq_nccl_close(bq_nccl *nccl); /* NULL is fine.  Collective over the ranks of the connection. */

/* Send floats on the device to a peer, or receive them; a peer is the number of a replica (stage) or of a
 * stage (depth).  All messages between start and end move at the same time.  Depth: they send what ops called
 * before start have made.  Local. */
void bq_nccl_start(bq_nccl *nccl);
void bq_nccl_send(bq_nccl *nccl, int peer, const float *data, int64_t count);
void bq_nccl_receive(bq_nccl *nccl, int peer, float *data, int64_t count);
void bq_nccl_end(bq_nccl *nccl);

/* Depth: ops called from here on see what was received, and may write to what was sent.  Local. */
void bq_nccl_join(bq_nccl *nccl);

/* End the job if NCCL has met an error; NULL is fine.  Local. */
void bq_nccl_poll(bq_nccl *nccl);

#endif
