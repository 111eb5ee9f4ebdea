/* amx.h - matrix products in f32 on the tile unit (AMX) of processors that have one.
 *
 * The unit multiplies bf16 and adds in f32. A float is exactly the sum of three bf16, x = x1 + x2 + x3 with
 * |x2| <= 2^-9 |x1| and |x3| <= 2^-18 |x1|, so a product of floats is nine products of bf16, of which those
 * of 2^-27 and less are left out:
 *
 *   BQ_AMX_F32     x1 y1, x1 y2, x2 y1, x1 y3, x2 y2, x3 y1    no larger an error than sgemm's; 1.4 times its
 * speed BQ_AMX_BF16X3  x1 y1, x1 y2, x2 y1                          2^-18 of a product; 2.3 times
 *
 * An element of c is one chain of sums over k, whatever the shape around it and the number of threads: the
 * same bits.  Values below 2^-110 may count as 0; infinities become NaN. */
#ifndef BQ_AMX_H
#define BQ_AMX_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { BQ_AMX_BF16X3 = 2, BQ_AMX_F32 = 3 } bq_amx_terms; /* bf16 that stand for a float */

/* Does this process have the unit?  Asks the kernel for it once.  Not where BQ_CPU_ISA (vec.h) names vectors.
 */
bool bq_amx(void);

/* An operand: row r of op(a), column by column of k, or row r of op(b)^T. `across`: consecutive rows are
 * neighbours in memory, and consecutive k are ld apart; else the other way round. */
typedef struct {
    const float *at;
    int64_t ld, rows;
    bool across;
} bq_amx_side;

/* c (a.rows, b.rows) = alpha * sum_k a(i, k) b(j, k) + beta * c.  Each thread that calls it has a buffer of
 * BQ_AMX_BYTES for its team, outside all arenas, from the first call on. */
#define BQ_AMX_BYTES (size_t)(6 << 20)
void bq_amx_gemm(bq_amx_terms terms, int64_t k, float alpha, bq_amx_side a, bq_amx_side b, float beta,
                 float *c, int64_t ldc);

#endif
