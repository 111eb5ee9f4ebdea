/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_merges.h - the merges of a vocabulary that has scores instead of them (SentencePiece's BPE).
 *
 * SentencePiece joins two neighbours if the text of both together is a token, the highest score first.  BPE
 * with a list of merges does the same if the list has every pair of tokens that makes a token, in falling
 * order of the made token's score.  Where two pairs make the same token, the pair of smaller ids is first. */
#ifndef BQ_GGUF_MERGES_H
#define BQ_GGUF_MERGES_H

#include "io/in/gguf_keys.h"

#include <jansson.h>

#define BQ_GGUF_MERGE_BYTES 256     /* most bytes of a token that is made by merges */
#define BQ_GGUF_MERGES      4194304 /* most merges: Gemma 3 has 514,906 */

typedef struct {
    double score;
    int32_t token, left, right; /* left and right make token */
} bq_gguf_merge;

/* From the tokens, their types and their numbers, and tokenizer.ggml.scores.  Only normal tokens (type 1) are
 * made or are parts: the others are found in a text as a whole, or not at all.  The caller frees the list,
 * after a refusal too.  Refused: scores that are missing or not finite; more or longer than the limits above.
 *   vocab  from a text to its number
 * Cost: for each token, two look-ups for each place between two of its characters. */
bq_gguf_merge *bq_gguf_merges(bq_gguf_keys *k, int64_t tokens, const bq_text *token, const int64_t *type,
                              const json_t *vocab, int64_t *count);

#endif
