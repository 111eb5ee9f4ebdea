/* halving.h - successive halving (Karnin et al. 2013; Jamieson and Talwalkar 2016): candidates meet in
 * rounds, each over samples that no round before has seen, and after each the better half goes on.
 *
 * A sample's round follows from its number alone, so it is the same on any grid: multiples of 8 come first,
 * then those of 4, those of 2, and the odd ones - 1/8, 1/8, 1/4 and 1/2 of all, and about as much of any
 * share. Of 10 candidates 10, 5, 3 and 2 are looked at, of 20 twice as many: about a third of the work. */
#ifndef BQ_HALVING_H
#define BQ_HALVING_H

#include "base/key.h"
#include "base/shard.h"

#include <stdbool.h>

/* all: one round, with every sample. */
typedef enum { BQ_SEARCH_ALL, BQ_SEARCH_HALVING } bq_search;
extern const bq_choice bq_search_choices[];

/* Its rounds; the samples of one, of which there may be none; and the round of a sample. */
int bq_search_rounds(bq_search how);
bq_stride bq_search_samples(bq_search how, int round);
int bq_search_round_of(bq_search how, int64_t sample);

/* Of n candidates those alive with the least losses stay so, half of them, rounded up; among equals the
 * earlier ones, and a loss that is no number, or infinite, is the worst. */
void bq_search_halve(const double *loss, int n, bool *alive);

#endif
