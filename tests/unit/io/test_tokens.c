/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "base/hash.h"
#include "io/state/h5.h"
#include "io/tokens.h"
#include "unit/io/flip.h"

#include <hdf5.h>

static bq_tokens example(int64_t count) {
    bq_tokens t = {
        .count = count, .vocab = 50000, .bos = 1, .tokenizer = "xxh3:0123", .text = "abc", .joiner = "eos"};
    t.ids = malloc((size_t)count * sizeof *t.ids);
    assert_non_null(t.ids);
    for (int64_t i = 0; i < count; i++) t.ids[i] = (int32_t)(i * 7919 % 50000);
    t.hash = bq_tokens_hash(&t);
    return t;
}

static void round_trip(void **state) {
    (void)state;
    const int64_t counts[] = {1, 2, 31, 100003};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        bq_tokens t = example(counts[i]), got;
        assert_int_equal(bq_tokens_write(temp_path("t.h5"), &t), BQ_OK);
        assert_int_equal(bq_tokens_read(temp_path("t.h5"), &got), BQ_OK);
        assert_int_equal(got.count, t.count);
        assert_int_equal(got.vocab, 50000);
        assert_int_equal(got.bos, 1);
        assert_string_equal(got.tokenizer, "xxh3:0123");
        assert_string_equal(got.text, "abc");
        assert_string_equal(got.joiner, "eos");
        assert_memory_equal(got.ids, t.ids, (size_t)t.count * 4);
        assert_true(got.hash == t.hash);
        bq_tokens_close(&got);
        bq_tokens_close(&t);
        bq_tokens_close(&t);
    }
}

static void hash_sees_everything(void **state) {
    (void)state;
    bq_tokens t = example(10);
    uint64_t before = bq_tokens_hash(&t);
    t.ids[9]++;
    assert_true(bq_tokens_hash(&t) != before);
    t.ids[9]--, t.bos = -1;
    assert_true(bq_tokens_hash(&t) != before);
    t.bos = 1, t.vocab++;
    assert_true(bq_tokens_hash(&t) != before);
    t.vocab--, t.text[0] = 'x';
    assert_true(bq_tokens_hash(&t) != before);
    t.text[0] = 'a', t.joiner[0] = 'x';
    assert_true(bq_tokens_hash(&t) != before);
    t.joiner[0] = 'e', t.tokenizer[0] = 'y';
    assert_true(bq_tokens_hash(&t) != before);
    t.tokenizer[0] = 'x';
    assert_true(bq_tokens_hash(&t) == before);
    bq_tokens_close(&t);
}

static void text_bytes(void **state) {
    (void)state;
    char text[256 + 3], expected[32];
    bq_tokens t, back;
    for (int i = 0; i < 259; i++) text[i] = (char)i;
    file_save(temp_path("text"), text, sizeof text);
    file_save(temp_path("text.txt"), text, sizeof text);
    assert_int_equal(bq_tokens_read(temp_path("text.txt"), &back), BQ_OK);
    const uint64_t named = back.hash; /* a text by its name */
    bq_tokens_close(&back);
    assert_int_equal(bq_tokens_from_text(1, (const char *[]){temp_path("text")}, &t), BQ_OK);
    assert_int_equal(t.count, 259);
    assert_int_equal(t.vocab, 256);
    assert_int_equal(t.bos, -1);
    for (int i = 0; i < 259; i++) assert_int_equal(t.ids[i], i % 256);
    assert_string_equal(t.tokenizer, "bytes");
    assert_string_equal(t.joiner, "raw");
    snprintf(expected, sizeof expected, "xxh3:%016lx", (unsigned long)bq_hash_bytes(text, sizeof text));
    assert_string_equal(t.text, expected);
    assert_int_equal(bq_tokens_write(temp_path("a.h5"), &t), BQ_OK);
    assert_int_equal(bq_tokens_write(temp_path("b.h5"), &t), BQ_OK);
    assert_same_file(temp_path("a.h5"), temp_path("b.h5"));
    assert_int_equal(bq_tokens_read(temp_path("a.h5"), &back), BQ_OK);
    assert_true(back.hash == t.hash && named == t.hash);
    bq_tokens_close(&back);
    bq_tokens_close(&t);
}

