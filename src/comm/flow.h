/* SPDX-License-Identifier: Apache-2.0 */
/* flow.h - send micro-batches (some samples) of hidden states from stage to stage.
 *
 * There are two buffers for each direction: while one micro-batch is computed, the next one is received and
 * the one before is sent.
 *
 *     bq_flow_open(...);
 *     while (...) {
 *         stop = bq_flow_take(&flow, count, next);
 *         ... compute flow.out from flow.in; the first stage fills flow.in itself ...
 *         bq_flow_give(&flow, count, stop);
 *     }
 *     bq_flow_close(&flow);
 *
 * All stages of a replica must use the same sizes in the same order.  A stop travels with a micro-batch, as
 * one more float behind its values: it is then the last one and its values mean nothing.  A stage that takes
 * it gives one with a stop to the next stage.
 *
 * Where the buffers are on a GPU messages go from GPU to GPU, beside the ops (nccl.h); one that is received
 * and one that is sent are one NCCL group.  Where they are on the host MPI moves them.  Every wait polls. All
 * functions are local: a stage waits only for the messages of the stage before and the stage behind. */
#ifndef BQ_FLOW_H
#define BQ_FLOW_H

#include "comm/comm.h"
#include "kernels/ops.h"

/* The number of buffers; the floats of one for micro-batches of up to `most` floats and the stop, aligned. */
enum { BQ_FLOW_BUFFERS = 4 };
static inline int64_t bq_flow_floats(int64_t most) { return (most + 64) / 64 * 64; }

typedef struct {
    bq_mat in, out; /* (1, floats): the buffers of the current micro-batch */
    const bq_comm *comm;
    bq_dev *dev;
    bq_mat buffers; /* (BQ_FLOW_BUFFERS, floats): two for `in`, two for `out` */
    /* the stages that messages come from and go to (-1: none), and the number of the current micro-batch */
    int before, behind, turn;
    int64_t going; /* floats of the micro-batch given last, which the next group sends; 0: none */
    MPI_Request receive, send[2];
} bq_flow;

/* buffers (BQ_FLOW_BUFFERS, bq_flow_floats): the caller's memory, on the host, or on the device where
 * comm->depth is not NULL.  takes: this stage receives from the one before; gives: it sends to the one
 * behind.  first: floats of the first micro-batch, whose receive starts here. */
void bq_flow_open(bq_flow *flow, const bq_comm *comm, bq_dev *dev, bq_mat buffers, bool takes, bool gives,
                  int64_t first);

/* Wait until flow->in holds the next micro-batch, of `count` floats, and flow->out may be written.
 * next: floats of the one after it, whose receive starts here; 0: there is none.  Returns true when a
 * stop came with this one. */
bool bq_flow_take(bq_flow *flow, int64_t count, int64_t next);

/* Send flow->out, `count` floats, with or without a stop.  It must not be written until a later take returns
 * the same buffer again. */
void bq_flow_give(bq_flow *flow, int64_t count, bool stop);

/* Wait until all micro-batches are sent. */
void bq_flow_close(bq_flow *flow);

#endif
