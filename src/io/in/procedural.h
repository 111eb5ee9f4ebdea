/* SPDX-License-Identifier: Apache-2.0 */
/* procedural.h - weights that are in no file: each is computed when it is read, from a seed, its tensor's
 * name and its place.  They serve tests of memory and time with models of any size.  A directory is such a
 * model if its config.json has the key "blockq_procedural"; the value is the seed, from 0 on.
 *
 * All tensors are BF16.  In a matrix (rows, cols) each value is the sum of four bytes of Philox4x32-10,
 * less its mean, scaled to the standard deviation 1 / sqrt(cols): so the matrix keeps the size of what it
 * multiplies.  No value is beyond 3.5 deviations.  Norms are 1, biases are 0.  The perplexity of such a
 * model is about that of guessing. */
#ifndef BQ_PROCEDURAL_H
#define BQ_PROCEDURAL_H

#include "io/in/safetensors.h"

#define BQ_PROCEDURAL_KEY     "blockq_procedural"
#define BQ_PROCEDURAL_VERSION 1 /* of the rule above; part of a model's fingerprint */

/* Write bytes [from, from + bytes) of tensor t to `to`; both numbers are even.  Local. */
void bq_procedural_make(int64_t seed, const bq_tensor *t, size_t from, void *to, size_t bytes);

#endif
