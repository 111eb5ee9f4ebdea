/* SPDX-License-Identifier: Apache-2.0 */
/* publish.h - an output's card, recipe and summary (io/out/publish.h), made of what a run knows.  Local; rank
 * 0 alone calls it. */
#ifndef BQ_RUN_PUBLISH_H
#define BQ_RUN_PUBLISH_H

#include "driver/streams/run.h"
#include "io/manifest.h"

/* Write ckpt/origin.json: what is known only while the run computes, and an export wants later. */
void bq_publish_origin(const bq_run *s);

/* Write the files of an output, whose other files are listed.  Evaluations are those of the run's
 * result.json.  Returns as bq_publish, or BQ_DATA after one message: result.json cannot be read. */
int bq_publish_output(const bq_run *s, const bq_output *output, const char *dir, const bq_manifest *list);

#endif
