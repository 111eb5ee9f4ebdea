/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF models: values of keys, parts, files that are none, rows. */
#include "gguf_file.h"

#include "base/num.h"
#include "io/in/gguf.h"
#include "io/in/gguf_blocks.h"

#include <math.h>
#include <pthread.h>

static bq_gguf *opened(const char *line) {
    bq_gguf *g;
    assert_int_equal(bq_gguf_open(&g, gguf_save("m.gguf", line)), BQ_OK);
    return g;
}

/* ---- keys ---- */

static const char keys[] =
    HEAD(0, 22) "'u8' w0 b200 'i8' w1 b-3 'u16' w2 h65535 'i16' w3 h-300 'u32' w4 "
                "w4000000000 'i32' w5 w-7 'f32' w6 f1e-5 'yes' w7 b1 'no' w7 b0 'odd' w7 b2 "
                "'text' w8 'llama' 'empty' w8 '' 'u64' w10 q9000000000 "
                "'full' w10 q18446744073709551615 'i64' w11 q-9000000000 'f64' w12 d0.1 "
                "'nan' w6 fnan 'ints' w9 w5 q3 w1 w-2 w3 'reals' w9 w6 q2 f0.5 f8 "
                "'texts' w9 w8 q3 'a' '' 'b c' 'none' w9 w4 q0 'zero' w8 q3 !x +1 !y";

static int get_int(const bq_gguf *g, const char *key, int64_t low, int64_t high, int64_t *value) {
    bq_gguf_keys k = bq_gguf_keys_of(g);
    bq_gguf_int(&k, key, low, high, value);
    return k.status;
}

static int get_real(const bq_gguf *g, const char *key, double low, double high, double *value) {
    bq_gguf_keys k = bq_gguf_keys_of(g);
    bq_gguf_real(&k, key, low, high, value);
    return k.status;
}

static void integers(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int64_t value;
    } good[] = {{"u8", 200}, {"i8", -3},          {"u16", 65535},       {"i16", -300}, {"u32", 4000000000},
                {"i32", -7}, {"u64", 9000000000}, {"i64", -9000000000}, {"absent", 77}};
    bq_gguf *g = opened(keys);
    int64_t x = 77;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        x = 77;
        assert_int_equal(get_int(g, good[i].key, INT64_MIN, INT64_MAX, &x), BQ_OK);
        assert_int_equal(x, good[i].value);
        if (i == 8) continue;
        x = 77;
        assert_int_equal(get_int(g, good[i].key, good[i].value, good[i].value, &x), BQ_OK);
        assert_refused(get_int(g, good[i].key, good[i].value + 1, INT64_MAX, &x), good[i].key);
        assert_refused(get_int(g, good[i].key, INT64_MIN, good[i].value - 1, &x), "is not within");
    }
    x = 77;
    assert_refused(get_int(g, "full", INT64_MIN, INT64_MAX, &x), "18446744073709551615 is not within");
    assert_refused(get_int(g, "f32", INT64_MIN, INT64_MAX, &x), "f32: is not an integer (type 6)");
    assert_refused(get_int(g, "f64", INT64_MIN, INT64_MAX, &x), "is not an integer");
    assert_refused(get_int(g, "yes", INT64_MIN, INT64_MAX, &x), "is not an integer");
    assert_refused(get_int(g, "text", INT64_MIN, INT64_MAX, &x), "is not an integer (type 8)");
    assert_refused(get_int(g, "ints", INT64_MIN, INT64_MAX, &x), "is a list of 3, not one value");
    assert_int_equal(x, 77);
    bq_gguf_close(g);
}

static void reals(void **state) {
    (void)state;
    bq_gguf *g = opened(keys);
    double x = 7;
    assert_int_equal(get_real(g, "absent", 0, 1, &x), BQ_OK);
    assert_true(x == 7);
    assert_int_equal(get_real(g, "f32", 0, 1, &x), BQ_OK);
    assert_true(x == (double)1e-5f);
    assert_int_equal(get_real(g, "f64", 0, 1, &x), BQ_OK);
    assert_true(x == 0.1);
    assert_int_equal(get_real(g, "i16", -1000, 1, &x), BQ_OK);
    assert_true(x == -300);
    assert_refused(get_real(g, "nan", -INFINITY, INFINITY, &x), "nan is not within");
    assert_refused(get_real(g, "f64", 0.2, 1, &x), "f64: 0.1 is not within 0.2 .. 1");
    assert_refused(get_real(g, "text", 0, 1, &x), "text: is not an integer");
    assert_refused(get_real(g, "reals", 0, 1, &x), "is a list of 2");
    assert_true(x == -300);
    bq_gguf_close(g);
}

