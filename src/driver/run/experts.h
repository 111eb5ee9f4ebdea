/* SPDX-License-Identifier: Apache-2.0 */
/* experts.h - the experts of a block in a phase: each is a unit that one replica of the stage quantizes.
 *
 * After the core, replica r takes the experts r, r + R, r + 2 R, ... of R replicas, in rounds:
 *   1  it reads its expert's weights, and gets the tokens that all replicas' samples send to that expert
 *   2  all replicas get the original weights of the round's experts, one after the other, and add what they
 *      compute to their targets
 *   3  each replica runs the passes on its expert, alone, and writes its checkpoint
 *   4  all get the quantized weights, and add what they compute to their quantized stream
 * So a rank has one expert in memory, and with other replicas a second one's weights.  Tokens come in the
 * order of samples and positions, and experts are added in ascending order: any number of replicas gives the
 * same bytes.
 *
 * The tokens of an expert are those that the phase's stream routes to it, behind the quantized core; with
 * inputs fp, behind the original one.  The passes see them as samples of equally many tokens, at most
 * calibration.length.  All calls are collective over stage. */
#ifndef BQ_RUN_EXPERTS_H
#define BQ_RUN_EXPERTS_H

#include "driver/run/walk.h"

/* Push and open what the walk needs for experts.  close takes a zeroed struct. */
void bq_experts_open(bq_walk *w);
void bq_experts_close(bq_walk *w);

/* Restore the core of a block of which an earlier run has not finished the experts, or has lost some.  False:
 * it is not there. */
bool bq_experts_core(bq_walk *w);

/* Make the experts of the block, or restore those that are made, and add them to the streams; then the block
 * is done.  targets: to the targets, too.  BQ_OK or BQ_STOPPED. */
int bq_experts_run(bq_walk *w, bool targets);

/* Of a frozen segment: add the original experts to the targets alone. */
int bq_experts_pass(bq_walk *w);

/* experts_tokens.c: count the tokens of each expert, and log them; get those of the experts base, base + 1,
 * ... of a round to the replicas that want them (wants[replica]). */
void bq_experts_count(bq_walk *w);
void bq_experts_collect(bq_walk *w, int base, const double *wants);

#endif
