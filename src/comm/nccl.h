/* nccl.h - messages between GPUs, without the host.
 *
 * nccl.cu, or nccl_none.c in a build without NCCL.  Those of a stage's replicas run on the device's stream,
 * in order with its ops: what was computed before is sent, and what comes is there for what is computed
 * after. Those down the depth run beside the ops, between start and join.  A rank has one of the two in
 * flight, never both.  No sums are formed here: the order of a sum is comm/treesum.h's.  An error of the
 * network, noticed while somebody waits, ends the job. */
#ifndef BQ_NCCL_H
#define BQ_NCCL_H

#include "comm/comm.h"
#include "kernels/ops.h"

typedef struct bq_nccl bq_nccl;

/* Join the replicas of my stage, or the stages of my replica; NULL where messages must go through the host: a
 * build without NCCL, a device that is the host, nobody to join, or two of them on one GPU.  Collective over
 * world. */
bq_nccl *bq_nccl_open(const bq_comm *comm, bq_dev *dev);
bq_nccl *bq_nccl_open_depth(const bq_comm *comm, bq_dev *dev);
void bq_nccl_close(bq_nccl *nccl); /* NULL is fine.  Collective over those who joined. */

/* Floats on the device to and from a peer, by its number of replica or stage; all between start and end move
 * at once.  Down the depth they see what the ops called before start have made.  Local. */
void bq_nccl_start(bq_nccl *nccl);
void bq_nccl_send(bq_nccl *nccl, int peer, const float *data, int64_t count);
void bq_nccl_receive(bq_nccl *nccl, int peer, float *data, int64_t count);
void bq_nccl_end(bq_nccl *nccl);

/* Ops called from here on see what has come down the depth, and may write to what was sent.  Local. */
void bq_nccl_join(bq_nccl *nccl);

/* Look for an error that came meanwhile; NULL is fine.  Local. */
void bq_nccl_poll(bq_nccl *nccl);

#endif
