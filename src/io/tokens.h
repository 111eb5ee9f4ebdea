/* tokens.h - the calibration or evaluation text as token ids: tokens.h5, also written by tools/prepare.py.
 *
 * File: root attributes format "blockq tokens", version 1, vocab, tokenizer, text, joiner, bos; dataset
 * /tokens, one row of int32.  docs/formats.md has the details.  All calls are local. */
#ifndef BQ_TOKENS_H
#define BQ_TOKENS_H

#include <stdint.h>

typedef struct {
    int64_t count, vocab; /* count ids, each in [0, vocab) */
    int32_t bos;          /* id that stands once in front of ids, -1 = none */
    char tokenizer[80],
        text[80];    /* what made the ids ("bytes", "xxh3:..." of a tokenizer), from which text */
    char joiner[16]; /* how documents were joined: "raw", ... */
    uint64_t hash;   /* XXH3 of ids and attributes: part of fingerprints */
    int32_t *ids;    /* (count), owned */
} bq_tokens;

/* Read and check a file.  BQ_OK, or BQ_DATA with one message (file and reason).  At most 2^31 - 1 ids.
 * On BQ_OK the caller closes. */
int bq_tokens_read(const char *path, bq_tokens *t);

/* Each byte of n text files, one behind the other with nothing between, is a token: vocab 256, tokenizer
 * "bytes", text "xxh3:<hex>" of all the bytes, joiner "raw", bos -1.  BQ_OK, or BQ_DATA with one message (one
 * is absent or empty, or they are too long).  On BQ_OK the caller closes. */
int bq_tokens_from_text(int n, const char *const *text_path, bq_tokens *t);

/* Write the file, whole or not at all; equal tokens give equal bytes.  Ends the job when the disk fails.
 * Returns BQ_OK, or BQ_DATA with one message when t itself is not valid. */
int bq_tokens_write(const char *path, const bq_tokens *t);

/* The hash of the other fields; read, from_text and a caller that filled t itself use it. */
uint64_t bq_tokens_hash(const bq_tokens *t);

void bq_tokens_close(bq_tokens *t);

#endif
