/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of GGUF files: what is taken, and what is refused for which reason. */
#include "gguf_file.h"

#include "io/in/gguf_header.h"

#include <fcntl.h>

static int read_file(const char *path) {
    bq_gguf_header h;
    int fd = open(path, O_RDONLY), rc = bq_gguf_header_read(&h, fd, path);
    bq_gguf_header_close(&h);
    close(fd);
    return rc;
}

#define FULL "18446744073709551615"

static const struct {
    const char *line, *needle; /* NULL: fine */
} cases[] = {
    {HEAD(0, 0), NULL},
    {"!GGUF w2 q0 q0", NULL},
    {HEAD(0, 1) "'a' w4 w7", NULL},
    {HEAD(0, 2) "'a' w9 w8 q2 'x' '' 'b' w9 w5 q3 w1 w2 w3", NULL},
    {HEAD(0, 1) "'a' w9 w6 q0", NULL},
    {HEAD(1, 0) TENSOR1("t", 2, 0, 0) "|32 +8", NULL},
    {HEAD(1, 0) "'t' w4 q2 q1 q1 q1 w0 q0 |32 +8", NULL},
    {HEAD(1, 1) ALIGN(1) TENSOR1("t", 2, 0, 0) "+8", NULL},
    {HEAD(1, 1) ALIGN(64) TENSOR1("t", 2, 0, 0) "|64 +8", NULL},
    {HEAD(2, 0) TENSOR1("t", 2, 0, 96) TENSOR1("s", 9, 0, 0) "|32 +104", NULL}, /* a hole, another order */
    {HEAD(1, 0) TENSOR2("t", 256, 3, 14, 0) "|32 +630", NULL},

    {"", "the word GGUF at byte 0 has 4 bytes, the file only 0"},
    {"!GGU", "truncated"},
    {"!GGML w3 q0 q0", "does not begin with 'GGUF'"},
    {"!GGUF w1 q0 q0", "version 1 of GGUF"},
    {"!GGUF w4 q0 q0", "version 4 of GGUF"},
    {"!GGUF w0x03000000 q0 q0", "version 50331648"},
    {"!GGUF w3 q0", "truncated"},
    {HEAD(1, 0), "1 tensors in a file of 24 bytes"},
    {HEAD(0, 2), "2 keys in a file of 24 bytes"},
    {HEAD(1000001, 0), "1000001 tensors, at most 1000000"},
    {"!GGUF w3 q" FULL " q0", FULL " tensors"},
    {"!GGUF w3 q0 q" FULL, FULL " keys"},
    {"!GGUF w3 q0 q9223372036854775808 +64", "9223372036854775808 keys"},

    {HEAD(0, 1) "'' w4 w7 +9", "has 0 bytes, 1 to 1023"},
    {HEAD(0, 1) "q5 !abc +9", "has a zero byte in it"},
    {HEAD(0, 1) "q1024 +1200", "has 1024 bytes, 1 to 1023"},
    {HEAD(0, 1) "q" FULL " !a +9", "has " FULL " bytes"},
    {HEAD(0, 1) "q90 !a +14", "has 90 bytes, the file only"},
    {HEAD(0, 1) "'a' w13 +9", "'a': its type 13 is unknown"},
    {HEAD(0, 1) "'a' w9 w9 q1 +30", "'a': it is a list of lists"},
    {HEAD(0, 1) "'a' w9 w13 q0", "its type 13 is unknown"},
    {HEAD(0, 1) "'abcdef' w10 w1", "'abcdef': 1 values of 8 bytes, the rest of the file has 4"},
    {HEAD(0, 1) "'a' w9 w4 q3 +8", "3 values of 4 bytes, the rest of the file has 8 (truncated?)"},
    {HEAD(0, 1) "'a' w9 w4 q" FULL, FULL " values of 4 bytes"},
    {HEAD(0, 1) "'a' w9 w10 q2305843009213693953 +8", "2305843009213693953 values of 8 bytes"},
    {HEAD(0, 1) "'a' w9 w8 q" FULL " 'x' 'y'", "the length of a text at byte"},
    {HEAD(0, 1) "'a' w8 q" FULL, "a text at byte 45 has " FULL " bytes"},
    {HEAD(0, 1) "'a' w8 q2 !x", "a text at byte 45 has 2 bytes, the file only 46"},
    {HEAD(0, 2) "'a' w4 w7 'a' w4 w7", "key 'a' is there twice"},
    {HEAD(0, 3) "'a' w4 w7 'b' w4 w7 'a' w0 b7", "key 'a' is there twice"},

    {HEAD(1, 0) "'' w1 q2 w0 q0 |32 +8", "the name of a tensor at byte 32 has 0 bytes"},
    {HEAD(1, 0) "'t' w0 w0 q0 |32 +40", "'t': 0 dimensions"},
    {HEAD(1, 0) "'t' w5 q1 q1 q1 q1 q1 w0 q0 |32 +40", "'t': 5 dimensions"},
    {HEAD(1, 0) "'t' w" FULL " q1 +99", "'t': 4294967295 dimensions"},
    {HEAD(1, 0) TENSOR1("t", 0, 0, 0) "|32 +8", "a size of 0"},
    {HEAD(1, 0) TENSOR1("t", 9223372036854775808, 0, 0) "|32 +8", "a size of 9223372036854775808"},
    {HEAD(1, 0) TENSOR1("t", 9223372036854775807, 0, 0) "|32 +8", "its bytes overflow"},
    {HEAD(1, 0) TENSOR2("t", 4294967296, 4294967296, 0, 0) "|32 +8",
     "its shape overflows at size 4294967296"},
    {HEAD(1, 0) TENSOR2("t", 9223372036854775807, 2, 0, 0) "|32 +8", "its shape overflows"},
    {HEAD(1, 0) TENSOR1("t", 2, 16, 0) "|32 +8", "blockq does not read its type, 16"},
    {HEAD(1, 0) TENSOR1("t", 2, 4294967295, 0) "|32 +8", "its type, 4294967295"},
    {HEAD(1, 0) TENSOR1("t", 48, 2, 0) "|32 +27", "rows of 48 are no whole blocks of 32, as Q4_0"},
    {HEAD(1, 0) TENSOR2("t", 128, 2, 12, 0) "|32 +144", "rows of 128 are no whole blocks of 256, as Q4_K"},
    {HEAD(1, 0) TENSOR1("t", 2, 0, 4) "|32 +64", "its place 4 is no multiple of 32"},
    {HEAD(1, 0) TENSOR1("t", 2, 0, 0) "|32 +7", "8 bytes at 64 + 0 lie beyond the end of the file, 71"},
    {HEAD(1, 0) TENSOR1("t", 2, 0, 0), "beyond the end of the file"},
    {HEAD(1, 0) TENSOR1("t", 2, 0, 32) "|32 +32", "beyond the end of the file"},
    {HEAD(1, 0) TENSOR1("t", 2, 0, 18446744073709551584) "|32 +64", "beyond the end of the file"},
    {HEAD(1, 0) TENSOR1("t", 1152921504606846976, 0, 9223372036854775776) "|32 +64", "beyond the end"},
    {HEAD(2, 0) TENSOR1("t", 9, 0, 0) TENSOR1("s", 2, 0, 32) "|32 +64",
     "'s': its data begin at byte 128, those of 't' end at 132"},
    {HEAD(2, 0) TENSOR1("t", 2, 0, 0) TENSOR1("s", 2, 0, 0) "|32 +64", "its data begin at byte 96"},

    {HEAD(0, 1) ALIGN(0), "general.alignment: 0"},
    {HEAD(0, 1) ALIGN(48), "general.alignment: 48"},
    {HEAD(0, 1) ALIGN(131072), "general.alignment: 131072"},
    {HEAD(0, 1) "'general.alignment' w10 q32", "general.alignment: 32 (type 10)"},
    {HEAD(0, 1) "'general.alignment' w8 'x'", "general.alignment: 0 (type 8)"},
    {HEAD(0, 1) "'general.alignment' w9 w4 q0", "general.alignment: 0 (type 4)"},
    {HEAD(0, 1) "'general.alignment' w9 w4 q1 w32", "general.alignment: 0 (type 4)"},
};

