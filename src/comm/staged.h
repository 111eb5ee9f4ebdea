/* staged.h - matrices of a device as MPI may touch them: the matrix itself where the device is the host, else
 * a view of the device's staging memory, contiguous and of the same shape.
 *
 * One stage is open at a time; its views are valid until the next one is opened.  Local. */
#ifndef BQ_STAGED_H
#define BQ_STAGED_H

#include "kernels/ops.h"

typedef struct {
    bq_dev *dev;
    char *at;
} bq_stage;

/* Bytes of one view. */
size_t bq_stage_need(int64_t rows, int64_t cols, bq_type type);

/* Room for views of `bytes` in all. */
bq_stage bq_stage_open(bq_dev *dev, size_t bytes);

/* m on the host: its room alone; with m's contents after the next wait of the device; and back to m. */
bq_mat bq_stage_room(bq_stage *stage, bq_mat m);
bq_mat bq_stage_get(bq_stage *stage, bq_mat m);
void bq_stage_put(bq_stage *stage, bq_mat host, bq_mat m);

#endif
