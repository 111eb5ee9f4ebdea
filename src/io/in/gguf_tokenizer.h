/* gguf_tokenizer.h - tokenizer.json and tokenizer_config.json of a model that is in a GGUF file.
 *
 * Only byte-level BPE (tokenizer.ggml.model is gpt2), and only where tokenizer.ggml.pre, the name of the rule
 * that cuts a text into words, is one that is known here: gpt-2, smollm, llama-bpe, qwen2. */
#ifndef BQ_GGUF_TOKENIZER_H
#define BQ_GGUF_TOKENIZER_H

#include "io/in/gguf.h"

#include <jansson.h>

/* BQ_OK, and both are the caller's (json_decref), or both are NULL for another tokenizer; or BQ_DATA after
 * one message: a token that is there twice or is not UTF-8, a merge that is no pair of tokens or makes none,
 * an id beyond the tokens. */
int bq_gguf_tokenizer(const bq_gguf *g, json_t **tokenizer, json_t **config);

#endif
