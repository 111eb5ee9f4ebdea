/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/narrow.h"

#include "base/shard.h"
#include "block/common/capture.h"

/* An output in both ways. */
size_t bq_narrow_need(const bq_arch *arch, int64_t tokens) {
    size_t most = 0;
    for (int m = 0; m < arch->sites; m++) {
        size_t both = 2 * bq_arena_need(tokens, arch->site[m].rows, BQ_F32);
        most = both > most ? both : most;
    }
    return most;
}

/* For y = in w^T: error[0] = sum (y - y32)^2, error[1] = sum y32^2, there after the next wait. */
static void compare(bq_dev *dev, bq_compute compute, bq_mat in, bq_mat w, double error[2]) {
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat want = bq_arena_push(&dev->mem, in.rows, w.rows, BQ_F32),
           got = bq_arena_push(&dev->mem, in.rows, w.rows, BQ_F32);
    dev->op->gemm(dev, false, true, 1, in, w, 0, want);
    dev->compute = compute;
    dev->op->gemm(dev, false, true, 1, in, w, 0, got);
    dev->compute = BQ_COMPUTE_F32;
    dev->op->distance(dev, got, want, BQ_DISTANCE_MSE, &error[0]);
    dev->op->zero(dev, got);
    dev->op->distance(dev, got, want, BQ_DISTANCE_MSE, &error[1]);
    bq_arena_reset(&dev->mem, mark);
}

void bq_narrow_error(bq_pass_context *c, bq_compute compute, double *nmse) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    bq_compute before = dev->compute;
    double error[BQ_SITES][2];
    int64_t first = bq_shard_of(c->samples, c->comm->replica, c->comm->nreplica).first;
    bq_mat x = c->work->x;
    dev->op->put(dev, c->fetch(c->ctx, bq_capture_stream(c->input), first), x);
    dev->compute = BQ_COMPUTE_F32;
    bq_block_forward(dev, c->blk, c->blk->w, c->work, x, (bq_mat){0});
    for (int m = 0; m < arch->sites; m++)
        compare(dev, compute, bq_block_input(arch, c->work, m), c->blk->w[m], error[m]);
    dev->op->wait(dev);
    dev->compute = before;
    for (int m = 0; m < arch->sites; m++) nmse[m] = error[m][0] > 0 ? error[m][0] / error[m][1] : 0;
}
