/* SPDX-License-Identifier: Apache-2.0 */
/* named.h - recipes that have a name: `blockq run --preset best`.  They are files of configs. */
#ifndef BQ_NAMED_H
#define BQ_NAMED_H

#include "driver/recipe/recipe.h"

enum { BQ_NAMED = 3 };
typedef struct {
    const char *name, *text;
} bq_named;
extern const bq_named bq_named_recipes[BQ_NAMED];

/* Read the recipe that the command line names: a file, one of these, or a bare name ("demo") of a file in the
 * configs that came with the program; with its overrides.  BQ_OK, or
 * BQ_USAGE after one message.  Local: read on one rank, broadcast the struct. */
int bq_named_read(const bq_args *args, bq_recipe *recipe);

#endif
