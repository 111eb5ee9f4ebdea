/* SPDX-License-Identifier: Apache-2.0 */
/* mixed.h - mixed precision: schemes of single sites of blocks, what they cost, and the file that names them.
 *
 * A site is chosen as a whole: its linears read one input, and engines multiply by them at once.  The experts
 * of a block share the schemes of their sites, as engines want it.  All calls are local. */
#ifndef BQ_MIXED_H
#define BQ_MIXED_H

#include "driver/load/source.h"
#include "driver/plan/choose.h"

_Static_assert(BQ_MIXED <= BQ_ALTERNATIVES, "an item must have room for all schemes");

/* Site number `site` of a block's core, or of its experts: arch is the layout of the unit. */
typedef struct {
    int block, site;
    const bq_arch *arch;
} bq_mixed_site;

/* All sites of the model, in the order of blocks, first those of a block's core; their number.  The caller
 * frees the list. */
int bq_mixed_sites(const bq_source *src, bq_mixed_site **list);

/* What a site costs with a scheme, in the unit of the budget, but bits for BQ_BUDGET_BITS; INFINITY where its
 * groups do not divide the columns.  The budget in the same unit. */
double bq_mixed_cost(const bq_mixed *m, const bq_mixed_site *at, bq_scheme scheme);
double bq_mixed_limit(const bq_mixed *m, const bq_mixed_site *list, int count);
/* Is the budget enough for the cheapest schemes?  BQ_USAGE after one message if not. */
int bq_mixed_check(const bq_mixed *m, const bq_source *src);

/* Give the layouts room for schemes of each block, all as they are in `at`; set those of one site; then make
 * the schemes of `at` as large as any (see bq_layouts).  free undoes the first. */
void bq_mixed_open(bq_layouts *layouts, const bq_source *src);
void bq_mixed_set(bq_layouts *layouts, const bq_mixed_site *at, bq_scheme scheme);
void bq_mixed_bound(bq_layouts *layouts, int blocks);
void bq_mixed_free(bq_layouts *layouts);

/* The same where a scheme is still to be chosen: `at` becomes as large as any of them. */
void bq_mixed_bound_by(bq_layouts *layouts, const bq_mixed *m);

#define BQ_MIXED_BYTES ((size_t)64 << 20) /* a longer file is none of these */

/* The samples that measure errors; 0 if nothing is chosen.  Bytes that it takes beside a forward through a
 * block: on the device; on the host; and of streams. */
int64_t bq_mixed_samples(const bq_recipe *r);
size_t bq_mixed_need(const bq_recipe *r, const bq_arch *arch);
size_t bq_mixed_host(const bq_recipe *r);
size_t bq_mixed_stream(const bq_recipe *r, const bq_arch *arch);

/* Read a file into the layouts, whose `at` has the recipe's schemes; *hash: of its schemes and sites.  BQ_OK,
 * or BQ_DATA or BQ_USAGE after one message with file and reason: it is no such file, of another model, or has
 * a scheme that a pass or the model cannot take. */
int bq_mixed_read(const char *path, const bq_recipe *recipe, const bq_source *src, bq_layouts *layouts,
                  uint64_t *hash);

/* Write such a file: a line for each site, with what each scheme costs and the error that it makes.  item:
 * those of the list, with what was chosen.  Ends the job when the disk fails. */
void bq_mixed_write(const char *path, const bq_mixed *m, const bq_mixed_site *list,
                    const bq_choose_item *item, int count);

#endif
