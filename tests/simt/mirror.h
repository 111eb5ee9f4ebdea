/* SPDX-License-Identifier: Apache-2.0 */
/* mirror.h - the two halves of the mirror: mirror.c runs and compares, mirror_ops.cc makes the table. */
#ifndef MIRROR_H
#define MIRROR_H

#include "base/die.h"
#include "kernels/ops.h"

#define MIRROR_HOST BQ_PINNED /* the place of a matrix that an op writes on the host */

typedef struct mirror_run mirror_run;

/* Take the op's matrices (a list that ends with NULL; those without data do not count).  calls: how often the
 * op was called, counted here. */
mirror_run *mirror_start(bq_dev *dev, const char *op, double limit, unsigned *calls, bq_mat **mats);
/* The device of the next run, the matrices made to fit it; NULL after the last one. */
bq_dev *mirror_next(mirror_run *run);

/* The cpu's table, with ops that run on both backends. */
bq_ops mirror_ops(void);

/* The emulator's schedule: 0, 1, 2.  On a GPU there is none to choose. */
void mirror_schedule(int which) __attribute__((weak));

#endif
