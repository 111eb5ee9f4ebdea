/* SPDX-License-Identifier: Apache-2.0 */
/* unpack.h - fields of packed words, for tests, read bit by bit; padding is ignored. */
#ifndef UNPACK_H
#define UNPACK_H

#include "temp.h"

#include "io/out/pack.h"

/* Field k of a stream of fields of `bits`, whose words lie `stride` apart. */
static inline int unpack_field(const void *words, int64_t stride, int bits, int64_t k) {
    const uint32_t *word = words;
    int value = 0;
    for (int i = 0; i < bits; i++) {
        int64_t bit = k * bits + i;
        value |= (int)(word[bit / 32 * stride] >> bit % 32 & 1) << i;
    }
    return value;
}

/* The inverse of bq_pack_rows. */
static inline void unpack_rows(bq_mat word, int bits, bq_mat code) {
    assert_true(word.cols == bq_pack_words(code.cols, bits) && word.rows == code.rows);
    for (int64_t r = 0; r < code.rows; r++)
        for (int64_t c = 0; c < code.cols; c++)
            *(int8_t *)bq_mat_at(code, r, c) =
                (int8_t)(unpack_field(bq_mat_at(word, r, 0), 1, bits, c) - (1 << (bits - 1)));
}

#endif