static void headers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = gguf_save("h.gguf", cases[i].line);
        if (!cases[i].needle)
            assert_int_equal(read_file(path), BQ_OK);
        else
            assert_refused(read_file(path), cases[i].needle);
    }
}

/* Every cut of a good file is refused once, or only lost bytes that no tensor has. */
static void cuts(void **state) {
    (void)state;
    static uint8_t bytes[GGUF_ROOM];
    size_t n = gguf_bytes(HEAD(2, 3) "'a' w9 w8 q2 'x' 'yz' 'b' w6 f1.5 'general.alignment' w4 w8 " TENSOR1(
                              "t", 2, 0, 0) TENSOR2("s", 32, 2, 8, 8) "|8 +76 +4",
                          bytes);
    for (size_t cut = 0; cut <= n; cut++) {
        const char *path = temp_path("cut.gguf");
        file_save(path, bytes, cut);
        if (cut + 4 < n)
            assert_refused(read_file(path), "truncated");
        else
            assert_int_equal(read_file(path), BQ_OK);
    }
}

static void fields(void **state) {
    (void)state;
    bq_gguf_header h;
    const char *path =
        gguf_save("f.gguf", HEAD(3, 2) "'z.list' w9 w3 q2 h1 h-2 'a.text' w8 'xyz' " TENSOR2(
                                "blk.0.w", 64, 3, 8,
                                64) "'e' w3 q32 q4 q5 w2 q320 " TENSOR1("norm", 2, 0, 0) "|32 +64 +256 +360");
    int fd = open(path, O_RDONLY);
    assert_int_equal(bq_gguf_header_read(&h, fd, path), BQ_OK);
    close(fd);
    assert_true(h.values == 2 && h.tensors == 3 && h.file_bytes % 4 == 0);
    const bq_gguf_value *v = bq_gguf_value_of(&h, "z.list");
    assert_true(v && v == &h.value[1] && v->list && v->type == BQ_GGUF_I16 && v->count == 2);
    assert_int_equal(bq_gguf_number(v->data, 2), 1);
    assert_int_equal(bq_gguf_number(v->data + 2, 2), 0xfffe);
    v = bq_gguf_value_of(&h, "a.text");
    assert_true(v && !v->list && v->type == BQ_GGUF_TEXT && v->count == 1 && bq_gguf_number(v->data, 8) == 3);
    assert_memory_equal(v->data + 8, "xyz", 3);
    assert_null(bq_gguf_value_of(&h, "a"));
    assert_string_equal(h.tensor[0].name, "norm");
    assert_string_equal(h.tensor[0].dtype, "F32");
    assert_true(h.tensor[0].dims == 1 && h.tensor[0].shape[0] == 2 && h.tensor[0].bytes == 8);
    assert_string_equal(h.tensor[1].name, "blk.0.w");
    assert_string_equal(h.tensor[1].dtype, "Q8_0");
    assert_true(h.tensor[1].dims == 2 && h.tensor[1].shape[0] == 3 && h.tensor[1].shape[1] == 64);
    assert_true(h.tensor[1].bytes == 204 && h.tensor[1].offset == h.tensor[0].offset + 64);
    assert_true(h.tensor[2].dims == 3 && h.tensor[2].shape[0] == 5 && h.tensor[2].shape[1] == 4 &&
                h.tensor[2].shape[2] == 32 && h.tensor[2].bytes == 360);
    assert_int_equal(h.tensor[2].offset + h.tensor[2].bytes, h.file_bytes);
    bq_gguf_header_close(&h);
    bq_gguf_header_close(&h);
}