/* Several texts are one, the first behind which the next begins. */
static void texts_are_joined(void **state) {
    (void)state;
    bq_tokens one, three;
    file_save(temp_path("all"), "once\nupon a time", 16);
    file_save(temp_path("p1"), "once", 4);
    file_save(temp_path("p2"), "\nupon a tim", 11);
    file_save(temp_path("p3"), "e", 1);
    const char *part[] = {temp_path("p1"), temp_path("p2"), temp_path("p3")}, *all = temp_path("all");
    assert_int_equal(bq_tokens_from_text(1, &all, &one), BQ_OK);
    assert_int_equal(bq_tokens_from_text(3, part, &three), BQ_OK);
    assert_int_equal(three.count, 16);
    assert_memory_equal(one.ids, three.ids, 16 * sizeof *one.ids);
    assert_string_equal(one.text, three.text);
    assert_true(one.hash == three.hash);
    bq_tokens_close(&one);
    bq_tokens_close(&three);
    part[2] = temp_path("p4");
    char err[1024];
    int fd = captured_fd(0), rc = bq_tokens_from_text(3, part, &three);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_DATA);
    assert_one_line(err, "p4': No such file");
    assert_null(three.ids);
}

/* What is said about a file that must be refused. */
static void refused(const char *path, const char *needle) {
    char err[1024];
    bq_tokens t;
    int fd = captured_fd(0), rc = bq_tokens_read(path, &t);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_DATA);
    assert_null(t.ids);
    assert_one_line(err, needle);
    assert_non_null(strstr(err, path));
}

static void refuses_no_file(void **state) {
    (void)state;
    char err[1024];
    bq_tokens t;
    refused(temp_path("none.h5"), "make it by `blockq tokens` or tools/prepare.py");
    file_save(temp_path("x.h5"), "not HDF5", 8);
    refused(temp_path("x.h5"), "not an HDF5 file");
    int fd = captured_fd(0), rc = bq_tokens_from_text(1, (const char *[]){temp_path("none")}, &t);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_DATA);
    assert_one_line(err, "No such file");
    file_save(temp_path("empty"), "", 0);
    fd = captured_fd(0), rc = bq_tokens_from_text(1, (const char *[]){temp_path("empty")}, &t);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_DATA);
    assert_one_line(err, "is empty");
}

/* As prepare.py writes it (null-padded strings), with one thing changed. */
typedef struct {
    const char *format, *tokenizer;
    int64_t version, vocab, bos;
    int32_t bad; /* in the middle of the ids */
    int without; /* attribute to leave out, by index */
    const char *needle;
} variant;

static void text_attribute(hid_t f, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text));
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    hid_t a = H5Acreate2(f, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, type, text) >= 0);
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
}

static void int_attribute(hid_t f, const char *name, hid_t type, int64_t value) {
    hid_t space = H5Screate(H5S_SCALAR), a = H5Acreate2(f, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(a);
    H5Sclose(space);
}

static void make(const char *path, const variant *v) {
    int32_t ids[5] = {0, 1, v->bad, 3, 99};
    hsize_t n = 5;
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), space = H5Screate_simple(1, &n, NULL);
    assert_true(f >= 0);
    if (v->without != 1) text_attribute(f, "format", v->format);
    if (v->without != 2) int_attribute(f, "version", H5T_STD_I32LE, v->version);
    if (v->without != 3) int_attribute(f, "vocab", H5T_STD_I64LE, v->vocab);
    if (v->without != 4) int_attribute(f, "bos", H5T_STD_I32LE, v->bos);
    if (v->without != 5) text_attribute(f, "tokenizer", v->tokenizer);
    if (v->without != 6) text_attribute(f, "text", "t");
    if (v->without != 7) text_attribute(f, "joiner", "raw");
    if (v->without != 8) {
        hid_t d = H5Dcreate2(f, "tokens", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Dwrite(d, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, ids) >= 0);
        H5Dclose(d);
    }
    H5Sclose(space);
    H5Fclose(f);
}

