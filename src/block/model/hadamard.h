/* SPDX-License-Identifier: Apache-2.0 */
/* hadamard.h - Hadamard matrices: entries 1 and -1, H H^T = n I.
 *
 * n is a power of two (Sylvester, 1867) times orders of Paley's two constructions (1933) for a prime q:
 *   I   q = 3 mod 4, order q + 1: the identity plus the skew conference matrix of q
 *   II  q = 1 mod 4, order 2 (q + 1): the symmetric conference matrix of q, each 1 replaced by
 *       [1 1; 1 -1], each -1 by the negative of that, and each 0 by [1 -1; -1 -1]
 * Inside, the conference matrix has the quadratic character chi(i - j) mod q; its first row is 0, 1, 1, ...,
 * its first column 0, chi(-1), chi(-1), ...  H is the Kronecker product of its factors, the power of two
 * last: 576 = 36 x 16.  All calls are local. */
#ifndef BQ_BLOCK_HADAMARD_H
#define BQ_BLOCK_HADAMARD_H

#include <stdbool.h>
#include <stdint.h>

#define BQ_HADAMARD_FACTORS 3
#define BQ_HADAMARD_ORDER   196 /* the largest order of a factor */

typedef struct {
    int64_t n, power;                        /* the size, and its factor that is a power of two */
    int factors, order[BQ_HADAMARD_FACTORS]; /* how many Paley matrices; their orders, falling */
} bq_hadamard;

/* The factors of size n: as few Paley matrices as possible, and of these choices the one with the smallest
 * order.  False where there is none: n is odd and above 1, or it needs an order that these constructions do
 * not have, as 11008 needs 172. */
bool bq_hadamard_of(int64_t n, bq_hadamard *h);

/* Is there a Paley matrix of that order, up to BQ_HADAMARD_ORDER? */
bool bq_hadamard_has(int order);
/* Its entries, by rows, into order * order bytes at m. */
void bq_hadamard_factor(int order, int8_t *m);

#endif
