/* SPDX-License-Identifier: Apache-2.0 */
/* 2:4 masks of torchao: by |w|, and by |w| times the squared norm of the input channel. */
#include "golden/replay.h"

#include "kernels/ops.h"

#include <string.h>

static void mask(bq_dev *dev, golden *g, golden_report *r, const char *name, bq_mat w, bq_mat statistic) {
    bq_mat have = bq_arena_push(&dev->mem, w.rows, w.cols, BQ_F32);
    memcpy(have.data, w.data, bq_mat_bytes(w));
    dev->op->sparse24(dev, have, statistic, false);
    dev->op->wait(dev);
    golden_compare(golden_row_of(r, "weights behind masks", 0, 0), GOLDEN_ABSOLUTE, have,
                   golden_read(g, BQ_F32, w.rows, w.cols, "%s", name), name);
}

void golden_sparse(golden *g, bq_comm *comm, golden_report *r) {
    bq_dev dev;
    (void)comm;
    bq_mat w = golden_read(g, BQ_F32, -1, -1, "W"), x = golden_read(g, BQ_F32, -1, w.cols, "X"),
           norm = golden_read(g, BQ_F32, 1, w.cols, "wanda_norm");
    golden_require(bq_dev_open(&dev, "cpu", 1, ((size_t)1 << 20) + 4 * bq_mat_bytes(w)));
    bq_mat sum = bq_arena_push(&dev.mem, 1, w.cols, BQ_F32);
    dev.op->column_squares(&dev, x, sum);
    dev.op->wait(&dev);
    golden_compare(golden_row_of(r, "sums of squares", 3e-7, 0), GOLDEN_LARGEST, sum, norm, "wanda_norm");
    mask(&dev, g, r, "magnitude", w, (bq_mat){0});
    mask(&dev, g, r, "wanda", w, sum);
    bq_dev_close(&dev);
}
