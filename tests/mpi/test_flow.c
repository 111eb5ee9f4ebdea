/* SPDX-License-Identifier: Apache-2.0 */
/* Micro-batches down the stages, whatever their number and size, with a stop and without: on the host, or
 * with the emulated devices from GPU to GPU (simt_flow). */
#include "base/die.h"
#include "comm/flow.h"
#include "comm/nccl.h"
#include "expect.h"

#include <stdlib.h>
#include <time.h>

enum { MOST = 53 };
static bq_dev dev;
static float memory[BQ_FLOW_BUFFERS * 64];

static float value(int i, int64_t e) { return (float)(1 + i * MOST + e + 100000 * comm.replica); }

/* The first stage's input, on its way to where the buffers are. */
static void fill(bq_mat in, int i, int64_t count) {
    float x[MOST];
    for (int64_t e = 0; e < count; e++) (comm.depth ? x : bq_f32(in))[e] = value(i, e);
    if (comm.depth) dev.op->put(&dev, bq_mat_host(x, 1, count, BQ_F32), in);
}

static void twice(bq_mat in, bq_mat out) {
    if (comm.depth) dev.op->scale(&dev, in, 2, out);
    for (int64_t e = 0; e < in.cols && !comm.depth; e++) bq_f32(out)[e] = 2 * bq_f32(in)[e];
}

static void verify(bq_mat out, int i, int64_t count, int doublings) {
    float x[MOST];
    int64_t wrong = 0;
    if (comm.depth) dev.op->get(&dev, out, bq_mat_host(x, 1, count, BQ_F32));
    dev.op->wait(&dev);
    for (int64_t e = 0; e < count; e++)
        wrong += (comm.depth ? x : bq_f32(out))[e] != value(i, e) * (float)(1 << doublings);
    EXPECT(wrong == 0, "micro-batch %d: %ld of %ld values are wrong", i, (long)wrong, (long)count);
}

/* The emulated device runs all its streams when memory is freed: messages now, before the ops called next. */
static void hurry(void) {
    if (comm.depth) dev.op->unpin(&dev, dev.op->pin(&dev, 1));
}

/* all micro-batches, the last one of `rest` floats, between two stages; stop_at: where a stop comes, or all.
 */
static void run(int all, int64_t rest, int first, int last, int stop_at) {
    bq_flow flow;
    const size_t mark = bq_arena_mark(&dev.mem);
    const int64_t floats = bq_flow_floats(MOST);
    bq_mat buffers = comm.depth ? bq_arena_push(&dev.mem, BQ_FLOW_BUFFERS, floats, BQ_F32)
                                : bq_mat_host(memory, BQ_FLOW_BUFFERS, floats, BQ_F32);
    const int here = comm.istage;
    int taken = 0;
    bool stop = false;
    if (here < first || here > last) return;
    bq_flow_open(&flow, &comm, &dev, buffers, here > first, here<last, all> 1 ? MOST : rest);
    for (int i = 0; i < all && !stop; i++, taken++) {
        int64_t count = i + 1 < all ? MOST : rest, next = i + 1 == all ? 0 : i + 2 < all ? MOST : rest;
        stop = bq_flow_take(&flow, count, next);
        bq_mat in = bq_mat_cols(flow.in, 0, count), out = bq_mat_cols(flow.out, 0, count);
        if (here == first) stop = i == stop_at;
        if (here == first) fill(in, i, count);
        if ((i + here) % 3 == 0) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if ((i + here) % 2) hurry();
        if (!stop) twice(in, out);
        if (!stop && here == last) verify(out, i, count, last - first + 1);
        bq_flow_give(&flow, count, stop);
    }
    bq_flow_close(&flow);
    EXPECT(taken == (stop_at < all ? stop_at + 1 : all) && stop == (stop_at < all), "%d of %d, stop at %d",
           taken, all, stop_at);
    bq_arena_reset(&dev.mem, mark);
}

static void grid(int stages) {
    EXPECT(bq_comm_grid(&comm, stages) == BQ_OK, "%d stages", stages);
    comm.depth = bq_nccl_open_depth(&comm, &dev);
    EXPECT((comm.depth != NULL) == (dev.mem.place == BQ_DEVICE && stages > 1), "the way of %d stages",
           stages);
    for (int all = 1; all <= 7; all++) {
        run(all, MOST, 0, stages - 1, all);
        run(all, all % 2 ? 1 : 17, 0, stages - 1, all);
        run(all, 5, 0, stages - 1, all / 2);
        run(all, 5, 0, stages - 1, 0);
        run(all, MOST, stages / 2, stages - 1, all);
        run(all, 3, 0, stages / 2, all);
    }
    bq_nccl_close(comm.depth), comm.depth = NULL;
}

int main(int argc, char **argv) {
    char name[32];
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    snprintf(name, sizeof name, "auto:%d", comm.local);
    EXPECT(bq_dev_open(&dev, name, 1, (size_t)1 << 20) == BQ_OK, "no device");
    for (int stages = 1; stages <= comm.size; stages++)
        if (comm.size % stages == 0) grid(stages);
    bq_dev_close(&dev);
    return expect_end();
}
