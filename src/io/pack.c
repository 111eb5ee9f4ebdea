#include "io/pack.h"

#include "base/die.h"

int64_t bq_pack_words(int64_t cols, int bits) { return (cols * bits + 31) / 32; }

static void check(bq_mat code, int bits, bq_mat word) {
    BQ_CHECK(bits == 4 || bits == 8, "packing of %d bits", bits);
    BQ_CHECK(code.type == BQ_I8 && word.type == BQ_I32 && code.rows == word.rows &&
                 word.cols == bq_pack_words(code.cols, bits),
             "packing (%lld, %lld) %s into (%lld, %lld) %s", (long long)code.rows, (long long)code.cols,
             bq_type_name(code.type), (long long)word.rows, (long long)word.cols, bq_type_name(word.type));
}

void bq_pack_rows(bq_mat code, int bits, bq_mat word) {
    check(code, bits, word);
    int offset = 1 << (bits - 1), fields = 32 / bits;
    for (int64_t r = 0; r < code.rows; r++) {
        const int8_t *from = bq_mat_at(code, r, 0);
        uint32_t *to = bq_mat_at(word, r, 0);
        for (int64_t w = 0; w < word.cols; w++) {
            int64_t first = w * fields, left = code.cols - first;
            uint32_t packed = 0;
            for (int i = 0; i < fields && i < left; i++) {
                int field = from[first + i] + offset;
                BQ_CHECK(field >= 0 && field < 2 * offset, "code %d does not fit %d bits", from[first + i],
                         bits);
                packed |= (uint32_t)field << (bits * i);
            }
            to[w] = packed;
        }
    }
}
