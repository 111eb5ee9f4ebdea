/* SPDX-License-Identifier: Apache-2.0 */
/* Packed codes against one bit after the other. */
#include "io/state/codes.h"
#include "unit/io/temp.h"

enum { MOST = 67, GUARD = 0x5a };

static int8_t code_of(int i, int bits, bool whole) {
    int field = (i * 37 + i / 5 + bits) % (1 << bits), half = 1 << bits >> 1;
    return (int8_t)(whole && field >= half ? field - 2 * half : field);
}

static void each_bit(void **state) {
    (void)state;
    for (int bits = 1; bits <= 8; bits++)
        for (int n = 0; n <= MOST; n++)
            for (int whole = 0; whole < 2; whole++) {
                int8_t code[MOST + 1], back[MOST + 1];
                uint8_t packed[MOST + 8];
                int64_t bytes = bq_codes_bytes(n, bits);
                assert_int_equal(bytes, (n * bits + 7) / 8);
                for (int i = 0; i < n; i++) code[i] = code_of(i, bits, whole);
                memset(packed, GUARD, sizeof packed), memset(back, GUARD, sizeof back);
                bq_codes_pack(code, n, bits, packed);
                for (int64_t b = 0; b < 8 * bytes; b++) {
                    int expected = b < n * bits ? code[b / bits] >> (b % bits) & 1 : 0;
                    assert_int_equal(packed[b / 8] >> (b % 8) & 1, expected);
                }
                assert_int_equal(packed[bytes], GUARD);
                bq_codes_unpack(packed, n, bits, whole, back);
                assert_memory_equal(back, code, (size_t)n);
                assert_int_equal(back[n], GUARD);
            }
}

/* What a code has above its bits is not stored. */
static void low_bits(void **state) {
    (void)state;
    const int8_t code[2] = {-1, 0x13};
    uint8_t packed;
    int8_t back[2];
    bq_codes_pack(code, 2, 4, &packed);
    assert_int_equal(packed, 0x3f);
    bq_codes_unpack(&packed, 2, 4, false, back);
    assert_true(back[0] == 15 && back[1] == 3);
    bq_codes_unpack(&packed, 2, 4, true, back);
    assert_true(back[0] == -1 && back[1] == 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_bit), cmocka_unit_test(low_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
