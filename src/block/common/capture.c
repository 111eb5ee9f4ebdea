#include "block/common/capture.h"

#include "comm/heartbeat.h"

void bq_capture(bq_pass_context *c, bq_stream_id stream, bq_stride of, const bq_mat *w, bool output,
                bq_visit visit, void *ctx) {
    bq_dev *dev = c->dev;
    size_t mark = bq_arena_mark(&dev->mem);
    int64_t h = c->q->arch->model.hidden;
    bq_mat x = bq_arena_push(&dev->mem, c->tokens, h, BQ_F32);
    bq_mat y = bq_arena_push(&dev->mem, c->tokens, h, BQ_F32);
    bq_shard share = bq_stride_of(of, c->samples, c->comm->replica, c->comm->nreplica);
    for (int64_t k = share.first; k < share.first + share.count; k++) {
        int64_t i = of.first + k * of.step;
        dev->op->put(dev, c->fetch(c->ctx, stream, i), x);
        bq_block_forward(dev, c->blk, w, c->work, x, output ? y : (bq_mat){0});
        visit(ctx, i, x, y);
        dev->op->wait(dev);
        bq_heartbeat(c->comm);
    }
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_capture_need(const bq_arch *arch, int64_t tokens) {
    return 2 * bq_arena_need(tokens, arch->model.hidden, BQ_F32);
}
