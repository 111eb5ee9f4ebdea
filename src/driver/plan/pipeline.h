/* SPDX-License-Identifier: Apache-2.0 */
/* pipeline.h - sizes of the pipeline that carries the FP stream through the stages (streams/reference.h).  */
#ifndef BQ_PIPELINE_H
#define BQ_PIPELINE_H

#include "driver/recipe/recipe.h"

#define BQ_PIPELINE_RING 4 /* samples that are read ahead */

/* The number of samples in a micro-batch; wish 0: the default.  With experts it is large, because all of them
 * are read for each micro-batch.  */
int64_t bq_pipeline_micro(const bq_recipe *recipe, const bq_arch *arch, int nstage, int nreplica,
                          int64_t wish);

/* Bytes of the buffers on the host; of the arena of a GPU that has them.  */
size_t bq_pipeline_host(const bq_recipe *recipe, const bq_arch *arch, int64_t micro);
size_t bq_pipeline_device(const bq_recipe *recipe, const bq_arch *arch, int64_t micro);

#endif
