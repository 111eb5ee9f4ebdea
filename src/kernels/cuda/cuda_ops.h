/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_ops.h - the ops of the cuda backend, one file for each topic; cuda.cu has the table. */
#ifndef BQ_CUDA_OPS_H
#define BQ_CUDA_OPS_H

#include "kernels/cuda/cuda.h"

/* move.cu */
void bq_cuda_put(bq_dev *dev, bq_mat host, bq_mat to);
void bq_cuda_get(bq_dev *dev, bq_mat from, bq_mat host);
void bq_cuda_put_ahead(bq_dev *dev, bq_mat pinned, bq_mat to);
bool bq_cuda_arrived(bq_dev *dev);
void bq_cuda_join(bq_dev *dev);
/* graph.cu */
bool bq_cuda_replay(bq_dev *dev, uint64_t key);
void bq_cuda_recorded(bq_dev *dev);
void bq_cuda_forget(bq_dev *dev);
/* mse.cu: sum[0], on the host after the next wait, is factor * (x[0] + x[1] + ...), in this order. */
void bq_cuda_sum(bq_dev *dev, const double *x, int64_t n, double factor, double *sum);

#define OP(type, name, class, ...) type bq_cuda_##name(bq_dev *dev, __VA_ARGS__);
#include "kernels/ops.def"

#endif
