/* hadamard.h - Hadamard matrices: entries 1 and -1, H H^T = n I.
 *
 * A size is a power of two (Sylvester) times orders of Paley's two constructions over primes:
 *   I   q = 3 mod 4, order q + 1: the identity plus the skew conference matrix of q
 *   II  q = 1 mod 4, order 2 (q + 1): the symmetric conference matrix of q with each 1 replaced by
 *       [1 1; 1 -1] and each 0 by [1 -1; -1 -1]
 * The conference matrix has the quadratic character chi(i - j) mod q, bordered by a row of ones and a column
 * of chi(-1).  H is the Kronecker product of its factors, the power of two last: 576 = 36 x 16. */
#ifndef BQ_BLOCK_HADAMARD_H
#define BQ_BLOCK_HADAMARD_H

#include <stdbool.h>
#include <stdint.h>

#define BQ_HADAMARD_FACTORS 3
#define BQ_HADAMARD_ORDER   196 /* the largest of a factor */

typedef struct {
    int64_t n, power; /* power: of two */
    int factors, order[BQ_HADAMARD_FACTORS];
} bq_hadamard;

/* The factors of size n: as few as there can be, the smallest first.  False when there are none: n is odd
 * and above 1, or needs an order that these constructions do not have, as 172 for 11008. */
bool bq_hadamard_of(int64_t n, bq_hadamard *h);

/* Is there a Paley matrix of that order, up to BQ_HADAMARD_ORDER?  Its entries, (order, order). */
bool bq_hadamard_has(int order);
void bq_hadamard_factor(int order, int8_t *m);

#endif
