/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/codes.h"

#include "base/die.h"

#include <string.h>

enum { GROUP = 8 }; /* so many codes are `bits` whole bytes */

int64_t bq_codes_bytes(int64_t n, int bits) { return (n * bits + 7) / 8; }

/* k codes, at most a group.  bits and k are constants where this is inlined, but for a row's last codes:
 * shifts by constants take a third of the time. */
static inline __attribute__((always_inline)) void pack(const int8_t *code, int k, int bits, uint8_t *to) {
    uint64_t word = 0;
    for (int i = 0; i < k; i++) word |= (uint64_t)(code[i] & ((1 << bits) - 1)) << (i * bits);
    memcpy(to, &word, (size_t)bq_codes_bytes(k, bits));
}

static inline __attribute__((always_inline)) void unpack(const uint8_t *from, int k, int bits, bool whole,
                                                         int8_t *code) {
    const int above = 8 - bits;
    uint64_t word = 0;
    memcpy(&word, from, (size_t)bq_codes_bytes(k, bits));
    for (int i = 0; i < k; i++) {
        uint8_t field = (uint8_t)(word >> (i * bits) << above);
        code[i] = (int8_t)(whole ? (int8_t)field >> above : field >> above);
    }
}

#define EACH_WIDTH(CALL) CALL(1) CALL(2) CALL(3) CALL(4) CALL(5) CALL(6) CALL(7) CALL(8)

void bq_codes_pack(const int8_t *code, int64_t n, int bits, uint8_t *to) {
#define PACK(width)                                                                                          \
    case width:                                                                                              \
        for (; n >= GROUP; n -= GROUP, code += GROUP, to += width) pack(code, GROUP, width, to);             \
        break;
    switch (bits) {
        EACH_WIDTH(PACK)
    default: BQ_DIE("codes of %d bits", bits);
    }
    pack(code, (int)n, bits, to);
}

void bq_codes_unpack(const uint8_t *from, int64_t n, int bits, bool whole, int8_t *code) {
#define UNPACK(width)                                                                                        \
    case width:                                                                                              \
        for (; n >= GROUP; n -= GROUP, code += GROUP, from += width)                                         \
            unpack(from, GROUP, width, whole, code);                                                         \
        break;
    switch (bits) {
        EACH_WIDTH(UNPACK)
    default: BQ_DIE("codes of %d bits", bits);
    }
    unpack(from, (int)n, bits, whole, code);
}