static void foreign_writers(void **state) {
    (void)state;
    static const char f[] = "blockq tokens", b[] = "bytes";
    static const char c79[] =
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678";
    static const char c80[] =
        "01234567890123456789012345678901234567890123456789012345678901234567890123456789";
    static const variant good[] = {{f, b, 1, 100, -1, 2, 0, NULL}, {f, c79, 1, 100, 99, 2, 0, NULL}};
    static const variant bad[] = {
        {"blockq stream", b, 1, 100, -1, 2, 0, "its format is 'blockq stream'"},
        {f, c80, 1, 100, -1, 2, 0, "'tokenizer' is longer than 79"},
        {f, b, 2, 100, -1, 2, 0, "'version' is 2"},
        {f, b, 1, 0, -1, 2, 0, "'vocab' is 0"},
        {f, b, 1, (int64_t)1 << 31, -1, 2, 0, "'vocab' is 2147483648"},
        {f, b, 1, 100, -2, 2, 0, "'bos' is -2"},
        {f, b, 1, 100, 100, 2, 0, "'bos' is 100"},
        {f, b, 1, 100, -1, -1, 0, "token 2 is -1, outside the vocabulary of 100"},
        {f, b, 1, 100, -1, 100, 0, "token 2 is 100"},
        {f, b, 1, 99, -1, 2, 0, "token 4 is 99"},
        {f, b, 1, 100, -1, 2, 1, "'format' is missing"},
        {f, b, 1, 100, -1, 2, 2, "'version' is missing"},
        {f, b, 1, 100, -1, 2, 3, "'vocab' is missing"},
        {f, b, 1, 100, -1, 2, 4, "'bos' is missing"},
        {f, b, 1, 100, -1, 2, 5, "'tokenizer' is missing"},
        {f, b, 1, 100, -1, 2, 6, "'text' is missing"},
        {f, b, 1, 100, -1, 2, 7, "'joiner' is missing"},
        {f, b, 1, 100, -1, 2, 8, "'tokens' is missing"},
    };
    bq_h5_init();
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        bq_tokens t;
        make(temp_path("v.h5"), &good[i]);
        assert_int_equal(bq_tokens_read(temp_path("v.h5"), &t), BQ_OK);
        assert_int_equal(t.count, 5);
        assert_int_equal(t.bos, good[i].bos);
        assert_string_equal(t.tokenizer, good[i].tokenizer);
        bq_tokens_close(&t);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make(temp_path("v.h5"), &bad[i]);
        refused(temp_path("v.h5"), bad[i].needle);
    }
}

/* Cut anywhere, the file is refused with one message or (cut behind the data) still right, never a crash. */
static void truncated(void **state) {
    (void)state;
    size_t n;
    char err[1024];
    bq_tokens t = example(3000), got;
    assert_int_equal(bq_tokens_write(temp_path("t.h5"), &t), BQ_OK);
    char *data = file_load(temp_path("t.h5"), &n);
    for (size_t cut = 0; cut < n; cut += 509) {
        file_save(temp_path("cut.h5"), data, cut);
        int fd = captured_fd(0), rc = bq_tokens_read(temp_path("cut.h5"), &got);
        captured_text(fd, err, sizeof err);
        assert_int_equal(rc, BQ_DATA);
        assert_one_line(err, "cut.h5");
    }
    free(data);
    bq_tokens_close(&t);
}

/* One line, or tokens that keep the rules. */
static const char *look(const char *path) {
    static char err[1024];
    bq_tokens t;
    int fd = captured_fd(0), rc = bq_tokens_read(path, &t);
    captured_text(fd, err, sizeof err);
    if (rc == BQ_OK) {
        assert_string_equal(err, "");
        assert_int_equal(t.count, 40);
        for (int64_t i = 0; i < t.count; i++) assert_in_range(t.ids[i], 0, t.vocab - 1);
        bq_tokens_close(&t);
        return NULL;
    }
    assert_int_equal(rc, BQ_DATA);
    assert_one_line(err, path);
    return err;
}

static void every_bit(void **state) {
    (void)state;
    size_t n;
    bq_tokens t = example(40);
    assert_int_equal(bq_tokens_write(temp_path("t.h5"), &t), BQ_OK);
    free(file_load(temp_path("t.h5"), &n));
    flip_bits(temp_path("t.h5"), n, 1, look);
    bq_tokens_close(&t);
}

static void write_refuses(void **state) {
    (void)state;
    char err[1024];
    bq_tokens t = example(4);
    t.ids[3] = 50000;
    int fd = captured_fd(0), rc = bq_tokens_write(temp_path("w.h5"), &t);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_DATA);
    assert_one_line(err, "token 3 is 50000");
    t.ids[3] = 0, t.count = 0;
    fd = captured_fd(0), rc = bq_tokens_write(temp_path("w.h5"), &t);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_DATA);
    assert_false(file_there(temp_path("w.h5")));
    bq_tokens_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),      cmocka_unit_test(hash_sees_everything),
        cmocka_unit_test(text_bytes),      cmocka_unit_test(texts_are_joined),
        cmocka_unit_test(refuses_no_file), cmocka_unit_test(foreign_writers),
        cmocka_unit_test(truncated),       cmocka_unit_test(every_bit),
        cmocka_unit_test(write_refuses),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
