/* hash.h - hashes: XXH3 with 64 bits for our own fingerprints, SHA-256 where files of
 * other programs use it. */
#ifndef BQ_HASH_H
#define BQ_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct bq_hash bq_hash;

uint64_t bq_hash_bytes(const void *data, size_t bytes);
uint64_t bq_hash_text(const char *text);

/* The same piece by piece: the value is that of bq_hash_bytes on all pieces joined.  open allocates; close
 * returns the value and frees. */
bq_hash *bq_hash_open(void);
void bq_hash_add(bq_hash *hash, const void *data, size_t bytes);
uint64_t bq_hash_close(bq_hash *hash);

/* SHA-256 as 64 hexadecimal digits and a closing 0. */
void bq_sha256(const void *data, size_t bytes, char hex[65]);

#endif
