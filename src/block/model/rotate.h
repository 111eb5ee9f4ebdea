/* SPDX-License-Identifier: Apache-2.0 */
/* rotate.h - rotations: orthogonal matrices R, and a fast product v R in double.
 *
 *   hadamard    H / sqrt(n)
 *   randomized  diag(+-1) H / sqrt(n), signs from Philox
 *   block       the Hadamard matrix of a smaller size, repeated along the diagonal
 *   orthogonal  uniform over all orthogonal matrices, for any n: the Q of a Gaussian matrix from Philox, kept
 *               as n - 1 Householder reflections (Stewart, 1980), never as a matrix
 * H need not be symmetric, so R^T may differ from R.  All memory is the caller's, on the host.  All calls are
 * local. */
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
    bq_hadamard h;                             /* of size n, or of the size of a block */
    double scale;                              /* 1 / sqrt(h.n) */
    const double *factor[BQ_HADAMARD_FACTORS]; /* (order, order) */
    const double *sign;                        /* (n): 1 or -1; NULL: all 1 */
    const double *reflect; /* vectors of length n, n - 1, ..., 2, each of squared norm 2 */
} bq_rotation;

#define BQ_ROTATE_LANES 8 /* vectors that are rotated at once */

/* Is there such a matrix of size n?  Here and below `block` is the size of the blocks, a divisor of n; only
 * BQ_ROTATE_BLOCK reads it. */
bool bq_rotation_exists(bq_rotate_kind kind, int64_t n, int64_t block);

/* How many doubles a rotation needs, and make it there; `memory` must live as long as the rotation.  at: the
 * key of its random numbers; at.sample is ignored.  A size that does not exist ends the job. */
size_t bq_rotation_need(bq_rotate_kind kind, int64_t n, int64_t block);
void bq_rotation_make(bq_rotation *r, bq_rotate_kind kind, int64_t n, int64_t block, bq_rng_key at,
                      double *memory);

/* The rotation that is a given matrix, which is orthogonal up to rounding: it becomes exactly orthogonal,
 * kept as reflections (Householder's QR).  columns: the matrix, (n, n) doubles, a column after the other;
 * destroyed. memory: as for BQ_ROTATE_ORTHOGONAL.  Runs on all threads; the bits do not depend on their
 * number. */
void bq_rotation_of(bq_rotation *r, int64_t n, double *columns, double *memory);

/* v becomes v R, for BQ_ROTATE_LANES vectors v of length n: element i of vector l is
 * x[i * BQ_ROTATE_LANES + l].  The result of a vector does not depend on the others. */
void bq_rotation_apply(const bq_rotation *r, double *x);

/* Rotate a matrix of n x m values in place, (i, j) at w[i * outer + j * inner], m <= BQ_ROTATE_PANEL: first
 * row i is multiplied by gamma[i], then r1 rotates each column (length n), then r2 each row (length m).
 * gamma, r1, r2: NULL for none.
 *   weights that read the residual stream, W diag(gamma) R1:  i is the input, j the row
 *   weights that write to it, R1^T W:                         i is the row, j the input
 * Each value is rounded to float once, at the end.  room: bq_rotate_room(n) doubles.  Runs on all threads;
 * the bits do not depend on their number. */
typedef struct {
    float *w;
    int64_t n, m, outer, inner;
} bq_panel;
void bq_rotate_panel(bq_panel p, const float *gamma, const bq_rotation *r1, const bq_rotation *r2,
                     double *room);

#define BQ_ROTATE_PANEL 256
size_t bq_rotate_room(int64_t n);

#endif
