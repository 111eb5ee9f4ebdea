/* SPDX-License-Identifier: Apache-2.0 */
/* halving.h - successive halving (Karnin et al., 2013; Jamieson and Talwalkar, 2016): candidates are tried in
 * rounds, each on samples that no round before has seen, and after each round the better half goes on.
 *
 * The round of a sample depends only on its number, so it is the same for any number of replicas.  Round 0
 * has the multiples of 8, round 1 the other multiples of 4, round 2 the other even numbers, round 3 the odd
 * ones: 1/8, 1/8, 1/4 and 1/2 of all samples, and about the same parts of each replica's share.  The four
 * rounds try 10, 5, 3 and 2 of 10 candidates, or 20, 10, 5 and 3 of 20: about a third of the work. */
#ifndef BQ_HALVING_H
#define BQ_HALVING_H

#include "base/key.h"
#include "base/shard.h"

#include <stdbool.h>

/* BQ_SEARCH_ALL: one round, with all samples. */
typedef enum { BQ_SEARCH_ALL, BQ_SEARCH_HALVING } bq_search;
extern const bq_choice bq_search_choices[];

/* The number of rounds; the samples of a round, which may be none where there are few; the round of a
 * sample. */
int bq_search_rounds(bq_search how);
bq_stride bq_search_samples(bq_search how, int round);
int bq_search_round_of(bq_search how, int64_t sample);

/* Of n candidates, the better half of those alive stays alive: half of their number, rounded up.  Of equal
 * losses the earlier candidate is better.  A loss that is NaN or infinite is worse than any other. */
void bq_search_halve(const double *loss, int n, bool *alive);

#endif
