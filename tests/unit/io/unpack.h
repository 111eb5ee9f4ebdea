/* unpack.h - the inverse of bq_pack_rows, for tests; padding is ignored. */
#ifndef UNPACK_H
#define UNPACK_H

#include "temp.h"

#include "io/out/pack.h"

static inline void unpack_rows(bq_mat word, int bits, bq_mat code) {
    assert_true(word.cols == bq_pack_words(code.cols, bits) && word.rows == code.rows);
    int offset = 1 << (bits - 1), fields = 32 / bits;
    uint32_t mask = (1u << bits) - 1;
    for (int64_t r = 0; r < code.rows; r++) {
        const uint32_t *from = bq_mat_at(word, r, 0);
        int8_t *to = bq_mat_at(code, r, 0);
        for (int64_t c = 0; c < code.cols; c++) {
            to[c] = (int8_t)((int)(from[c / fields] >> (bits * (c % fields)) & mask) - offset);
        }
    }
}

#endif
