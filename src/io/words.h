/* SPDX-License-Identifier: Apache-2.0 */
/* words.h - how tokenizers cut a text into words, before pairs of tokens are merged inside words.
 *
 * The rules are regular expressions in tokenizer.json, known here by their text and done by hand: a word is
 * the first alternative that matches, at its longest, as Oniguruma finds it.  All calls are local. */
#ifndef BQ_WORDS_H
#define BQ_WORDS_H

#include "io/unicode.h"

#include <stdbool.h>

typedef enum {
    BQ_WORDS_GPT2,   /* ByteLevel's own: "'s|...| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+" */
    BQ_WORDS_LLAMA3, /* "(?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|..." */
    BQ_WORDS_QWEN2   /* the same with \p{N} */
} bq_words;

/* The rule with that text; false: none is known. */
bool bq_words_find(const char *pattern, bq_words *rule);

/* Characters of a text: code, class, where they start; `count` of them and one behind the last. */
typedef struct {
    uint32_t code, class;
    size_t at;
} bq_char;

/* The word that starts at character i, of count: the character behind it.  digits: each number (\p{N}) is a
 * word of its own first, and ends the words around it (the pre-tokenizer Digits). */
int64_t bq_words_next(bq_words rule, bool digits, const bq_char *c, int64_t i, int64_t count);

#endif
