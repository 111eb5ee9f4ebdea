/* observed.h - which numbers of the result are measured on the calibration samples, and what that takes.
 * run/observe.h measures them. */
#ifndef BQ_OBSERVED_H
#define BQ_OBSERVED_H

#include "driver/recipe/recipe.h"

/* The numbers of a unit of a block (bq_arch_unit): the largest |key| and |value|, 0 where there is no
 * attention or a latent one; then for each site how many tokens it got, and the sum of the squares of each
 * column of its input. */
enum { BQ_OBSERVED_KEY, BQ_OBSERVED_VALUE, BQ_OBSERVED_SITES };

/* How many a unit has; the most that a unit of these has. */
int64_t bq_observed_numbers(const bq_arch *arch);
int64_t bq_observed_most(const bq_layouts *layouts);

/* Does the recipe, or one of its outputs, need them?  Refuse (BQ_USAGE, one message) where they cannot be
 * had: without calibration tokens; keys and values of latent attention. */
bool bq_observed_wanted(const bq_recipe *r);
int bq_observed_check(const bq_recipe *r, const bq_model *m);

/* Bytes on the device, beside a forward's; on the host, and of the stream, of the rank with the largest
 * share.  0 if they are not wanted. */
size_t bq_observed_need(const bq_recipe *r, const bq_layouts *layouts);
size_t bq_observed_host(const bq_recipe *r, const bq_layouts *layouts, int ranks);
size_t bq_observed_stream(const bq_recipe *r, const bq_arch *arch, int ranks);

#endif
