/* SPDX-License-Identifier: Apache-2.0 */
/* observe.h - numbers of a forward of the calibration samples through the result: the largest key and value
 * of each block, for a quantized cache of them; the range of the inputs of each linear, for static scales;
 * their squares, for llama.cpp's imatrix.
 *
 * They are made after the passes, in a walk like that of an evaluation (score.h): the ranks of the world
 * share the samples.  Rank 0 joins the numbers of all samples in the order of the samples, so they are the
 * same on any number of ranks.  They are kept in ckpt/observed.f32: floats, those of a unit of a block
 * (score/observed.h) after those of the other; the hash of the calibration tokens; and a seal
 * (io/state/raw.h), whose tag is a hash of the run's fingerprint and of the recipe's `bits`. */
#ifndef BQ_OBSERVE_H
#define BQ_OBSERVE_H

#include "driver/streams/run.h"

/* Make the file, unless it is there or not wanted.  BQ_OK, or BQ_STOPPED on all ranks.  NaN or inf ends the
 * job with BQ_DATA.  Collective over world. */
int bq_observe_run(bq_run *s);
/* Is it there, whole, and of this run?  Local. */
bool bq_observe_there(const bq_run *s);

/* Set s->grids and s->kv if the recipe wants them (load/through.h).  The file must be there.  Collective over
 * world. */
void bq_observe_scales(bq_run *s);
/* The numbers of a site of a unit, 1 + columns.  Local. */
void bq_observe_site(const bq_run *s, int block, int unit, int site, float *to);

#endif
