/* SPDX-License-Identifier: Apache-2.0 */
/* observed.h - which numbers of the result are measured on the calibration samples, and what that takes.
 * run/observe.h measures them. */
#ifndef BQ_OBSERVED_H
#define BQ_OBSERVED_H

#include "driver/recipe/recipe.h"

/* The numbers of a unit of a block (bq_arch_unit).  First what is largest over the samples: of each head, or
 * of all, the |key|, and the |value|, 0 where there is no attention or a latent one; where the scales of
 * inputs are measured, for each site -lo and hi, the ends of its input.  Then for each site how many tokens
 * it got, and the sum of the squares of each column of its input. */

/* How many heads are apart; how many numbers a unit has that are largest ones; how many it has; the most that
 * a unit of these has. */
int64_t bq_observed_heads(const bq_recipe *r, const bq_arch *arch);
int64_t bq_observed_maxima(const bq_recipe *r, const bq_arch *arch);
int64_t bq_observed_numbers(const bq_recipe *r, const bq_arch *arch);
int64_t bq_observed_most(const bq_recipe *r, const bq_layouts *layouts);
/* Do ranges come from histograms? */
bool bq_observed_counts(const bq_recipe *r);

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
