/* product.h - matrix products in f32 by our own kernels, on processors with AMX or AVX512_BF16.
 *
 * Floats are multiplied as they are, in vectors, or cut into bf16 whose products are added in f32.  A float
 * is exactly the sum of three bf16, x = x1 + x2 + x3 with |x2| <= 2^-9 |x1| and |x3| <= 2^-18 |x1|, so a
 * product of floats is nine products of bf16, of which the smallest are left out.
 *
 * An element of c is one chain of sums over k, whatever the shape around it and the number of threads: the
 * same bits.  From bf16, values below 2^-110 may count as 0, and infinities become NaN. */
#ifndef BQ_PRODUCT_H
#define BQ_PRODUCT_H

#include "kernels/ops.h"

/* 1 to 3 are also the number of bf16 that stand for a float. */
typedef enum {
    BQ_PRODUCT_BLAS,
    BQ_PRODUCT_BF16,   /* x1 y1: operands rounded to bf16, 2^-9 */
    BQ_PRODUCT_BF16X3, /* x1 y1, x1 y2, x2 y1: but for 2^-18 of a product */
    BQ_PRODUCT_BF16X6, /* and x1 y3, x2 y2, x3 y1: but for 2^-27, no larger an error than that of floats */
    BQ_PRODUCT_F32     /* chains of floats, as sgemm's */
} bq_product_kind;

/* What this process has: VECTORS make BF16 and F32, TILES (AMX) all kinds.  Asks the system for it once. NONE
 * where BQ_CPU_ISA (vec.h) names vectors. */
typedef enum { BQ_PRODUCT_NONE, BQ_PRODUCT_VECTORS, BQ_PRODUCT_TILES } bq_product_unit;
bq_product_unit bq_products(void);

/* The kind that is fastest here for what is allowed; BQ_PRODUCT_BLAS: none of ours. */
bq_product_kind bq_product_of(bq_compute compute);

/* An operand: row r of op(a), column by column of k, or row r of op(b)^T. `across`: consecutive rows are
 * neighbours in memory, and consecutive k are ld apart; else the other way round. */
typedef struct {
    const float *at;
    int64_t ld, rows;
    bool across;
} bq_product_side;

/* c (a.rows, b.rows) = alpha * sum_k a(i, k) b(j, k) + beta * c.  Each thread that calls it has a buffer of
 * BQ_PRODUCT_BYTES for its team, outside all arenas, from the first call on. */
#define BQ_PRODUCT_BYTES (size_t)(6 << 20)
void bq_product_gemm(bq_product_kind kind, int64_t k, float alpha, bq_product_side a, bq_product_side b,
                     float beta, float *c, int64_t ldc);

/* c (x.rows, x.rows) = sum_k x(i, k) x(j, k): half of the products, and the same bits in both triangles. */
void bq_product_gram(bq_product_kind kind, int64_t k, bq_product_side x, float *c, int64_t ldc);

#endif
