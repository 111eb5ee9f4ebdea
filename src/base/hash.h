/* SPDX-License-Identifier: Apache-2.0 */
/* hash.h - hashes: XXH3 with 64 bits for our own fingerprints, SHA-256 where files of
 * other programs use it. */
#ifndef BQ_HASH_H
#define BQ_HASH_H

#include <stdbool.h>
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

/* The same piece by piece; `end` gives the eight words of the value, `hex` their digits.  Nothing is
 * allocated.  plain: without the processor's own instructions, for tests. */
typedef struct {
    void (*mix)(uint32_t state[8], const unsigned char *block, size_t blocks);
    uint32_t h[8];
    uint64_t bytes;
    unsigned char part[64]; /* of a block that is not whole yet */
} bq_sha256_state;
void bq_sha256_begin(bq_sha256_state *s, bool plain);
void bq_sha256_add(bq_sha256_state *s, const void *data, size_t bytes);
void bq_sha256_end(bq_sha256_state *s, uint32_t value[8]);
void bq_sha256_hex(const uint32_t value[8], char hex[65]);

/* Both hashes of a file. */
typedef struct {
    uint64_t xxh3;
    uint32_t sha256[8];
} bq_file_hash;

#endif
