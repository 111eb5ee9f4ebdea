/* SPDX-License-Identifier: Apache-2.0 */
#include "io/out/pack.h"

#include "base/die.h"

#include <math.h>

int64_t bq_pack_words(int64_t cols, int bits) { return (cols * bits + 31) / 32; }

uint32_t bq_pack_word(const int8_t *code, int64_t cols, int bits, int64_t at) {
    int64_t c = 32 * at / bits, end = (32 * (at + 1) + bits - 1) / bits;
    int offset = 1 << (bits - 1), low = (int)(c * bits - 32 * at); /* negative: c begins in the word before */
    uint32_t word = 0;
    if (end > cols) end = cols;
    for (; c < end; c++, low += bits) {
        int field = code[c] + offset;
        BQ_CHECK(field >= 0 && field < 2 * offset, "code %d does not fit %d bits", code[c], bits);
        word |= low < 0 ? (uint32_t)field >> -low : (uint32_t)field << low;
    }
    return word;
}

static void check_bits(int bits) { BQ_CHECK(bits >= 2 && bits <= 8, "packing of %d bits", bits); }

void bq_pack_rows(bq_mat code, int bits, bq_mat word) {
    check_bits(bits);
    BQ_CHECK(code.type == BQ_I8 && word.type == BQ_I32 && code.rows == word.rows &&
                 word.cols == bq_pack_words(code.cols, bits),
             "packing (%lld, %lld) %s into (%lld, %lld) %s", (long long)code.rows, (long long)code.cols,
             bq_type_name(code.type), (long long)word.rows, (long long)word.cols, bq_type_name(word.type));
    for (int64_t r = 0; r < code.rows; r++) {
        const int8_t *from = bq_mat_at(code, r, 0);
        uint32_t *to = bq_mat_at(word, r, 0);
        for (int64_t w = 0; w < word.cols; w++) to[w] = bq_pack_word(from, code.cols, bits, w);
    }
}

/* A zero point as a code. */
static int8_t code_of(float zero, int bits) {
    float limit = (float)(1 << (bits - 1));
    BQ_CHECK(zero >= -limit && zero < limit && zero == rintf(zero), "zero point %g is not a code of %d bits",
             (double)zero, bits);
    return (int8_t)zero;
}

void bq_pack_zeros(bq_mat zero, int bits, bq_mat word) {
    check_bits(bits);
    BQ_CHECK(zero.type == BQ_F32 && word.type == BQ_I32 && zero.cols == word.cols &&
                 word.rows == bq_pack_words(zero.rows, bits),
             "packing zero points (%lld, %lld) into (%lld, %lld)", (long long)zero.rows, (long long)zero.cols,
             (long long)word.rows, (long long)word.cols);
    for (int64_t first = 0; first < zero.rows; first += 32) {
        int64_t n = zero.rows - first < 32 ? zero.rows - first : 32, at = first / 32 * bits;
        for (int64_t g = 0; g < zero.cols; g++) {
            int8_t code[32];
            for (int64_t i = 0; i < n; i++) code[i] = code_of(*(float *)bq_mat_at(zero, first + i, g), bits);
            for (int64_t i = 0; i < bq_pack_words(n, bits); i++)
                *(uint32_t *)bq_mat_at(word, at + i, g) = bq_pack_word(code, n, bits, i);
        }
    }
}
