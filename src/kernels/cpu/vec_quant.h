/* vec_quant.h - rows of the vector table for quantizer ops (vec_quant.c), and what they share with the ops
 * around.
 *
 * X(return type, name, (arguments)).  n counts elements of one row; rows lie contiguous. */
#ifndef BQ_VEC_QUANT_H
#define BQ_VEC_QUANT_H

#include "kernels/adam.h"

/* One row's grid: codes qmin .. qmax, whole numbers of at most 8 bits, times scale > 0. */
typedef struct {
    float scale, qmin, qmax;
} bq_grid;

/* Die where the scheme, or the shapes of one scale (and zero point) a row of w, are not as kernels/ops.h has
 * them. */
void bq_grid_check(bq_scheme s, bq_mat w, bq_mat scale, bq_mat zero, const char *op);

/* mix: words first .. first + n - 1 of the place; a word <= last takes qt.
 * minmax: smallest and largest of the row and 0; NaN is passed over.
 * quantize: NaN becomes qmin; the grid's ends are without the zero point, which codes have added.
 * adascale_row: e3 = exp(s3); fold may be NULL.
 * adascale_step: sum[0] = dL/dscale, sum[1] = ds3 = sum of ds2.  grad NULL: s2, m and v move; else grad gets
 * ds2 and nothing moves. */
#define BQ_VEC_QUANT(X)                                                                                      \
    X(void, mix,                                                                                             \
      (const float *fp, const float *qt, int64_t n, int64_t first, uint32_t last, bq_rng_key at,             \
       float *out))                                                                                          \
    X(void, minmax, (const float *w, int64_t n, float *lo, float *hi))                                       \
    X(void, quantize, (const float *w, int64_t n, bq_grid grid, int zero, int8_t *code))                     \
    X(void, dequantize, (const int8_t *code, int64_t n, float scale, int zero, float *w))                    \
    X(void, fake_quantize, (const float *x, int64_t n, bq_grid grid, float *y))                              \
    X(void, adascale_row,                                                                                    \
      (const float *w, const float *s2, int64_t n, float e3, bq_grid grid, float *what, float *fold))        \
    X(void, adascale_step,                                                                                   \
      (const float *w, const float *g, int64_t n, float e3, bq_grid grid, bq_adam_step adam, float *s2,      \
       float *m, float *v, float *grad, double sum[2]))                                                      \
    X(void, adam, (const float *g, int64_t n, bq_adam_step adam, float *p, float *m, float *v))
#endif
