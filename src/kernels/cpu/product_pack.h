/* SPDX-License-Identifier: Apache-2.0 */
/* product_pack.h - the operands of products (product.h), cut into tiles of 1024 bytes.  A tile has 16 rows x
 * 32 k of bf16, one tile for each bf16 that stands for a float; or 16 rows x 16 k of floats. */
#ifndef BQ_PRODUCT_PACK_H
#define BQ_PRODUCT_PACK_H

#include "kernels/cpu/product.h"

#define STEP       32   /* k in a tile of bf16 */
#define FLOAT_STEP 16   /* k in a tile of floats */
#define TILE       1024 /* bytes of a tile */

/* How many tiles stand for one of a, or of b. */
static inline int bq_product_terms(bq_product_kind kind, bool b) {
    if (kind == BQ_PRODUCT_CODES) return b ? 1 : 3;
    return kind == BQ_PRODUCT_F32 ? 1 : (int)kind;
}

/* Pack 16 rows of m from `row`, and their `depth` k from `k`, times alpha, as tiles one after the other.
 * What lies beyond m is 0.  A row of a tile is a row of the operand; with `pairs`, as b needs it, a pair of k
 * (a single k of floats) of 16 rows, side by side.  alpha of codes is 1.  `to` is aligned to 64 bytes. */
void bq_product_pack(bq_product_side m, bq_product_kind kind, bool pairs, float alpha, int64_t row, int64_t k,
                     int64_t depth, char *to);

/* Transpose 16 x 16 words of 32 bits, in place. */
void bq_product_transpose(char *tile);

#endif
