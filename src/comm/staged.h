/* staged.h - matrices of a device in memory that MPI can use.
 *
 * Where the device is the host that is the matrix itself.  Else it is a view of the device's staging memory
 * (pinned host memory): contiguous, with the matrix's shape.  One staging area is open at a time; its views
 * are valid until the next one is opened.  A bq_stage is no stage of the grid.  Local. */
#ifndef BQ_STAGED_H
#define BQ_STAGED_H

#include "kernels/ops.h"

typedef struct {
    bq_dev *dev;
    char *at;
} bq_stage;

/* Bytes of staging memory for one matrix. */
size_t bq_stage_need(int64_t rows, int64_t cols, bq_type type);

/* Open a staging area for matrices of `bytes` bytes in all. */
bq_stage bq_stage_open(bq_dev *dev, size_t bytes);

/* The host view of m (m itself where the device is the host):
 *   room   contents undefined
 *   get    with m's contents, which are there after the device's next wait
 *   put    start to copy a host view back to m */
bq_mat bq_stage_room(bq_stage *stage, bq_mat m);
bq_mat bq_stage_get(bq_stage *stage, bq_mat m);
void bq_stage_put(bq_stage *stage, bq_mat host, bq_mat m);

#endif
