/* Checks of grids. */
#include "kernels/cuda/cuda_ops.h"

void bq_cuda_want_grid(bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero, const char *op) {
    BQ_CHECK(s.bits >= 2 && s.bits <= 8, "%s: only grids of 2 to 8 bits, not %d", op, s.bits);
    BQ_CHECK(s.scale == BQ_F32 || s.scale == BQ_BF16 || s.scale == BQ_F16, "scales are not stored as %s",
             bq_type_name(s.scale));
    BQ_CHECK(s.symmetric == !zero.data, "%s: a grid has zero points when it is not symmetric", op);
    bq_cuda_want(w, w.rows, w.cols, BQ_F32, op, "w");
    bq_cuda_want(scale, w.rows, 1, BQ_F32, op, "scale");
    if (zero.data) bq_cuda_want(zero, w.rows, 1, BQ_F32, op, "zero");
}
