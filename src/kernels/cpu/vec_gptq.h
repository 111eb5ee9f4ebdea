/* SPDX-License-Identifier: Apache-2.0 */
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
 *   gptq_choose       keep = 1 where a weight of 4 lines w stays, 0 elsewhere; d: their 4 divisors
 *   gptq_drop         behind gptq_quantize: where keep is 0 the weight, which was `before`, becomes 0
 *   sparse24          as the op, one row
 *   fit_error         sum weight (w_hat - w)^2 of a row on a grid; above `limit` it may stop early and return
 *                     any number above it */
#define BQ_VEC_GPTQ(X)                                                                                       \
    X(void, gptq_update, (float *w, const float *e, const float *u, int64_t n))                              \
    X(void, gptq_update_all,                                                                                 \
      (float *w, int64_t count, const float *e, const float *u, int64_t ldu, int64_t n))                     \
    X(void, gptq_quantize,                                                                                   \
      (float *w, const float *scale, const float *zero, bq_scheme s, float d, float *e))                     \
    X(void, gptq_choose, (const float *w, const float *d, float *keep))                                      \
    X(void, gptq_drop, (const float *before, const float *keep, float d, float *w, float *e))                \
    X(void, sparse24, (float *w, const float *statistic, bool root, int64_t n))                              \
    X(double, fit_error,                                                                                     \
      (const float *w, const float *weight, int64_t n, const bq_row_grid *at, double limit))
#endif
