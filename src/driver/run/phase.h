/* SPDX-License-Identifier: Apache-2.0 */
/* phase.h - one phase of a recipe: a stage's walk over its blocks. */
#ifndef BQ_PHASE_H
#define BQ_PHASE_H

#include "driver/run/walk.h"

/* Run one phase on the stage's blocks in one sweep.  BQ_OK or BQ_STOPPED.  Collective over stage. */
int bq_phase_run(bq_run *s, int sweep, int phase, const bq_phase_hooks *hooks);

#endif
