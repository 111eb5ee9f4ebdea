/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_config.h - config.json of a model that is in a GGUF file, from its keys and its tensors of rotary
 * factors. */
#ifndef BQ_GGUF_CONFIG_H
#define BQ_GGUF_CONFIG_H

#include "io/in/gguf.h"

#include <jansson.h>

/* BQ_OK, and *config is the caller's (json_decref); or BQ_DATA after one message: an architecture that
 * gguf_names.h has no table for, a key that is missing or out of range, a key that changes what is computed
 * and has no counterpart, rotary factors that no rule of llama3 gives.
 *
 * The file lacks some of what the model's own config.json had.  What follows from a rule:
 *   vocab_size             rows of the embedding
 *   tie_word_embeddings    there is no output.weight
 *   attention_bias and mlp_bias of Llama: the first block has such a tensor
 *   rope of type llama3    from rope_freqs.weight, with factors 1 and 4 for low and high frequencies: only
 *                          the ratios of the original length to these two count
 *   query_pre_attn_scalar of Gemma 3: head_dim, and hidden / heads in the model of 62 blocks
 * Reals, which are f32 there, become the shortest decimal numbers with the same f32: 1e-05, not
 * 9.999999747378752e-06. */
int bq_gguf_config(const bq_gguf *g, json_t **config);

#endif
