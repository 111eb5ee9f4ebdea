#include "driver/run/walk.h"

#include "comm/treesum.h"
#include "driver/run/restore.h"
#include "io/state/checkpoint.h"

void bq_walk_put(bq_walk *w, bq_stream *to, int64_t i, bq_mat y) {
    bq_dev *dev = &w->s->dev;
    bq_mat at = to->data ? bq_stream_get(to, i, y) : w->buffer[BQ_STREAM_TARGET];
    (at.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, y, at);
    dev->op->wait(dev);
    bq_run_finite(w->s, at, w->block, w->share.first + i, to == &w->qt ? "quantized" : "original");
    bq_stream_put(to, i, at);
    bq_run_stopped(w->s);
    bq_ahead_move(w->ahead);
}

bool bq_walk_stops(const bq_walk *w) { return bq_comm_stage_any(w->s->comm, bq_run_stopped(w->s)); }

void bq_walk_restore(bq_walk *w, int phase, int sweep, bool fold) {
    char path[BQ_PATH_MAX + 64];
    bq_ckpt_path(path, sizeof path, w->s->dir, sweep, phase, w->block);
    bq_restore(w->s, &w->s->dev, path, &w->blk, &w->q, fold);
}
