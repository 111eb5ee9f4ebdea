/* SPDX-License-Identifier: Apache-2.0 */
/* bpe.h - a tokenizer.json of Hugging Face: byte-level BPE, the tokenizers of GPT-2, Llama 3, Qwen,
 * SmolLM2.
 *
 * Text is cut at added tokens, then into words (words.h); a word's bytes are tokens, and of all pairs of
 * neighbours that have a merge the one with the lowest rank is merged first, the leftmost of equals, until
 * there is none.  What else a file asks for (other models, normalizers and patterns, prefixes) is refused,
 * and tools/prepare.py can do it.  All calls are local. */
#ifndef BQ_BPE_H
#define BQ_BPE_H

#include <stddef.h>
#include <stdint.h>

typedef struct bq_bpe bq_bpe;

/* Read a file, or tokenizer.json of a folder.  BQ_OK, and the caller closes; or BQ_DATA after one message. */
int bq_bpe_open(bq_bpe **out, const char *path);
/* The same of a text in memory; path names it in messages, and tokenizer_config.json lies beside it. */
int bq_bpe_parse(bq_bpe **out, const char *path, const char *text, size_t bytes);
void bq_bpe_close(bq_bpe *bpe); /* NULL is fine */

/* One more than the largest id; the SHA-256 of the file, hex; the id that begins each text, as the file
 * and the tokenizer_config.json beside it say, or -1. */
int64_t bq_bpe_vocab(const bq_bpe *bpe);
const char *bq_bpe_sha256(const bq_bpe *bpe);
int32_t bq_bpe_bos(const bq_bpe *bpe);

/* The ids of a text, without BOS: *ids of malloc, *count.  name: of the text, for messages.  BQ_OK; or
 * BQ_DATA after one message: the text is not UTF-8, has a character that normal form C may change (where
 * the file asks for it), or an added token that takes the blanks beside it. */
int bq_bpe_encode(const bq_bpe *bpe, const char *name, const char *text, size_t bytes, int32_t **ids,
                  int64_t *count);

#endif
