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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(streaming_is_the_hash_of_the_whole),
        cmocka_unit_test(one_bit_changes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
