#include "io/out/pack.h"

#include "base/die.h"

#include <math.h>

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

void bq_pack_zeros(bq_mat zero, int bits, bq_mat word) {
    BQ_CHECK(bits == 4 || bits == 8, "packing of %d bits", bits);
    BQ_CHECK(zero.type == BQ_F32 && word.type == BQ_I32 && zero.cols == word.cols &&
                 word.rows == bq_pack_words(zero.rows, bits),
             "packing zero points (%lld, %lld) into (%lld, %lld)", (long long)zero.rows, (long long)zero.cols,
             (long long)word.rows, (long long)word.cols);
    int offset = 1 << (bits - 1), fields = 32 / bits;
    for (int64_t w = 0; w < word.rows; w++) {
        for (int64_t g = 0; g < word.cols; g++) {
            uint32_t packed = 0;
            for (int i = 0; i < fields && w * fields + i < zero.rows; i++) {
                float z = *(float *)bq_mat_at(zero, w * fields + i, g);
                bool fits = z >= (float)-offset && z < (float)offset && z == rintf(z);
                BQ_CHECK(fits, "zero point %g is not a code of %d bits", (double)z, bits);
                packed |= (uint32_t)((int)z + offset) << (bits * i);
            }
            *(uint32_t *)bq_mat_at(word, w, g) = packed;
        }
    }
}
