/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs of a linear rounded a token at a time, against compressed-tensors itself: every value. */
#include "golden/replay.h"

#include "kernels/ops.h"

void golden_inputs(golden *g, bq_comm *comm, golden_report *r) {
    bq_dev dev;
    (void)comm;
    bq_mat x = golden_read(g, BQ_F32, -1, -1, "x");
    golden_require(bq_dev_open(&dev, "cpu", 1, ((size_t)1 << 20) + 2 * bq_mat_bytes(x)));
    bq_mat have = bq_arena_push(&dev.mem, x.rows, x.cols, BQ_F32);
    for (int bits = 2; bits <= 8; bits++) {
        char name[8];
        snprintf(name, sizeof name, "y%d", bits);
        if (!golden_has(g, "%s", name)) continue;
        dev.op->round_rows(&dev, x, bq_rounding_of_tokens(bits), (bq_mat){0}, have);
        dev.op->wait(&dev);
        golden_compare(golden_row_of(r, "rounded inputs", 0, 0), GOLDEN_ABSOLUTE, have,
                       golden_read(g, BQ_F32, x.rows, x.cols, "%s", name), name);
    }
    bq_dev_close(&dev);
}
