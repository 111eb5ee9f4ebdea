/* The order in which GPTQ takes the columns: for each column count how many come before it. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __device__ float weight_at(bq_rows<float> diag, int64_t c) {
    const float d = *bq_row(diag, c);
    return d == d ? d : 0;
}

static __device__ float largest(bq_rows<float> diag, int64_t first, int64_t count) {
    float most = weight_at(diag, first);
    for (int64_t c = first + 1; c < first + count; c++) most = fmaxf(most, weight_at(diag, c));
    return most;
}

static __global__ void rank_columns(bq_rows<float> diag, bool keep, int64_t group, int64_t k,
                                    bq_rows<int32_t> order) {
    const int64_t c = bq_column();
    if (c >= k) return; /* allowed: no barrier follows */
    const int64_t mine = c / group * group;
    const float d = weight_at(diag, c), top = group < k ? largest(diag, mine, group) : 0;
    int64_t rank = 0;
    for (int64_t o = mine; o < mine + group; o++) {
        const float other = weight_at(diag, o);
        rank += other > d || (other == d && o < c);
    }
    for (int64_t g = 0; g < k && group < k; g += group) {
        const float other = g == mine ? 0 : largest(diag, g, group);
        rank += g != mine && (other > top || (other == top && g < mine)) ? group : 0;
    }
    *bq_row(order, keep ? c : rank) = (int32_t)c;
}

void bq_cuda_order(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat order) {
    const int64_t k = diag.rows;
    bq_cuda_want(diag, k, 1, BQ_F32, "order", "diag");
    bq_cuda_want(order, k, 1, BQ_I32, "order", "order");
    BQ_CHECK(k <= INT32_MAX && (kind != BQ_ORDER_GAR || (group > 0 && k % group == 0)),
             "order of %ld columns in groups of %ld", (long)k, (long)group);
    bq_launch(dev, dim3(bq_pieces(k, BQ_THREADS)), BQ_THREADS, rank_columns, bq_f32_rows(diag),
              kind == BQ_ORDER_NONE, kind == BQ_ORDER_GAR ? group : k, k, bq_rows_of<int32_t>(order));
}
