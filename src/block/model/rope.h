/* rope.h - rotary frequencies and the cos / sin table of a sequence (models.md 2.3, 4.1, 4.4). */
#ifndef BQ_ROPE_H
#define BQ_ROPE_H

#include "base/model.h"
#include "kernels/ops.h"

/* BQ_ANGLES_HF: inverse frequencies and angles in float32, as transformers computes them; BQ_ANGLES_EXACT: in
 * double. */
typedef enum { BQ_ANGLES_HF, BQ_ANGLES_EXACT } bq_angles;

/* dim / 2 inverse frequencies for a sequence of `tokens` tokens (longrope picks its factors by that length).
 * With BQ_ANGLES_HF every value is a float32. */
void bq_rope_frequencies(const bq_rope *rope, bq_angles compat, int64_t tokens, double *freq);

/* The table for positions 0 .. tokens - 1, attention scaling included; cos, sin: host (tokens, dim / 2) f32.
 */
void bq_rope_table(const bq_rope *rope, bq_angles compat, int64_t tokens, bq_mat cos_out, bq_mat sin_out);

#endif
