/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which GPTQ takes the columns: for each column count how many come before it. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __global__ void rank_columns(bq_rows<float> diag, bool keep, int64_t group, int64_t k,
                                    bq_rows<int32_t> order) {
    const int64_t c = bq_column();
    if (c < k) *bq_row(order, keep ? c : bq_order_rank(diag.data, diag.ld, k, group, c)) = (int32_t)c;
}

void bq_cuda_order(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat order) {
    const int64_t k = diag.rows;
    BQ_WANT(dev, k, 1, diag);
    BQ_WANT_AS(dev, BQ_I32, k, 1, order);
    BQ_CHECK(k <= INT32_MAX && (kind != BQ_ORDER_GAR || (group > 0 && k % group == 0)),
             "order of %ld columns in groups of %ld", (long)k, (long)group);
    bq_launch(dev, dim3(bq_pieces(k, BQ_THREADS)), BQ_THREADS, rank_columns, diag, kind == BQ_ORDER_NONE,
              kind == BQ_ORDER_GAR ? group : k, k, order);
}
