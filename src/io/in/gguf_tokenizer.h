/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_tokenizer.h - tokenizer.json and tokenizer_config.json of a model that is in a GGUF file.
 *
 * Two kinds, by tokenizer.ggml.model:
 *   gpt2   byte-level BPE, where tokenizer.ggml.pre, the name of the rule that cuts a text into words, is one
 *          that is known here: gpt-2, smollm, llama-bpe, qwen2
 *   llama  SentencePiece's BPE, of Llama 2, Gemma 1 to 3 and Phi-3: tokens with scores, from which the merges
 *          follow (gguf_merges.h).  Ids equal llama.cpp's.  Tokens that are not normal are found in a text as
 *          they are, before all else; unused ones are left out. */
#ifndef BQ_GGUF_TOKENIZER_H
#define BQ_GGUF_TOKENIZER_H

#include "io/in/gguf.h"

#include <jansson.h>

/* BQ_OK, and both are the caller's (json_decref), or both are NULL for another tokenizer; or BQ_DATA after
 * one message: a token that is there twice or is not UTF-8, a merge that is no pair of tokens or makes none,
 * scores that gguf_merges.h refuses, an id beyond the tokens, texts that end with EOS. */
int bq_gguf_tokenizer(const bq_gguf *g, json_t **tokenizer, json_t **config);

/* The other way: what tokenizer.ggml.pre says of a tokenizer.json of byte-level BPE, NULL: not known. */
const char *bq_gguf_tokenizer_pre(const json_t *tokenizer);
/* Is it SentencePiece's BPE, as this reader makes it?  prefix: a blank comes before each text. */
bool bq_gguf_tokenizer_pieces(const json_t *tokenizer, bool *prefix);

#endif
