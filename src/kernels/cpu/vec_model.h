/* SPDX-License-Identifier: Apache-2.0 */
/* vec_model.h - the vector functions of model ops (vec_model.c): X(return type, name, (arguments)).
 *
 * Arrays are rows of n numbers.  An output may be one of the inputs (each element is read before it is
 * written); else they do not overlap.  Sums: lane l adds elements l, l + 16, ... in order; then lanes are
 * added as l and l + 8, l and l + 4, and so on. */
#ifndef BQ_VEC_MODEL_H
#define BQ_VEC_MODEL_H

/* A tile of attention scores: rows are queries, columns are keys, rows are ld numbers apart.  Row r sees the
 * columns c with shift + r - window < c <= shift + r; window 0: no lower end.  Unless cap is 0, the functions
 * on tiles first make cap * tanh(s / cap) of a score s. */
typedef struct {
    int64_t rows, cols, ld, shift, window;
    float cap;
} bq_tile;

/* What the functions do:
 *   add            y += x
 *   times          y = x * factor
 *   add_times      y += x * factor
 *   rmsnorm        y = x * r * weight, r = 1 / sqrt(mean(x^2) + eps)
 *   rmsnorm_bwd    dx += r weight dy - x (r^3 / n) sum(weight dy x)
 *   rope           one token: heads of size hd, of which the first 2 * half channels are turned
 *   glu, glu_bwd   as in kernels/ops.h
 *   mse            returns sum (y - target)^2 in double; unless dy is NULL, dy = slope (y - target)
 *   dot            returns sum a b
 *   squares        sum x^2 in double
 *   sum_exp        *max = max(x); returns sum exp(x - max) in double
 *   cap            x = cap * tanh(x / cap)
 *   distill        of logits x and y, capped unless cap is 0: returns KL(softmax y || softmax x); x becomes
 *                  slope (softmax x - softmax y), times the derivative of the cap
 *   softmax_tile   one step of the running softmax.  max and sum (one for each row) and out (rows, hd) are
 *                  the results of the tiles before.  Scores s become exp(s - new max), invisible ones 0; max
 *                  and sum are updated; out is scaled to the new max
 *   softmax_bwd    scores s become p = exp(s - lse), invisible ones 0; dp becomes p (dp - d), the
 *                  gradient of the scores as they were before the cap */
#define BQ_VEC_MODEL(X)                                                                                      \
    X(void, add, (int64_t n, const float *x, float *y))                                                      \
    X(void, times, (int64_t n, float factor, const float *x, float *y))                                      \
    X(void, add_times, (int64_t n, float factor, const float *x, float *y))                                  \
    X(void, rmsnorm, (int64_t n, const float *x, const float *weight, float eps, float *y))                  \
    X(void, rmsnorm_bwd,                                                                                     \
      (int64_t n, const float *x, const float *weight, float eps, const float *dy, float *dx))               \
    X(void, rope,                                                                                            \
      (int64_t heads, int64_t hd, int64_t half, const float *cos, const float *sin, unsigned how, float *x)) \
    X(void, glu, (int64_t n, bq_act act, float limit, const float *g, const float *u, float *z))             \
    X(void, glu_bwd,                                                                                         \
      (int64_t n, bq_act act, float limit, const float *g, const float *u, const float *dz, float *dg,       \
       float *du))                                                                                           \
    X(double, mse, (int64_t n, const float *y, const float *target, float slope, float *dy))                 \
    X(float, dot, (int64_t n, const float *a, const float *b))                                               \
    X(double, squares, (int64_t n, const float *x))                                                          \
    X(double, sum_exp, (int64_t n, const float *x, float *max))                                              \
    X(void, cap, (int64_t n, float cap, float *x))                                                           \
    X(double, distill, (int64_t n, float cap, float slope, float *x, const float *y))                        \
    X(void, softmax_tile,                                                                                    \
      (bq_tile t, float *s, float *max, float *sum, int64_t hd, int64_t ldo, float *out))                    \
    X(void, softmax_bwd, (bq_tile t, const float *lse, const float *d, float *s, float *dp))

#endif
