/* SPDX-License-Identifier: Apache-2.0 */
/* vec_refine.h - the vector functions of the op refine (vec_refine.c): X(return type, name, (arguments)).
 * Lines and lanes as in vec_gptq.h; all arrays are lines. */
#ifndef BQ_VEC_REFINE_H
#define BQ_VEC_REFINE_H

/* What the functions do:
 *   refine_codes   the numbers that weights become
 *   refine_error   e = target - the value of the number
 *   refine_step    bq_refine_step; e: by how much values fell
 *   refine_sum     sum += a b, in double
 *   refine_shift   r -= by p */
#define BQ_VEC_REFINE(X)                                                                                     \
    X(void, refine_codes, (const float *w, const float *scale, const float *zero, bq_scheme s, float *code)) \
    X(void, refine_error,                                                                                    \
      (const float *code, const float *target, const float *scale, const float *zero, bq_scheme s,           \
       float *e))                                                                                            \
    X(void, refine_step,                                                                                     \
      (float *code, const float *r, const float *scale, const float *zero, bq_scheme s, float d, float *e))  \
    X(void, refine_sum, (const float *a, const float *b, double *sum))                                       \
    X(void, refine_shift, (float *r, const float *by, const float *p))
#endif
