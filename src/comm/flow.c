/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/flow.h"

#include "base/clock.h"
#include "base/meter.h"
#include "comm/nccl.h"

#define F32 ((int64_t)sizeof(float))

static bool direct(const bq_flow *f) { return f->buffers.place == BQ_DEVICE; }
static int rank_of(const bq_flow *f, int stage) { return stage * f->comm->nreplica + f->comm->replica; }

static bq_mat buffer(const bq_flow *f, bool out, int turn) {
    return bq_mat_rows(f->buffers, (out ? 2 : 0) + turn % 2, 1);
}

/* The float behind the values of a micro-batch: 1 where it is the last one. */
static bq_mat flag(bq_mat m, int64_t count) { return bq_mat_cols(m, count, 1); }

/* One NCCL group: send the micro-batch given last, receive the next one into the buffer of `turn`. */
static void exchange(bq_flow *f, int turn, int64_t next) {
    bq_nccl *nccl = f->comm->depth;
    bq_nccl_start(nccl);
    if (next) {
        bq_nccl_receive(nccl, f->before, buffer(f, false, turn).data, next + 1);
        bq_spent.received += (next + 1) * F32;
    }
    if (f->going) {
        bq_nccl_send(nccl, f->behind, f->out.data, f->going + 1);
        bq_spent.sent += (f->going + 1) * F32;
    }
    bq_nccl_end(nccl);
}

/* Wait until the group that is under way is done. */
static void settle(bq_flow *f) {
    const double start = bq_seconds();
    bq_nccl_join(f->comm->depth);
    f->dev->op->wait(f->dev);
    bq_spent.peers += bq_seconds() - start;
}

static void start_receive(bq_flow *f, int turn, int64_t next) {
    if (f->before < 0) next = 0;
    if (direct(f))
        exchange(f, turn, next);
    else if (next)
        bq_comm_receive(f->comm, rank_of(f, f->before), buffer(f, false, turn).data, next + 1, &f->receive);
}

void bq_flow_open(bq_flow *f, const bq_comm *comm, bq_dev *dev, bq_mat buffers, bool takes, bool gives,
                  int64_t first) {
    *f = (bq_flow){.comm = comm,
                   .dev = dev,
                   .buffers = buffers,
                   .before = takes ? comm->istage - 1 : -1,
                   .behind = gives ? comm->istage + 1 : -1,
                   .turn = -1,
                   .receive = MPI_REQUEST_NULL,
                   .send = {MPI_REQUEST_NULL, MPI_REQUEST_NULL}};
    start_receive(f, 0, first);
}

/* First settle, then copy the flag: the copy alone would block without watching the other ranks. */
static float wait_direct(bq_flow *f, bq_mat in, int64_t count) {
    float stop = 0;
    settle(f);
    if (f->before < 0) return 0;
    f->dev->op->get(f->dev, flag(in, count), bq_mat_host(&stop, 1, 1, BQ_F32));
    f->dev->op->wait(f->dev);
    return stop;
}

bool bq_flow_take(bq_flow *f, int64_t count, int64_t next) {
    const int turn = ++f->turn;
    bq_mat in = buffer(f, false, turn);
    bool stop = false;
    if (direct(f)) {
        stop = wait_direct(f, in, count) > 0;
    } else if (f->before >= 0) {
        bq_comm_wait(&f->receive, 1);
        stop = bq_f32(in)[count] > 0;
    }
    start_receive(f, turn + 1, stop ? 0 : next);
    if (f->behind >= 0) bq_comm_wait(&f->send[turn % 2], 1);
    f->in = in, f->out = buffer(f, true, turn);
    return stop;
}

void bq_flow_give(bq_flow *f, int64_t count, bool stop) {
    float last = stop;
    if (f->behind < 0) return;
    if (direct(f)) {
        f->dev->op->put(f->dev, bq_mat_host(&last, 1, 1, BQ_F32), flag(f->out, count));
        f->going = count;
    } else {
        bq_f32(f->out)[count] = last;
        bq_comm_send(f->comm, rank_of(f, f->behind), f->out.data, count + 1, &f->send[f->turn % 2]);
    }
}

void bq_flow_close(bq_flow *f) {
    if (direct(f)) {
        exchange(f, 0, 0);
        settle(f);
    }
    bq_comm_wait(f->send, 2);
}
