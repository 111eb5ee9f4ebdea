/* SPDX-License-Identifier: Apache-2.0 */
/* rope.h - rotary frequencies, and the cos and sin tables of a sequence (Su et al., 2021).  The rules for
 * llama3, longrope and yarn (Peng et al., 2023) are those of transformers' modeling_rope_utils.py.  All calls
 * are local. */
#ifndef BQ_ROPE_H
#define BQ_ROPE_H

#include "base/model.h"
#include "kernels/ops.h"

/* BQ_ANGLES_HF: frequencies, angles, cos and sin are rounded to float32, as in transformers.
 * BQ_ANGLES_EXACT: they are computed in double. */
typedef enum { BQ_ANGLES_HF, BQ_ANGLES_EXACT } bq_angles;

/* freq: the rope->dim / 2 inverse frequencies for a sequence of `tokens` tokens; longrope chooses its factors
 * by that length.  With BQ_ANGLES_HF every value is a float32. */
void bq_rope_frequencies(const bq_rope *rope, bq_angles compat, int64_t tokens, double *freq);

/* The tables for positions 0 ... tokens - 1, multiplied by rope->attention.  cos_out, sin_out: on the host,
 * (tokens, dim / 2) f32. */
void bq_rope_table(const bq_rope *rope, bq_angles compat, int64_t tokens, bq_mat cos_out, bq_mat sin_out);

#endif