static int get_bool(const bq_gguf *g, const char *key, bool *value) {
    bq_gguf_keys k = bq_gguf_keys_of(g);
    bq_gguf_bool(&k, key, value);
    return k.status;
}

static int get_word(const bq_gguf *g, const char *key, char value[64]) {
    bq_gguf_keys k = bq_gguf_keys_of(g);
    bq_gguf_word(&k, key, value);
    return k.status;
}

static void truths_and_texts(void **state) {
    (void)state;
    bq_gguf *g = opened(keys);
    bool b = false;
    char word[64] = "was";
    assert_int_equal(get_bool(g, "yes", &b), BQ_OK);
    assert_true(b);
    assert_int_equal(get_bool(g, "absent", &b), BQ_OK);
    assert_true(b);
    assert_int_equal(get_bool(g, "no", &b), BQ_OK);
    assert_false(b);
    assert_refused(get_bool(g, "odd", &b), "odd: is neither true nor false (type 7, byte 2)");
    assert_refused(get_bool(g, "u8", &b), "is neither true nor false (type 0");
    assert_int_equal(get_word(g, "absent", word), BQ_OK);
    assert_string_equal(word, "was");
    assert_int_equal(get_word(g, "text", word), BQ_OK);
    assert_string_equal(word, "llama");
    assert_int_equal(get_word(g, "empty", word), BQ_OK);
    assert_string_equal(word, "");
    assert_refused(get_word(g, "zero", word), "zero byte");
    assert_refused(get_word(g, "u8", word), "u8: is not a text (type 0)");
    bq_gguf_keys k = bq_gguf_keys_of(g);
    bq_text text;
    bq_gguf_text(&k, "zero", &text);
    assert_true(k.status == BQ_OK && text.bytes == 3);
    assert_memory_equal(text.at, "x\0y", 3);
    bq_gguf_close(g);
    g = opened(HEAD(0, 1) "'w' w8 'sixty-four-bytes-are-one-too-many-for-a-word-that-has-room-for-63'");
    assert_refused(get_word(g, "w", word), "longer than 63 bytes");
    bq_gguf_close(g);
}

static int get_ints(const bq_gguf *g, const char *key, int64_t low, int64_t count, int64_t *value) {
    bq_gguf_keys k = bq_gguf_keys_of(g);
    bq_gguf_ints(&k, key, low, 100, count, value);
    return k.status;
}

static int get_texts(const bq_gguf *g, const char *key, int64_t count, bq_text *value) {
    bq_gguf_keys k = bq_gguf_keys_of(g);
    bq_gguf_texts(&k, key, count, value);
    return k.status;
}

static void lists(void **state) {
    (void)state;
    bq_gguf *g = opened(keys);
    bq_gguf_keys k = bq_gguf_keys_of(g);
    int64_t n[3];
    double x[2];
    bq_text t[3];
    assert_int_equal(bq_gguf_length(&k, "ints"), 3);
    assert_int_equal(bq_gguf_length(&k, "none"), 0);
    assert_int_equal(bq_gguf_length(&k, "u8"), -1);
    assert_int_equal(bq_gguf_length(&k, "absent"), -1);
    assert_int_equal(get_ints(g, "ints", -2, 3, n), BQ_OK);
    assert_true(n[0] == 1 && n[1] == -2 && n[2] == 3);
    assert_int_equal(get_ints(g, "none", 0, 0, n), BQ_OK);
    assert_refused(get_ints(g, "ints", 0, 3, n), "-2 is not within 0 .. 100");
    assert_refused(get_ints(g, "ints", -2, 2, n), "is not a list of 2 items: there are 3");
    assert_refused(get_ints(g, "reals", -2, 2, n), "reals: is not an integer");
    assert_refused(get_ints(g, "texts", -2, 3, n), "texts: is not an integer");
    assert_refused(get_ints(g, "i8", -2, 1, n), "i8: is not a list of 1 items: there are -1");
    assert_refused(get_ints(g, "absent", -2, 1, n), "absent: is missing");
    bq_gguf_reals(&k, "reals", 0, 10, 2, x);
    assert_true(k.status == BQ_OK && x[0] == 0.5 && x[1] == 8);
    assert_int_equal(get_texts(g, "texts", 3, t), BQ_OK);
    assert_true(t[0].bytes == 1 && *t[0].at == 'a' && t[1].bytes == 0 && t[2].bytes == 3);
    assert_memory_equal(t[2].at, "b c", 3);
    assert_refused(get_texts(g, "ints", 3, t), "ints: is not a list of texts (type 5)");
    bq_gguf_close(g);
}

