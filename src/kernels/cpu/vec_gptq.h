/* vec_gptq.h - the vector functions of GPTQ (vec_gptq.c): X(return type, name, (arguments)).
 *
 * A panel holds BQ_GPTQ_ROWS rows of a linear side by side.  So a column of the linear is a line of
 * BQ_GPTQ_ROWS numbers, one for each lane. */
#ifndef BQ_VEC_GPTQ_H
#define BQ_VEC_GPTQ_H

/* What the functions do:
 *   gptq_update       w -= e[k] u[k] for each k < n, one after the other; e: n lines
 *   gptq_update_all   the same for `count` lines of w, each with its own u; the u are ldu apart
 *   gptq_quantize     one column: w becomes the weight that is kept, e = (w - w_hat) / d; zero: one a lane
 *   fit_error         sum weight (w_hat - w)^2 of a row on a grid; above `limit` it may stop early and return
 *                     any number above it */
#define BQ_VEC_GPTQ(X)                                                                                       \
    X(void, gptq_update, (float *w, const float *e, const float *u, int64_t n))                              \
    X(void, gptq_update_all,                                                                                 \
      (float *w, int64_t count, const float *e, const float *u, int64_t ldu, int64_t n))                     \
    X(void, gptq_quantize,                                                                                   \
      (float *w, const float *scale, const float *zero, bq_scheme s, float d, float *e))                     \
    X(double, fit_error,                                                                                     \
      (const float *w, const float *weight, int64_t n, const bq_row_grid *at, double limit))
#endif
