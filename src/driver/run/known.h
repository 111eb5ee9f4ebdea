/* SPDX-License-Identifier: Apache-2.0 */
/* known.h - numbers of evaluations, kept beside the FP stream that runs share (--reference).
 *
 * The model itself has the same number in each of these runs, and round to nearest in each with the same
 * schemes; the result has it when the run is started again.  <heads>/evals.json is a sealed object
 * (io/json.h): a key for what was evaluated, its numbers behind it.  Without --reference nothing is known,
 * and nothing kept. */
#ifndef BQ_KNOWN_H
#define BQ_KNOWN_H

#include "driver/streams/run.h"

typedef enum { BQ_KNOWN_MODEL, BQ_KNOWN_RTN, BQ_KNOWN_RESULT } bq_known;

/* Evaluation i of s->evals.  get: fill value[0 .. bq_eval_values(e)), the same on all ranks; false: it is
 * to be made.  Collective over world.  put: keep them, unless one is not finite.  Rank 0 alone writes;
 * local. */
bool bq_known_get(const bq_run *s, int i, bq_known what, double *value);
void bq_known_put(const bq_run *s, int i, bq_known what, const double *value);

#endif
