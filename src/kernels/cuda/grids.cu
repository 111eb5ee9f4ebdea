/* Checks of grids. */
#include "kernels/cuda/cuda_ops.h"

void bq_cuda_want_grid(bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero, const char *op) {
    BQ_CHECK(bq_scheme_valid(s, zero.data), "%s: no grid of %s with scales in %s and %d zero points", op,
             bq_element_name(s.element), bq_type_name(s.scale), zero.data != NULL);
    bq_cuda_want(w, w.rows, w.cols, BQ_F32, op, "w");
    bq_cuda_want(scale, w.rows, 1, BQ_F32, op, "scale");
    if (zero.data) bq_cuda_want(zero, w.rows, 1, BQ_F32, op, "zero");
}
