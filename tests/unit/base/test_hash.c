/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include "base/hash.h"

static void known_values(void **state) {
    (void)state;
    /* XXH3_64bits, seed 0: stored fingerprints stay valid only while these hold */
    assert_true(bq_hash_bytes("", 0) == 0x2d06800538d394c2u);
    assert_true(bq_hash_text("") == 0x2d06800538d394c2u);
    assert_true(bq_hash_text("abc") == 0x78af5f94892f3950u);
    assert_true(bq_hash_text("abc") == bq_hash_bytes("abcd", 3));
}

static void streaming_is_the_hash_of_the_whole(void **state) {
    (void)state;
    unsigned char data[5000];
    for (int i = 0; i < 5000; i++) data[i] = (unsigned char)(i * 37 >> 3);
    for (size_t piece = 1; piece < 5000; piece = piece * 3 + 1) {
        bq_hash *hash = bq_hash_open();
        for (size_t at = 0; at < sizeof data; at += piece) {
            bq_hash_add(hash, data + at, at + piece < sizeof data ? piece : sizeof data - at);
        }
        assert_true(bq_hash_close(hash) == bq_hash_bytes(data, sizeof data));
    }
    assert_true(bq_hash_close(bq_hash_open()) == bq_hash_bytes("", 0));
}

static void one_bit_changes_it(void **state) {
    (void)state;
    unsigned char data[300] = {0};
    uint64_t before = bq_hash_bytes(data, sizeof data);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] ^= 1;
        assert_true(bq_hash_bytes(data, sizeof data) != before);
        data[i] ^= 1;
    }
}

/* Values of hashlib; the last is of the values of the first 0, 1, ... 199 bytes, all endings of a block. */
static void sha256(void **state) {
    (void)state;
    char hex[65], all[200 * 64 + 1];
    unsigned char data[200];
    bq_sha256("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    bq_sha256("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for (int i = 0; i < 200; i++) data[i] = (unsigned char)(i * 37 >> 3);
    for (size_t n = 0; n < 200; n++) bq_sha256(data, n, all + 64 * n);
    bq_sha256(all, 200 * 64, hex);
    assert_string_equal(hex, "ecc0290f66c9f8bd61c75045bd779d22d392ccbb6b8b1cb257e2f14f3b54e8a6");
}

/* Piece by piece, with the processor's instructions and without them: the value of the whole. */
static void sha256_streaming(void **state) {
    (void)state;
    unsigned char data[1000];
    char want[65], have[65];
    for (int i = 0; i < 1000; i++) data[i] = (unsigned char)(i * 37 >> 3);
    for (size_t n = 0; n <= sizeof data; n += n < 200 ? 1 : 97)
        for (size_t piece = 1; piece < 400; piece = piece * 3 + 1)
            for (int plain = 0; plain < 2; plain++) {
                bq_sha256_state s;
                uint32_t value[8];
                bq_sha256_begin(&s, plain);
                for (size_t at = 0; at < n; at += piece)
                    bq_sha256_add(&s, data + at, at + piece < n ? piece : n - at);
                bq_sha256_end(&s, value);
                bq_sha256_hex(value, have);
                bq_sha256(data, n, want);
                assert_string_equal(have, want);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),       cmocka_unit_test(streaming_is_the_hash_of_the_whole),
        cmocka_unit_test(one_bit_changes_it), cmocka_unit_test(sha256),
        cmocka_unit_test(sha256_streaming),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
