/* nccl.h - messages between the GPUs of a stage's replicas, without the host.
 *
 * nccl.cu, or nccl_none.c in a build without NCCL.  Messages run on the device's stream, in order with its
 * ops: what was computed before is sent, and what comes is there for what is computed after.  No sums are
 * formed here: the order of a sum is comm/treesum.h's.  An error of the network, noticed while somebody
 * waits, ends the job. */
#ifndef BQ_NCCL_H
#define BQ_NCCL_H

#include "comm/comm.h"
#include "kernels/ops.h"

typedef struct bq_nccl bq_nccl;

/* Join the replicas of my stage; NULL where messages must go through the host: a build without NCCL, a device
 * that is the host, a stage of one replica, or two replicas on one GPU.  Collective over world. */
bq_nccl *bq_nccl_open(const bq_comm *comm, bq_dev *dev);
void bq_nccl_close(bq_nccl *nccl); /* NULL is fine.  Collective over stage. */

/* Floats on the device to and from a replica; all between start and end move at once.  Local. */
void bq_nccl_start(bq_nccl *nccl);
void bq_nccl_send(bq_nccl *nccl, int replica, const float *data, int64_t count);
void bq_nccl_receive(bq_nccl *nccl, int replica, float *data, int64_t count);
void bq_nccl_end(bq_nccl *nccl);

/* Look for an error that came meanwhile.  Local. */
void bq_nccl_poll(bq_nccl *nccl);

#endif
