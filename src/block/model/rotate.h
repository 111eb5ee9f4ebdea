/* rotate.h - rotations: orthogonal matrices R as plain numbers and a fast product v R, in double.
 *
 *   hadamard    H / sqrt(n)
 *   randomized  diag(+-1) H / sqrt(n), signs from Philox
 *   block       the same H of a smaller size along the diagonal
 *   orthogonal  of any n, uniform over all of them: the Q of a Gaussian matrix from Philox, as the n - 1
 *               Householder reflections that make it (Stewart 1980), never as a matrix
 * H is not symmetric, so R^T is not R.  Everything here is host memory, the caller's. */
#ifndef BQ_BLOCK_ROTATE_H
#define BQ_BLOCK_ROTATE_H

#include "base/rng.h"
#include "block/model/hadamard.h"

#include <stddef.h>

typedef enum {
    BQ_ROTATE_NONE,
    BQ_ROTATE_HADAMARD,
    BQ_ROTATE_RANDOMIZED,
    BQ_ROTATE_BLOCK,
    BQ_ROTATE_ORTHOGONAL
} bq_rotate_kind;

typedef struct {
    bq_rotate_kind kind;
    int64_t n;
    bq_hadamard h;                             /* of n, or of a block */
    double scale;                              /* 1 / sqrt(h.n) */
    const double *factor[BQ_HADAMARD_FACTORS]; /* (order, order) */
    const double *sign;                        /* (n): 1 or -1; NULL: all 1 */
    const double *reflect; /* vectors of length n, n - 1, ..., 2, each of squared norm 2 */
} bq_rotation;

#define BQ_ROTATE_LANES 8 /* vectors that are rotated at once */

/* Is there such a matrix of size n?  block: of the blocks, a divisor of n; not read otherwise. */
bool bq_rotation_exists(bq_rotate_kind kind, int64_t n, int64_t block);

/* Doubles that a rotation keeps; make it in them.  Its random numbers are those of `at`, whose sample is not
 * read. */
size_t bq_rotation_need(bq_rotate_kind kind, int64_t n, int64_t block);
void bq_rotation_make(bq_rotation *r, bq_rotate_kind kind, int64_t n, int64_t block, bq_rng_key at,
                      double *memory);

/* v <- v R for BQ_ROTATE_LANES vectors v: element i of vector l is x[i * BQ_ROTATE_LANES + l].  A vector's
 * result does not depend on its neighbours. */
void bq_rotation_apply(const bq_rotation *r, double *x);

/* A matrix of n x m values, (i, j) at w[i * outer + j * inner], rotated along both sides: each column j is a
 * vector of length n for r1, each row i one of length m for r2 (columns first; they commute).  gamma: NULL,
 * or n factors put on before.  r1, r2: NULL for none; m is at most BQ_ROTATE_PANEL where r2 is given.
 *   weights that read the residual stream, W diag(gamma) R1:  i the input, j the row
 *   weights that write to it, R1^T W:                         i the row, j the input
 * Each value is rounded to float once.  room: bq_rotate_room doubles.  Runs on all threads, with the same
 * bits for any number of them. */
typedef struct {
    float *w;
    int64_t n, m, outer, inner;
} bq_panel;
void bq_rotate_panel(bq_panel p, const float *gamma, const bq_rotation *r1, const bq_rotation *r2,
                     double *room);

#define BQ_ROTATE_PANEL 256
size_t bq_rotate_room(int64_t n); /* for m up to BQ_ROTATE_PANEL */

#endif
