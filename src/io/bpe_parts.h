/* SPDX-License-Identifier: Apache-2.0 */
/* bpe_parts.h - what bpe.c (the work) and bpe_read.c (the file) share. */
#ifndef BQ_BPE_PARTS_H
#define BQ_BPE_PARTS_H

#include "io/bpe.h"
#include "io/words.h"

/* A string of bytes and its id; a table of them, open addressing, a power of two of places. */
typedef struct {
    char *text; /* owned; NULL: a free place */
    size_t bytes;
    int32_t id;
} bq_bpe_token;
typedef struct {
    bq_bpe_token *at;
    size_t places, count;
} bq_bpe_tokens;

/* Two neighbours, and what becomes of them; key: (left + 1) << 32 | right, 0: a free place. */
typedef struct {
    uint64_t key;
    int32_t rank, id;
} bq_bpe_merge;

typedef struct {
    char *text; /* owned */
    size_t bytes;
    int32_t id;
    bool normalized, greedy; /* greedy: lstrip, rstrip or single_word */
} bq_bpe_added;

struct bq_bpe {
    bq_words rule;
    bool digits, settled, whole; /* settled: text must be in normal form C; whole: ignore_merges */
    int32_t byte[256];           /* of each byte alone, or -1 */
    bq_bpe_tokens tokens;
    bq_bpe_merge *merge;
    size_t merges; /* places, a power of two */
    bq_bpe_added *added;
    int nadded;
    int64_t vocab;
    int32_t bos;
    char sha256[65];
};

/* The id of a string; -1: none. */
int32_t bq_bpe_find(const bq_bpe_tokens *tokens, const char *text, size_t bytes);
const bq_bpe_merge *bq_bpe_merge_of(const bq_bpe *bpe, int32_t left, int32_t right); /* NULL: none */

#endif
