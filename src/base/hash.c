/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include "base/die.h"

#include <string.h>
#include <xxhash.h>

uint64_t bq_hash_bytes(const void *data, size_t bytes) { return XXH3_64bits(data, bytes); }
uint64_t bq_hash_text(const char *text) { return XXH3_64bits(text, strlen(text)); }

bq_hash *bq_hash_open(void) {
    XXH3_state_t *state = XXH3_createState();
    BQ_CHECK(state, "no memory for a hash state");
    XXH3_64bits_reset(state);
    return (bq_hash *)state;
}

void bq_hash_add(bq_hash *hash, const void *data, size_t bytes) {
    XXH3_64bits_update((XXH3_state_t *)hash, data, bytes);
}

uint64_t bq_hash_close(bq_hash *hash) {
    uint64_t value = XXH3_64bits_digest((XXH3_state_t *)hash);
    XXH3_freeState((XXH3_state_t *)hash);
    return value;
}