/* After the first refusal a reader says nothing more. */
static int two_mistakes(const bq_gguf *g) {
    bq_gguf_keys k = bq_gguf_keys_of(g);
    int64_t x;
    bq_gguf_need(&k, "absent");
    bq_gguf_need(&k, "also absent");
    bq_gguf_int(&k, "text", 0, 1, &x);
    bq_gguf_ints(&k, "ints", 5, 6, 3, &x);
    assert_false(bq_gguf_has(&k, "text"));
    bq_gguf_refuse(&k, "text", "no");
    return k.status;
}

static void one_message(void **state) {
    (void)state;
    bq_gguf *g = opened(keys);
    assert_refused(two_mistakes(g), "m.gguf: absent: is missing");
    bq_gguf_close(g);
}

/* ---- files ---- */

static int open_path(const char *path) {
    bq_gguf *g;
    int rc = bq_gguf_open(&g, path);
    assert_true(rc == BQ_OK || !g);
    bq_gguf_close(g);
    return rc;
}

static void what_is_no_file(void **state) {
    (void)state;
    const char *fifo = temp_path("fifo.gguf"), *link_path = temp_path("link.gguf");
    assert_refused(open_path(temp_path("absent.gguf")), "absent.gguf': No such file");
    assert_refused(open_path(temp_dir), "Is a directory");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_refused(open_path(fifo), "not a regular file");
    assert_int_equal(symlink(gguf_save("real.gguf", HEAD(0, 0)), link_path), 0);
    assert_int_equal(open_path(link_path), BQ_OK);
    assert_refused(open_path("/dev/zero"), "not a regular file");
    assert_refused(
        open_path(gguf_save("twice.gguf", HEAD(2, 0) TENSOR1("t", 2, 0, 0) TENSOR1("t", 2, 0, 32) "|32 +64")),
        "tensor 't' is there twice, in 'twice.gguf' and in 'twice.gguf'");
}

#define SPLIT(i, n, t) "'split.no' w2 h" #i " 'split.count' w2 h" #n " 'split.tensors.count' w5 w" #t " "
#define PART1          HEAD(1, 4) SPLIT(0, 3, 3) "'name' w8 'x' " TENSOR1("b", 2, 0, 0) "|32 f1 f2 "
#define PART2          HEAD(0, 3) SPLIT(1, 3, 3)
#define PART3          HEAD(2, 3) SPLIT(2, 3, 3) TENSOR1("c", 1, 0, 0) TENSOR1("a", 1, 0, 32) "|32 f3 |32 f4"

static const char *parts(const char *first, const char *second, const char *third) {
    gguf_save("p-00003-of-00003.gguf", third);
    gguf_save("p-00002-of-00003.gguf", second);
    return gguf_save("p-00001-of-00003.gguf", first);
}

