/* rotated.h - a model's tensors as the rotated model has them, computed as they are read.
 *
 * The transform `rotate` of a recipe changes the basis of the residual stream by R1 (H, H) and that of each
 * value head by R2 (hd, hd), after the gains of the norms have moved into the matrices behind them, where
 * they no longer stand in the way (RMSNorm commutes with orthogonal maps only without them):
 *
 *   embedding E R1; head E diag(gamma) R1, apart from the embedding even where the model ties them; norms 1
 *   q, k, v, gate, up   W diag(gamma) R1
 *   o, down             R1^T W, R1^T b
 *   v again, by head    R2^T W, R2^T b;     o again, by query head  W R2
 *
 * The model computes the same function.  Without R1 the norms and the head stay as they are.  Everything is
 * computed in double and rounded to float once, a value's bits depend on the model, the recipe and its place
 * alone.  R1 is one for all blocks; R2 has other random numbers in each. */
#ifndef BQ_ROTATED_H
#define BQ_ROTATED_H

#include "block/model/arch.h"
#include "driver/recipe/recipe.h"
#include "io/in/weights.h"

typedef struct bq_rotated bq_rotated;

/* *r is NULL when the recipe has no transform.  arch and weights must live until close.  BQ_OK, or BQ_USAGE
 * after one message: the model has a size for which there is no such rotation. */
int bq_rotated_open(bq_rotated **r, const bq_arch *arch, const bq_weights *weights, const bq_recipe *recipe);
void bq_rotated_close(bq_rotated *r); /* NULL is fine */

/* Host bytes that r keeps, from the first tensor on. */
size_t bq_rotated_need(const bq_recipe *recipe, const bq_arch *arch);

/* Has the rotated model another tensor of that name?  to.data not NULL: its rows [first, first + to.rows),
 * host f32; a vector is one row.  Rows of q, k and v are asked for in whole heads.  r NULL: false. */
bool bq_rotated_read(bq_rotated *r, const char *name, int64_t first, bq_mat to);
/* Must all rows of that tensor be read at once? */
bool bq_rotated_whole(const bq_rotated *r, const char *name);

/* Rows of the embedding as they are in the file, host (T, H): rotated in place. */
void bq_rotated_embed(bq_rotated *r, bq_mat rows);

#endif
