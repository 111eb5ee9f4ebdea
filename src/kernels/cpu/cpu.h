/* SPDX-License-Identifier: Apache-2.0 */
/* cpu.h - the ops of the cpu backend, one file for each topic; cpu.c has the table.  Contracts:
 * kernels/ops.def. */
#ifndef BQ_CPU_H
#define BQ_CPU_H

#include "kernels/ops.h"
#include "kernels/want.h"

/* End the job unless all these matrices have that shape; and are f32, or of that type. */
#define BQ_WANT(dev, rows, cols, ...) BQ_WANT_AS(dev, BQ_F32, rows, cols, __VA_ARGS__)
#define BQ_WANT_AS(dev, type, rows, cols, ...)                                                               \
    bq_want(dev, __func__, #__VA_ARGS__, type, rows, cols, sizeof((bq_mat[]){__VA_ARGS__}) / sizeof(bq_mat), \
            (bq_mat[]){__VA_ARGS__})

/* An element of a matrix of f32 or f64, as a double. */
static inline double bq_cpu_number(bq_mat m, int64_t r, int64_t c) {
    return m.type == BQ_F64 ? *(double *)bq_mat_at(m, r, c) : (double)*(float *)bq_mat_at(m, r, c);
}

/* The name of the BLAS with its version and kernel.  The first call tests it: its products must be right, and
 * calls from several threads must give the bits of a single call; else the job ends. */
const char *bq_blas_name(void);
/* The name of the kernel that OpenBLAS has chosen; NULL where the BLAS is another one. */
const char *bq_blas_core(void);

#define OP(type, name, class, ...) type bq_cpu_##name(bq_dev *dev, __VA_ARGS__);
#include "kernels/ops.def"

#endif
