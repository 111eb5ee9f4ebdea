/* SPDX-License-Identifier: Apache-2.0 */
/* product.h - matrix products in f32 by our own kernels, on processors with AMX or AVX512_BF16.
 *
 * Floats are multiplied as they are, in vectors; or they are cut into bf16, whose products are added in f32.
 * A float is exactly the sum of three bf16, x = x1 + x2 + x3, with |x2| <= 2^-9 |x1| and |x3| <= 2^-18 |x1|.
 * So a product of floats is nine products of bf16, of which the smallest are left out.
 *
 * An element of c is one chain of sums over k, whatever the shape around it and the number of threads: always
 * the same bits.  With bf16, values below 2^-110 may count as 0, and infinities become NaN. */
#ifndef BQ_PRODUCT_H
#define BQ_PRODUCT_H

#include "kernels/ops.h"

/* The values 1 to 3 are also how many bf16 stand for a float. */
typedef enum {
    BQ_PRODUCT_BLAS,
    BQ_PRODUCT_BF16,   /* x1 y1: operands rounded to bf16, error 2^-9 */
    BQ_PRODUCT_BF16X3, /* also x1 y2, x2 y1: error 2^-18 of a product */
    BQ_PRODUCT_BF16X6, /* also x1 y3, x2 y2, x3 y1: error 2^-27, no larger than that of a product of floats */
    BQ_PRODUCT_F32,    /* chains of floats, as in sgemm */
    BQ_PRODUCT_CODES   /* b is f16, numbers that bf16 holds: x1 y, x2 y, x3 y, each of them exact */
} bq_product_kind;

/* What the processor has: VECTORS can do BF16 and F32, TILES (AMX) every kind.  The first call asks the
 * system for the tiles.  NONE where BQ_CPU_ISA (vec.h) is set. */
typedef enum { BQ_PRODUCT_NONE, BQ_PRODUCT_VECTORS, BQ_PRODUCT_TILES } bq_product_unit;
bq_product_unit bq_products(void);

/* The fastest kind here that is as exact as `compute` asks for; BQ_PRODUCT_BLAS: none of ours. */
bq_product_kind bq_product_of(bq_compute compute);

/* The same for products whose b is f16: BQ_PRODUCT_CODES or BQ_PRODUCT_BLAS. */
bq_product_kind bq_product_of_codes(bq_compute compute);

/* An operand by rows: row r of op(a), or of op(b)^T, with its elements along k.  across: neighbouring rows
 * are neighbours in memory, and k, k + 1 are ld apart; else the other way round. */
typedef struct {
    const void *at; /* f32; f16 where it is b of BQ_PRODUCT_CODES */
    int64_t ld, rows;
    bool across;
} bq_product_side;

/* c (a.rows, b.rows) = alpha * sum_k a(i, k) b(j, k) + beta * c.  Each thread that calls this gets, at its
 * first call, a buffer of BQ_PRODUCT_BYTES for its team of threads, outside all arenas, and keeps it. */
#define BQ_PRODUCT_BYTES (size_t)(6 << 20)
void bq_product_gemm(bq_product_kind kind, int64_t k, float alpha, bq_product_side a, bq_product_side b,
                     float beta, float *c, int64_t ldc);

/* c (x.rows, x.rows) = sum_k x(i, k) x(j, k).  It computes one triangle, and copies it to the other one. */
void bq_product_gram(bq_product_kind kind, int64_t k, bq_product_side x, float *c, int64_t ldc);

#endif
