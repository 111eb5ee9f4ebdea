/* hash.h - fingerprints: XXH3, 64 bits; and SHA-256, where a file of others names one. */
#ifndef BQ_HASH_H
#define BQ_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct bq_hash bq_hash;

uint64_t bq_hash_bytes(const void *data, size_t bytes);
uint64_t bq_hash_text(const char *text);

/* Streaming form; the value is that of bq_hash_bytes over the concatenation. */
bq_hash *bq_hash_open(void);
void bq_hash_add(bq_hash *hash, const void *data, size_t bytes);
uint64_t bq_hash_close(bq_hash *hash);

/* SHA-256 in 64 hexadecimal digits, and a closing 0. */
void bq_sha256(const void *data, size_t bytes, char hex[65]);

#endif
