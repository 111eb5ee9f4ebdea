/* bf16.h - matrix products in f32 made of products of bf16: on the tile unit (AMX) or, one bf16 a float, in
 * vectors (AVX512_BF16) of processors that have them.
 *
 * Both multiply bf16 and add in f32. A float is exactly the sum of three bf16, x = x1 + x2 + x3 with
 * |x2| <= 2^-9 |x1| and |x3| <= 2^-18 |x1|, so a product of floats is nine products of bf16:
 *
 *   BQ_BF16_X6   x1 y1, x1 y2, x2 y1, x1 y3, x2 y2, x3 y1   what is left out is 2^-27 of a product: no larger
 * an error than sgemm's BQ_BF16_X3   x1 y1, x1 y2, x2 y1                        2^-18 of a product BQ_BF16_X1
 * x1 y1                                      2^-9 of a product: operands are rounded to bf16
 *
 * An element of c is one chain of sums over k, whatever the shape around it and the number of threads: the
 * same bits.  Values below 2^-110 may count as 0; infinities become NaN. */
#ifndef BQ_BF16_H
#define BQ_BF16_H

#include "kernels/ops.h"

typedef enum {
    BQ_BF16_X1 = 1,
    BQ_BF16_X3 = 2,
    BQ_BF16_X6 = 3
} bq_bf16_terms; /* bf16 that stand for a float */

/* What this process has: the tile unit does all terms, vectors only X1.  Asks the system for it once.  NONE
 * where BQ_CPU_ISA (vec.h) names vectors. */
typedef enum { BQ_BF16_NONE, BQ_BF16_VECTORS, BQ_BF16_TILES } bq_bf16_unit;
bq_bf16_unit bq_bf16(void);

/* The terms that products should be made of here; 0: none, floats are faster. */
bq_bf16_terms bq_bf16_of(bq_compute compute);

/* An operand: row r of op(a), column by column of k, or row r of op(b)^T. `across`: consecutive rows are
 * neighbours in memory, and consecutive k are ld apart; else the other way round. */
typedef struct {
    const float *at;
    int64_t ld, rows;
    bool across;
} bq_bf16_side;

/* c (a.rows, b.rows) = alpha * sum_k a(i, k) b(j, k) + beta * c.  Each thread that calls it has a buffer of
 * BQ_BF16_BYTES for its team, outside all arenas, from the first call on. */
#define BQ_BF16_BYTES (size_t)(6 << 20)
void bq_bf16_gemm(bq_bf16_terms terms, int64_t k, float alpha, bq_bf16_side a, bq_bf16_side b, float beta,
                  float *c, int64_t ldc);

#endif