static void several_parts(void **state) {
    (void)state;
    bq_gguf *g;
    static const char *const order[] = {"b", "c", "a"};
    size_t bytes;
    float x = 0;
    assert_int_equal(bq_gguf_open(&g, parts(PART1, PART2, PART3)), BQ_OK);
    assert_true(bq_gguf_count(g) == 3 && bq_gguf_files(g) == 3);
    for (int i = 0; i < 3; i++) {
        const bq_tensor *t = bq_gguf_at(g, i);
        assert_string_equal(t->name, order[i]);
        assert_ptr_equal(bq_gguf_find(g, t->name), t);
        assert_int_equal(t->file, i ? 2 : 0);
    }
    assert_null(bq_gguf_find(g, "d"));
    assert_string_equal(bq_gguf_file(g, 2, &bytes), "p-00003-of-00003.gguf");
    struct stat st;
    assert_int_equal(fstat(bq_gguf_fd(g, 2), &st), 0);
    assert_int_equal(st.st_size, bytes);
    bq_gguf_read(g, bq_gguf_find(g, "a"), 0, 1, bq_mat_host(&x, 1, 1, BQ_F32));
    assert_true(x == 4);
    bq_gguf_read_raw(g, bq_gguf_find(g, "b"), 4, &x, 4);
    assert_true(x == 2);
    bq_gguf_keys k = bq_gguf_keys_of(g);
    assert_true(bq_gguf_has(&k, "name"));
    bq_gguf_close(g);
}

static void wrong_parts(void **state) {
    (void)state;
    parts(PART1, PART2, PART3);
    assert_refused(open_path(temp_path("p-00002-of-00003.gguf")), "it is part 2 of 3: name the first part");
    assert_refused(open_path(parts(PART1, PART3, PART3)), "keys say part 3 of 3");
    assert_refused(open_path(parts(PART1, HEAD(0, 0), PART3)), "keys say part 1 of 1");
    assert_refused(open_path(parts(PART1, PART2, HEAD(0, 3) SPLIT(2, 4, 3))), "keys say part 3 of 4");
    assert_refused(open_path(parts(PART1, PART2, HEAD(0, 3) SPLIT(2, 3, 3))),
                   "split.tensors.count: there are 1 tensors, not 3");
    assert_refused(open_path(parts(PART1, PART2, HEAD(1, 3) SPLIT(2, 3, 3) TENSOR1("b", 1, 0, 0) "|32 f3")),
                   "tensor 'b' is there twice, in 'p-00001-of-00003.gguf' and in 'p-00003-of-00003.gguf'");
    assert_refused(open_path(parts(HEAD(0, 1) "'split.count' w2 h901", PART2, PART3)), "901 is not within");
    assert_refused(open_path(parts(HEAD(0, 2) "'split.count' w2 h3 'split.no' w2 h3", PART2, PART3)),
                   "split.no: 3 is not within 0 .. 2");
    assert_refused(open_path(parts(HEAD(0, 1) "'split.count' w2 h4", PART2, PART3)),
                   "its name should end in '-00001-of-00004.gguf'");
    assert_refused(open_path(gguf_save("q", PART1)), "its name should end in '-00001-of-00003.gguf'");
    parts(PART1, PART2, PART3);
    assert_int_equal(remove(temp_path("p-00002-of-00003.gguf")), 0);
    assert_refused(open_path(temp_path("p-00001-of-00003.gguf")), "p-00002-of-00003.gguf': No such file");
    assert_int_equal(open_path(gguf_save("one.gguf", HEAD(0, 1) "'split.count' w2 h0")), BQ_OK);
}

/* ---- rows ---- */

enum { ROWS = 700, COLS = 1024, BYTES = COLS / 32 * 34 }; /* more than one buffer */

static void fill(uint8_t *data, bq_gguf **g) {
    static uint8_t head[GGUF_ROOM];
    size_t n = gguf_bytes(HEAD(1, 0) "'t' w3 q1024 q350 q2 w8 q0 |32", head);
    uint8_t *all = malloc(n + (size_t)ROWS * BYTES);
    assert_non_null(all);
    for (int i = 0; i < ROWS * BYTES; i++) data[i] = (uint8_t)(i * 7 + i / 1000);
    for (int i = 0; i < ROWS * BYTES; i += 34) {
        uint16_t d = bq_to_f16((float)(i % 991) / 64);
        memcpy(data + i, &d, 2);
    }
    memcpy(all, head, n);
    memcpy(all + n, data, (size_t)ROWS * BYTES);
    file_save(temp_path("rows.gguf"), all, n + (size_t)ROWS * BYTES);
    free(all);
    assert_int_equal(bq_gguf_open(g, temp_path("rows.gguf")), BQ_OK);
}

