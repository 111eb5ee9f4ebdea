/* procedural.h - weights that no file holds: each is made when it is read, from a seed, its tensor's name and
 * its place.  For tests of capacity and time with models of any size: a directory with a config.json that
 * has the key "blockq_procedural" (a seed) is such a model.
 *
 * All tensors are BF16.  Matrices (rows, cols): a bell of four bytes of Philox4x32-10, |x| <= 3.5 deviations,
 * with the deviation 1 / sqrt(cols), so that a matrix keeps the size of what goes through it.  Norms are 1,
 * biases 0.  The model says nothing sensible; its perplexity is about that of chance. */
#ifndef BQ_PROCEDURAL_H
#define BQ_PROCEDURAL_H

#include "io/in/safetensors.h"

#define BQ_PROCEDURAL_VERSION 1 /* of the rule above: part of a model's fingerprint */

/* Bytes [from, from + bytes) of tensor t; both are even.  Local. */
void bq_procedural_make(int64_t seed, const bq_tensor *t, size_t from, void *to, size_t bytes);

#endif
