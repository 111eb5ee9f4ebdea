/* SPDX-License-Identifier: Apache-2.0 */
/* The log of whole samples: any bytes, and whatever they are, a true record behind them counts. */
#include "base/hash.h"
#include "io/state/acts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { SAMPLES = 16, RECORD = 32 };

static void put_record(char *at, int64_t sample, uint64_t hash, uint64_t identity) {
    char all[RECORD];
    memcpy(all, "bqvalid1", 8);
    memcpy(all + 8, &sample, 8);
    memcpy(all + 16, &hash, 8);
    memcpy(at, all, 24);
    memcpy(all + 24, &identity, 8);
    uint64_t check = bq_hash_bytes(all, sizeof all);
    memcpy(at + 24, &check, 8);
}

/* Bytes are a program: 0xf? appends a record of sample ?, 0xe? one that is cut to ? bytes, others themselves.
 */
static size_t compile(const uint8_t *data, size_t bytes, char *log, uint64_t *hash, bool *has) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        int low = data[i] & 15, high = data[i] >> 4;
        if (high < 14) {
            log[n++] = (char)data[i];
            continue;
        }
        put_record(log + n, low, i, 77);
        n += high == 15 ? RECORD : (size_t)low;
        if (high == 15) hash[low] = i, has[low] = true;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    uint64_t hash[SAMPLES] = {0}, expected[SAMPLES] = {0};
    bool has[SAMPLES] = {0}, there[SAMPLES] = {0};
    char *log = malloc(RECORD * (bytes + 1));
    if (!log) abort();
    bq_acts_parse(data, bytes, 77, SAMPLES, hash, has); /* as they are: at worst nothing */
    memset(hash, 0, sizeof hash);
    memset(has, 0, sizeof has);
    size_t n = compile(data, bytes, log, expected, there);
    char *exact = malloc(n ? n : 1); /* so that reading beyond its end shows */
    if (!exact) abort();
    memcpy(exact, log, n);
    int64_t used = bq_acts_parse(exact, n, 77, SAMPLES, hash, has);
    if (used > (int64_t)(n / RECORD)) abort();
    for (int s = 0; s < SAMPLES; s++)
        if (has[s] != there[s] || hash[s] != expected[s]) abort();
    if (bq_acts_parse(exact, n, 78, SAMPLES, hash, has)) abort(); /* another file's */
    free(exact);
    free(log);
    return 0;
}
