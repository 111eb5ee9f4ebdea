/* SPDX-License-Identifier: Apache-2.0 */
/* sparse.h - 2:4 sparsity: of four neighbours along a row two stay, and two become 0.  All backends use this
 * source, so masks are equal. */
#ifndef BQ_KERNELS_SPARSE_H
#define BQ_KERNELS_SPARSE_H

#include <math.h>
#include <stdbool.h>

/* Which weights GPTQ makes 0, and leaves so:
 *   NONE   none
 *   TWO    two of four neighbours, chosen when their turn comes, by |w / u_kk| (SparseGPT)
 *   KEPT   those that are 0 before */
typedef enum { BQ_SPARSE_NONE, BQ_SPARSE_TWO, BQ_SPARSE_KEPT } bq_sparse;

/* NaN is as important as infinity, so that a run that diverged shows it. */
static inline float bq_importance(float x) {
    x = fabsf(x);
    return x < INFINITY ? x : INFINITY;
}

/* Does a weight stay, of importance x?  a, b, c: those of its neighbours, of which the first `earlier` are
 * before it.  The two least important go; of equal ones the earlier. */
static inline bool bq_stays(float x, float a, float b, float c, int earlier) {
    const int first =
        (earlier > 0 ? a <= x : a < x) + (earlier > 1 ? b <= x : b < x) + (earlier > 2 ? c <= x : c < x);
    return first >= 2;
}

#endif
