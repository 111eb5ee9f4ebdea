/* SPDX-License-Identifier: Apache-2.0 */
/* card.h - the model card of an output, README.md. */
#ifndef BQ_CARD_H
#define BQ_CARD_H

#include "driver/recipe/recipe.h"

#include <jansson.h>

/* The card as text for free(): of a recipe and one of its outputs, and of what quantization.json says
 * (publish.c).  Names and other texts from files are escaped: they cannot become markup.  Local. */
char *bq_card(const bq_recipe *recipe, const bq_output *output, const json_t *summary);

#endif