/* A header longer than one read, and one that ends in the middle of a read. */
static void long_headers(void **state) {
    (void)state;
    enum { TEXTS = 200000 };
    static uint8_t head[GGUF_ROOM];
    size_t n = gguf_bytes(HEAD(0, 1) "'a' w9 w8 q200000", head), bytes = n + (size_t)TEXTS * 9;
    uint8_t *all = calloc(1, bytes);
    assert_non_null(all);
    memcpy(all, head, n);
    for (size_t i = 0; i < TEXTS; i++) all[n + 9 * i] = 1, all[n + 9 * i + 8] = 'x';
    file_save(temp_path("l.gguf"), all, bytes);
    assert_int_equal(read_file(temp_path("l.gguf")), BQ_OK);
    file_save(temp_path("l.gguf"), all, bytes - 1);
    assert_refused(read_file(temp_path("l.gguf")), "a text at byte");
    free(all);
}

/* The limit of a header holds although the file is longer (and has holes, so it takes no room). */
static void too_long(void **state) {
    (void)state;
    const char *path = gguf_save("big.gguf", HEAD(0, 1) "'a' w9 w0 q100000000");
    assert_int_equal(truncate(path, 200000000), 0);
    assert_refused(read_file(path), "ends beyond byte 100000000: the header is too large");
}

static void no_files(void **state) {
    (void)state;
    bq_gguf_header h;
    int fd = open(temp_dir, O_RDONLY);
    assert_refused(bq_gguf_header_read(&h, fd, "dir"), "not a file");
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),      cmocka_unit_test(cuts),     cmocka_unit_test(fields),
        cmocka_unit_test(long_headers), cmocka_unit_test(too_long), cmocka_unit_test(no_files),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
