/* SPDX-License-Identifier: Apache-2.0 */
/* tokens.h - texts for calibration or evaluation, as token ids: files tokens.h5, which tools/prepare.py
 * writes, too.  docs/files.md has the format.  All calls are local. */
#ifndef BQ_TOKENS_H
#define BQ_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t count, vocab; /* number of ids; each is in [0, vocab) */
    int32_t bos;          /* id that begins each text, -1 = none */
    char tokenizer[80],
        text[80];    /* what made the ids: "bytes", or a hash of the tokenizer; a hash of the text */
    char joiner[16]; /* how documents were joined */
    uint64_t hash;   /* of the other fields (bq_tokens_hash), for fingerprints */
    int32_t *ids;    /* (count), owned */
} bq_tokens;

/* Is the file a text, by its name (.txt)?  Then read takes its bytes, as from_text. */
bool bq_tokens_is_text(const char *path);

/* Read and check a file.  BQ_OK, and the caller closes; or BQ_DATA after one message with file and reason. */
int bq_tokens_read(const char *path, bq_tokens *t);

/* Take each byte of n text files, one after the other with nothing in between, as a token: vocab 256,
 * tokenizer "bytes", text "xxh3:<hex>" of all the bytes, joiner "raw", bos -1.  BQ_OK, and the caller
 * closes; or BQ_DATA after one message: a file is absent or empty, or all are longer than 2^31 - 1 bytes. */
int bq_tokens_from_text(int n, const char *const *text_path, bq_tokens *t);

/* The texts one behind the other, as tokens by a tokenizer (bpe.h): its vocabulary and BOS, which comes
 * first if there is one; tokenizer: the SHA-256 of the file, text: that of all bytes, joiner "raw".
 * Returns as from_text. */
int bq_tokens_from_tokenizer(int n, const char *const *text_path, const char *tokenizer, bq_tokens *t);

/* Write the file, whole or not at all; equal tokens give equal bytes.  BQ_OK, or BQ_DATA after one message if
 * t breaks the format's rules.  Ends the job when the disk fails. */
int bq_tokens_write(const char *path, const bq_tokens *t);

/* t->hash, of all other fields: for a caller that fills t; read and from_text set it. */
uint64_t bq_tokens_hash(const bq_tokens *t);
void bq_tokens_close(bq_tokens *t);

#endif
