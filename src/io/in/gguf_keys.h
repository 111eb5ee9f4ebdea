/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_keys.h - the values of a GGUF file's keys, by type and range, as io/json.h has them for JSON.
 *
 * The first refusal is printed, as "<file>: <key>: <reason>", and kept in status; later calls then do
 * nothing. So a dozen getters need one check at their end.  Errors are bad input (BQ_DATA).  All calls are
 * local. */
#ifndef BQ_GGUF_KEYS_H
#define BQ_GGUF_KEYS_H

#include "io/in/gguf_header.h"

typedef struct {
    const bq_gguf_header *header; /* must outlive this, and the texts too */
    const char *file;             /* for messages */
    int status;                   /* BQ_OK until a value was refused */
} bq_gguf_keys;

/* A text of the file: no 0 behind it, and any bytes in it. */
typedef struct {
    const char *at;
    size_t bytes;
} bq_text;

bool bq_gguf_has(const bq_gguf_keys *k, const char *key);
void bq_gguf_need(bq_gguf_keys *k, const char *key);

/* If the key is absent, *value stays as it was: set it to the default first.  A value of another type or
 * outside [low, high] is refused.  real also takes an integer. */
void bq_gguf_int(bq_gguf_keys *k, const char *key, int64_t low, int64_t high, int64_t *value);
void bq_gguf_real(bq_gguf_keys *k, const char *key, double low, double high, double *value);
void bq_gguf_bool(bq_gguf_keys *k, const char *key, bool *value);
void bq_gguf_text(bq_gguf_keys *k, const char *key, bq_text *value);
/* A short text as a string: of 63 bytes at most, none of them 0. */
void bq_gguf_word(bq_gguf_keys *k, const char *key, char value[64]);

/* How many items the list under key has; -1 if the key is absent or its value is no list. */
int64_t bq_gguf_length(const bq_gguf_keys *k, const char *key);
/* A list of exactly count items; the key must be there. */
void bq_gguf_ints(bq_gguf_keys *k, const char *key, int64_t low, int64_t high, int64_t count, int64_t *value);
void bq_gguf_reals(bq_gguf_keys *k, const char *key, double low, double high, int64_t count, double *value);
void bq_gguf_texts(bq_gguf_keys *k, const char *key, int64_t count, bq_text *value);

/* Refuse for a reason of the caller's. */
void bq_gguf_refuse(bq_gguf_keys *k, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
