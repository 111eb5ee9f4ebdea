/* flow.h - micro-batches on their way down the stages, two buffers deep: while one is computed the next one
 * comes and the one before goes.
 *
 *     bq_flow_open(...);
 *     while (...) {
 *         stop = bq_flow_take(&flow, count, next);
 *         ... flow.in, or what the first stage has put there, becomes flow.out ...
 *         bq_flow_give(&flow, count, stop);
 *     }
 *     bq_flow_close(&flow);
 *
 * All stages of a replica see micro-batches of the same sizes in the same order.  A stop travels with them: a
 * micro-batch given with it is the last one, its values mean nothing, and who takes it gives one in turn.
 * Buffers on a GPU: messages go from GPU to GPU, beside the ops (nccl.h), a received one and a sent one as
 * one group.  Buffers on the host: MPI.  Every wait polls.  Local, but for the messages. */
#ifndef BQ_FLOW_H
#define BQ_FLOW_H

#include "comm/comm.h"
#include "kernels/ops.h"

/* Buffers, and floats of each for micro-batches of so many: one more for the stop, and all are aligned. */
enum { BQ_FLOW_BUFFERS = 4 };
static inline int64_t bq_flow_floats(int64_t most) { return (most + 64) / 64 * 64; }

typedef struct {
    bq_mat in, out; /* rows of the buffers: this micro-batch's */
    const bq_comm *comm;
    bq_dev *dev;
    bq_mat buffers; /* rows: in, in, out, out */
    int before, behind, turn;
    int64_t going; /* floats given last, which the next group sends; 0: none yet */
    MPI_Request receive, send[2];
} bq_flow;

/* buffers: (BQ_FLOW_BUFFERS, bq_flow_floats), the caller's; on the host, or on the device where there is
 * comm->depth.  takes, gives: from the stage before, to the one behind.  first: floats of the
 * first micro-batch. */
void bq_flow_open(bq_flow *flow, const bq_comm *comm, bq_dev *dev, bq_mat buffers, bool takes, bool gives,
                  int64_t first);

/* in has come, out is free: the next micro-batch's, of count floats, in turn; next: floats of the one after
 * it, 0: none.  True: a stop came with it.  A stage that does not take fills in itself. */
bool bq_flow_take(bq_flow *flow, int64_t count, int64_t next);

/* out may go: not to be written until take has turned to it again. */
void bq_flow_give(bq_flow *flow, int64_t count, bool stop);

/* All have gone. */
void bq_flow_close(bq_flow *flow);

#endif
