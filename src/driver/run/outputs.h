/* SPDX-License-Identifier: Apache-2.0 */
/* outputs.h - the models that a run writes at its end.  Each rank writes its share of the shards. */
#ifndef BQ_OUTPUTS_H
#define BQ_OUTPUTS_H

#include "driver/streams/run.h"

/* Check, before any work, that the formats of the recipe's outputs can hold its result.  BQ_OK, or BQ_DATA
 * after one message.  Local. */
int bq_outputs_fit(const bq_run *s);
/* Write the outputs of the recipe that are not there yet.  BQ_OK, or BQ_DATA after one message.  Collective
 * over world. */
int bq_outputs_write(const bq_run *s);
/* Write what says of them what they are (publish.h), after the evaluation.  Collective over world. */
int bq_outputs_publish(const bq_run *s);
/* All of this for the recipe's first output, of a finished run, into a directory of the caller's choice. */
int bq_outputs_write_one(const bq_run *s, const char *dir);

#endif
