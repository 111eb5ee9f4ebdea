/* SPDX-License-Identifier: Apache-2.0 */
/* rotated.h - the tensors of the rotated model, computed as they are read.
 *
 * The transform `rotate` changes the basis of the residual stream by R1 (H, H) and that of each value head by
 * R2 (hd, hd).  First the gains of the norms move into the matrices behind them, since RMSNorm commutes with
 * an orthogonal map only without gains:
 *
 *   embedding E R1; head E diag(gamma) R1, separate from the embedding even if the model ties them; norms 1
 *   q, k, v, gate, up   W diag(gamma) R1
 *   o, down             R1^T W, R1^T b
 *   also v, by head     R2^T W, R2^T b;     also o, by query head  W R2
 *
 * The model's function stays the same.  Without R1, norms and head are unchanged.  All is computed in double
 * and rounded to float once.  R1 is the same for all blocks; each block has its own R2.
 *
 * Rotations that are learned (run/learning.h) are not known when the model is opened.  Until
 * bq_rotated_learned the tensors are those of the model in its own basis, with the gains in the matrices: R1
 * and R2 are the identity.  That is what the training reads. */
#ifndef BQ_ROTATED_H
#define BQ_ROTATED_H

#include "block/model/arch.h"
#include "driver/recipe/recipe.h"
#include "io/in/weights.h"

typedef struct bq_rotated bq_rotated;

/* *r is NULL if the recipe has no transform. arch and weights must live until close; close takes NULL.
 * BQ_OK, or BQ_USAGE after one message: there is no such rotation for a size of the model. */
int bq_rotated_open(bq_rotated **r, const bq_arch *arch, const bq_arch *dense, const bq_weights *weights,
                    const bq_recipe *recipe);
void bq_rotated_close(bq_rotated *r);

/* The rotation that the recipe names, as a dense (n, n) matrix by rows: R1 for block -1, else R2 of it. */
void bq_rotated_start(const bq_rotated *r, int block, float *matrix);
/* From now on with these, which are copied: r1 (H, H), r2 (blocks, hd, hd); NULL where there is none. */
void bq_rotated_learned(bq_rotated *r, const float *r1, const float *r2);

/* Host bytes that r takes with the first tensor.  */
size_t bq_rotated_need(const bq_recipe *recipe, const bq_arch *arch);

/* Does the rotation change the tensor of that name?  If so and to.data is not NULL, compute its rows [first,
 * first + to.rows), host f32; a vector is one row; rows of q, k and v in whole heads.  r NULL: false.
 * whole: all rows must be read at once.  */
bool bq_rotated_read(bq_rotated *r, const char *name, int64_t first, bq_mat to);
bool bq_rotated_whole(const bq_rotated *r, const char *name);

/* Rotate rows of the file's embedding in place, host (T, H).  */
void bq_rotated_embed(bq_rotated *r, bq_mat rows);

#endif
