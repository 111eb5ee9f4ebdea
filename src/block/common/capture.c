/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/capture.h"

#include "comm/heartbeat.h"

void bq_capture(bq_pass_context *c, bq_stream_id stream, bq_stride of, const bq_mat *w, bool output,
                bq_visit visit, void *ctx) {
    bq_dev *dev = c->dev;
    bq_mat x = c->work->x, y = c->work->y;
    bq_shard share = bq_stride_of(of, c->samples, c->comm->replica, c->comm->nreplica);
    for (int64_t k = share.first; k < share.first + share.count; k++) {
        int64_t i = of.first + k * of.step;
        dev->op->put(dev, c->fetch(c->ctx, stream, i), x);
        bq_block_forward(dev, c->blk, w, c->work, x, output ? y : (bq_mat){0});
        visit(ctx, i, x, y);
        dev->op->wait(dev);
        bq_heartbeat();
    }
}
