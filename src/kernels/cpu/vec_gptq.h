/* vec_gptq.h - rows of the vector table for GPTQ (vec_gptq.c).
 *
 * A panel holds BQ_GPTQ_ROWS rows of a linear side by side: a column of the linear is a line of so many
 * numbers, one a lane.  X(return type, name, (arguments)). */
#ifndef BQ_VEC_GPTQ_H
#define BQ_VEC_GPTQ_H

/* gptq_update: w -= sum over k < n, one after the other, of e[k] u[k]; e: n lines.
 * gptq_update_all: the same for `count` lines of w, each with its own u, ldu apart.
 * gptq_quantize: one column: w becomes the weight that is kept, e = (w - q) / d.  zero: the lanes' zero
 * points.
 * fit_error: sum weight error^2 of a row on a grid; beyond `limit` any number above it. */
#define BQ_VEC_GPTQ(X)                                                                                       \
    X(void, gptq_update, (float *w, const float *e, const float *u, int64_t n))                              \
    X(void, gptq_update_all,                                                                                 \
      (float *w, int64_t count, const float *e, const float *u, int64_t ldu, int64_t n))                     \
    X(void, gptq_quantize,                                                                                   \
      (float *w, const float *scale, const float *zero, bq_scheme s, float d, float *e))                     \
    X(double, fit_error, (const float *w, const float *weight, int64_t n, bq_grid grid, double limit))
#endif
