/* Checks of grids. */
#include "kernels/cuda/cuda_ops.h"

void bq_cuda_want_grid(bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero, const char *op) {
    BQ_CHECK(s.bits >= 2 && s.bits <= 8, "%s: only grids of 2 to 8 bits, not %d", op, s.bits);
    BQ_CHECK(s.scale == BQ_F32 || s.scale == BQ_BF16 || s.scale == BQ_F16, "scales are not stored as %s",
             bq_type_name(s.scale));
    BQ_CHECK(s.symmetric == !zero.data, "%s: a grid has zero points when it is not symmetric", op);
    bq_cuda_want(op, "w", BQ_F32, w.rows, w.cols, {w});
    bq_cuda_want(op, "scale", BQ_F32, w.rows, 1, {scale});
    if (zero.data) bq_cuda_want(op, "zero", BQ_F32, w.rows, 1, {zero});
}
