/* SPDX-License-Identifier: Apache-2.0 */
/* vec_quant.h - the vector functions of quantizer ops (vec_quant.c), X(return type, name,
 * (arguments)), and what they share with the ops that call them.  n is the number of elements of one
 * row, which are contiguous. */
#ifndef BQ_VEC_QUANT_H
#define BQ_VEC_QUANT_H

#include "kernels/adam.h"

/* What the functions do:
 *   mix             elements first ... first + n - 1 of the matrix; a word <= last takes qt
 *   minmax          the smallest and the largest of the row and `start`; NaN is skipped
 *   quantize        NaN becomes qmin; origin (bq_code_origin) is added to the codes of integers
 *   adascale_row    e3 = exp(s3); fold may be NULL
 *   adascale_codes  the same, but what becomes the codes, as f16 or else as bf16
 *   adascale_step   sum[0] = dL/dscale, sum[1] = ds3 = sum of ds2.  grad NULL: s2, m and v are updated; else
 *                   grad becomes ds2 and nothing is updated
 *   adam            one Adam step of p with gradient g and moments m, v */
#define BQ_VEC_QUANT(X)                                                                                      \
    X(void, mix,                                                                                             \
      (const float *fp, const float *qt, int64_t n, int64_t first, uint32_t last, bq_rng_key at,             \
       float *out))                                                                                          \
    X(void, minmax, (const float *w, int64_t n, float start, float *lo, float *hi))                          \
    X(void, quantize, (const float *w, int64_t n, const bq_row_grid *at, int origin, int8_t *code))          \
    X(void, quantize_float, (const float *w, int64_t n, bq_row_grid grid, bq_element e, int8_t *code))       \
    X(void, dequantize, (const int8_t *code, int64_t n, float scale, int zero, float *w))                    \
    X(void, dequantize_offset, (const int8_t *code, int64_t n, float scale, float zero, float *w))           \
    X(void, dequantize_float, (const int8_t *code, int64_t n, float scale, bq_element e, float *w))          \
    X(void, round_values, (const float *x, int64_t n, bq_value_grid grid, float *y))                         \
    X(void, adascale_row,                                                                                    \
      (const float *w, const float *s2, int64_t n, float e3, bq_row_grid grid, float *what, float *fold))    \
    X(void, adascale_codes,                                                                                  \
      (const float *w, const float *s2, int64_t n, float e3, bq_row_grid grid, bool half, uint16_t *what,    \
       float *fold))                                                                                         \
    X(void, adascale_step,                                                                                   \
      (const float *w, const float *g, int64_t n, float e3, bq_row_grid grid, bq_adam_step adam, float *s2,  \
       float *m, float *v, float *grad, double sum[2]))                                                      \
    X(void, adam, (const float *g, int64_t n, bq_adam_step adam, float *p, float *m, float *v))
#endif
