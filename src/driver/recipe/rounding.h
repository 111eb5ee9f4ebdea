/* SPDX-License-Identifier: Apache-2.0 */
/* rounding.h - bits.activations and bits.kv of a recipe. */
#ifndef BQ_RECIPE_ROUNDING_H
#define BQ_RECIPE_ROUNDING_H

#include "driver/recipe/keys.h"

/* What their keys, and those of phases, require of each other: BQ_OK, or BQ_USAGE after one message. */
int bq_recipe_check_rounding(const bq_origin *from, const bq_recipe *r);

#endif
