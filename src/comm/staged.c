#include "comm/staged.h"

size_t bq_stage_need(int64_t rows, int64_t cols, bq_type type) {
    return ((size_t)(rows * cols) * bq_type_size(type) + BQ_ARENA_ALIGN - 1) / BQ_ARENA_ALIGN *
           BQ_ARENA_ALIGN;
}

static bool apart(const bq_stage *stage) { return stage->dev->mem.place == BQ_DEVICE; }

bq_stage bq_stage_open(bq_dev *dev, size_t bytes) {
    bq_stage stage = {dev, NULL};
    if (apart(&stage)) stage.at = dev->op->stage(dev, bytes);
    return stage;
}

bq_mat bq_stage_room(bq_stage *stage, bq_mat m) {
    if (!apart(stage)) return m;
    bq_mat room = bq_mat_host(stage->at, m.rows, m.cols, m.type);
    room.place = BQ_PINNED;
    stage->at += bq_stage_need(m.rows, m.cols, m.type);
    return room;
}

bq_mat bq_stage_get(bq_stage *stage, bq_mat m) {
    bq_mat room = bq_stage_room(stage, m);
    if (apart(stage)) stage->dev->op->get(stage->dev, m, room);
    return room;
}

void bq_stage_put(bq_stage *stage, bq_mat host, bq_mat m) {
    if (apart(stage)) stage->dev->op->put(stage->dev, host, m);
}
