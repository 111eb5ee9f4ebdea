/* SPDX-License-Identifier: Apache-2.0 */
/* rounded.h - the embedding and the head rounded to nearest by the recipe's schemes, as the pass rtn rounds
 * linears.  They are rounded as they are read, row by row, after transforms.  Evaluations of quantized
 * weights and outputs read them so; passes and the evaluation of the original do not.  All calls are
 * local. */
#ifndef BQ_ROUNDED_H
#define BQ_ROUNDED_H

#include "block/model/quantized.h"
#include "driver/recipe/recipe.h"

/* The schemes; element 0: not rounded.  A group is less than a row, or -1. */
typedef struct {
    bq_scheme embedding, head;
} bq_rounded;

/* The schemes of a recipe.  BQ_OK, or BQ_USAGE after one message: a group does not divide the hidden size. */
int bq_rounded_of(bq_rounded *r, const bq_recipe *recipe, int64_t hidden);

/* The largest tensors that an output has codes of: linears, and embedding and head where they are rounded. */
bq_linear_most bq_rounded_most(const bq_recipe *recipe, const bq_layouts *layouts);

/* The codes of rows w, host (n, H) f32, contiguous like all that follow: code (n, H) i8; scale and, unless
 * the scheme is symmetric, zero (n, groups) f32.  values: round w in place; element 0: nothing is done. */
void bq_round_codes(bq_mat w, bq_scheme s, bq_mat code, bq_mat scale, bq_mat zero);
void bq_round_values(bq_mat w, bq_scheme s);

/* So many rows of so many columns are to be rounded at a time: 1 MiB, at least one. */
int64_t bq_round_rows(int64_t cols);

#endif