static float expected(const uint8_t *data, int64_t r, int64_t c) {
    const uint8_t *b = data + r * BYTES + c / 32 * 34;
    return bq_from_f16((uint16_t)(b[0] | b[1] << 8)) * (float)(int8_t)b[2 + c % 32];
}

typedef struct {
    const bq_gguf *g;
    const uint8_t *data;
    int64_t first, rows, ld, wrong;
} job;

static void *read_job(void *arg) {
    job *j = arg;
    const bq_tensor *t = bq_gguf_at(j->g, 0);
    float *to = calloc((size_t)(j->rows * j->ld + 1), sizeof *to);
    bq_mat m = {to, j->rows, COLS, j->ld, BQ_F32, BQ_HOST};
    bq_gguf_read(j->g, t, j->first, j->rows, m);
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t c = 0; c < j->ld; c++)
            j->wrong += to[r * j->ld + c] != (c < COLS ? expected(j->data, j->first + r, c) : 0);
    free(to);
    return NULL;
}

static void rows(void **state) {
    (void)state;
    static uint8_t data[ROWS * BYTES];
    bq_gguf *g;
    fill(data, &g);
    const bq_tensor *t = bq_gguf_at(g, 0);
    assert_true(bq_gguf_rows(t) == ROWS && bq_gguf_cols(t) == COLS && t->dims == 3);
    job jobs[] = {{g, data, 0, ROWS, COLS, 0},
                  {g, data, 3, 1, COLS, 0},
                  {g, data, 349, 2, COLS + 3, 0},
                  {g, data, ROWS, 0, COLS, 0},
                  {g, data, 100, 500, COLS + 1, 0}};
    pthread_t thread[5];
    for (int i = 0; i < 5; i++) assert_int_equal(pthread_create(&thread[i], NULL, read_job, &jobs[i]), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_int_equal(jobs[i].wrong, 0);
    }
    bq_gguf_close(g);
}

/* A file that was shortened after it was opened ends the job with one line. */
static void child(const char *what, const char *path) {
    bq_gguf *g;
    float x[2];
    if (bq_gguf_open(&g, path)) _exit(9);
    if (strcmp(what, "shorter") == 0 && truncate(path, 64)) _exit(9);
    bq_gguf_read(g, bq_gguf_at(g, 0), strcmp(what, "beyond") == 0, 1, bq_mat_host(x, 1, 2, BQ_F32));
    _exit(0);
}

static void failing_reads(void **state) {
    (void)state;
    char err[1000];
    const char *path = gguf_save("s.gguf", HEAD(1, 0) TENSOR1("t", 2, 0, 0) "|32 f1 f2");
    assert_int_equal(child_run("read", path, NULL, err, sizeof err), 0);
    assert_int_equal(child_run("read", path, "BQ_FAULT=weights_read:1", err, sizeof err), BQ_DIED);
    assert_one_line(err, "s.gguf' failed: Input/output error");
    assert_int_equal(child_run("beyond", path, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "t: rows 1 + 1 of 1");
    assert_int_equal(child_run("shorter", path, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "it is shorter than it was");
}

/* ---- types ---- */

static void types(void **state) {
    (void)state;
    const bq_gguf_type *type;
    int n = 0;
    for (; (type = bq_gguf_type_at(n)); n++) {
        assert_ptr_equal(bq_gguf_type_of(type->number), type);
        assert_ptr_equal(bq_gguf_type_named(type->name), type);
    }
    assert_int_equal(n, 19);
    assert_null(bq_gguf_type_at(-1));
    assert_null(bq_gguf_type_of(9));
    assert_null(bq_gguf_type_named("Q8_1"));
}

int main(int argc, char **argv) {
    if (argc > 2) child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),    cmocka_unit_test(reals),         cmocka_unit_test(truths_and_texts),
        cmocka_unit_test(lists),       cmocka_unit_test(one_message),   cmocka_unit_test(what_is_no_file),
        cmocka_unit_test(wrong_parts), cmocka_unit_test(several_parts), cmocka_unit_test(rows),
        cmocka_unit_test(types),       cmocka_unit_test(failing_reads),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
