/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include "io/files.h"
#include "io/json.h"

#include <errno.h>
#include <fcntl.h>

static int parse(const char *text, size_t bytes) {
    json_t *out = NULL;
    int rc = bq_json_parse("x.json", text, bytes, &out);
    if (rc) assert_null(out);
    json_decref(out);
    return rc;
}

static int parse_text(const char *text) { return parse(text, strlen(text)); }

static void texts_are_refused(void **state) {
    (void)state;
    assert_int_equal(parse_text("{\"a\": [1, 2.5, null, {\"b\": \"\\u00e9\"}]}  \n"), BQ_OK);
    assert_refused(parse_text(""), "x.json");
    assert_refused(parse_text("[1]"), "not a JSON object");
    assert_refused(parse_text("{\"a\": 1, \"a\": 2}"), "duplicate");
    assert_refused(parse_text("{\"a\": 1,\n\n \"b\" 2}"), "x.json:3");
    assert_refused(parse_text("{\"a\": \"\xff\"}"), "x.json:1");
    assert_refused(parse_text("{\"a\": \"\xed\xa0\x80\"}"), "x.json:1"); /* a surrogate */
    assert_refused(parse_text("{\"a\": 1} {}"), "x.json");
    assert_refused(parse_text("{\"a\": 123456789012345678901234567890}"), "x.json");
    assert_refused(parse_text("{\"a\": 1e999}"), "x.json");
    assert_refused(parse_text("{\"a\": NaN}"), "x.json");
    assert_refused(parse("{\"a\": 1\0}", 9), "x.json");
}

/* Jansson alone would take 2048 levels; a million must not reach its recursion. */
static void depth_is_limited(void **state) {
    (void)state;
    enum { DEEP = 1000000 };
    char *text = malloc(DEEP + 16);
    assert_non_null(text);
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', DEEP);
    assert_refused(parse(text, DEEP + 5), "deeper than 64");
    memset(text + 5, '[', 63);
    memset(text + 68, ']', 63);
    text[131] = '}';
    assert_int_equal(parse(text, 132), BQ_OK);
    memset(text + 5, '[', 64);
    memset(text + 69, ']', 64);
    text[133] = '}';
    assert_refused(parse(text, 134), "deeper than 64");
    free(text);
    assert_int_equal(
        parse_text("{\"a\": \"[[[[\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"}"),
        BQ_OK);
}

static void files_are_limited(void **state) {
    (void)state;
    json_t *out;
    const char *path = temp_path("a.json");
    text_save(path, "{\"a\": 1}");
    assert_int_equal(bq_json_read(path, 8, &out), BQ_OK);
    json_decref(out);
    assert_refused(bq_json_read(path, 7, &out), strerror(EFBIG));
    assert_refused(bq_json_read(temp_path("none.json"), 100, &out), strerror(ENOENT));
    assert_refused(bq_json_read(temp_path(""), 100, &out), strerror(EISDIR));
}

static json_t *object(const char *text) {
    json_t *out;
    assert_int_equal(bq_json_parse("x.json", text, strlen(text), &out), BQ_OK);
    return out;
}

static void getters_take(void **state) {
    (void)state;
    json_t *o = object("{\"i\": -7, \"whole\": 8192.0, \"r\": 1e-5, \"b\": true, \"t\": \"x\", \"n\": null,"
                       " \"v\": [1, 2.5], \"o\": {\"k\": 3}}");
    bq_json j = bq_json_of(o, "x.json");
    int64_t i = 1, whole = 1, kept = 5, k = 0;
    double r = 0, from_int = 0, v[2];
    bool b = false;
    const char *t = NULL;
    char prefix[64];
    bq_json_int(&j, "i", -7, 0, &i);
    bq_json_int(&j, "whole", 0, 10000, &whole);
    bq_json_int(&j, "n", 0, 1, &kept);
    bq_json_int(&j, "absent", 0, 1, &kept);
    bq_json_real(&j, "r", 0, 1, &r);
    bq_json_real(&j, "i", -10, 0, &from_int);
    bq_json_bool(&j, "b", &b);
    bq_json_text(&j, "t", &t);
    bq_json_reals(&j, "v", 1, 2.5, 2, v);
    bq_json inner = bq_json_object(&j, "o", prefix), none = bq_json_object(&j, "n", prefix);
    bq_json_int(&inner, "k", 0, 9, &k);
    bq_json_int(&none, "k", 9, 9, &k);
    assert_int_equal(j.status + inner.status + none.status, BQ_OK);
    assert_true(i == -7 && whole == 8192 && kept == 5 && r == 1e-5 && from_int == -7 && b && k == 3);
    assert_true(v[0] == 1 && v[1] == 2.5 && strcmp(t, "x") == 0);
    assert_true(bq_json_has(&j, "i") && !bq_json_has(&j, "n") && !bq_json_has(&j, "absent"));
    json_decref(o);
}

/* Each refuses on its own, names file, prefix and key, and later getters keep quiet and change nothing. */
static int refuse_one(int which) {
    json_t *o = object("{\"s\": \"x\", \"i\": 5, \"r\": 1.5, \"v\": [1, \"x\"], \"o\": {\"k\": 9}}");
    bq_json j = bq_json_of(o, "x.json");
    int64_t i = 1;
    double r = 1, v[2];
    bool b = false;
    const char *t = NULL;
    char prefix[64];
    switch (which) {
    case 0: bq_json_int(&j, "s", 0, 9, &i); break;
    case 1: bq_json_int(&j, "i", 6, 9, &i); break;
    case 2: bq_json_int(&j, "i", 0, 4, &i); break;
    case 3: bq_json_int(&j, "r", 0, 9, &i); break;
    case 4: bq_json_real(&j, "s", 0, 9, &r); break;
    case 5: bq_json_real(&j, "r", 2, 9, &r); break;
    case 6: bq_json_bool(&j, "i", &b); break;
    case 7: bq_json_text(&j, "i", &t); break;
    case 8: bq_json_reals(&j, "v", 0, 9, 3, v); break;
    case 9: bq_json_reals(&j, "v", 0, 9, 2, v); break;
    case 10: bq_json_need(&j, "absent"); break;
    case 11: bq_json_object(&j, "i", prefix); break;
    case 12: {
        bq_json inner = bq_json_object(&j, "o", prefix);
        bq_json_int(&inner, "k", 0, 8, &i);
        bq_json_join(&j, &inner);
    }
    }
    bq_json_int(&j, "s", 0, 9, &i);
    bq_json_real(&j, "i", 0, 9, &r);
    assert_true(i == 1 && r == 1 && !b && !t);
    json_decref(o);
    return j.status;
}

static void getters_refuse(void **state) {
    (void)state;
    static const char *const needle[] = {
        "x.json: s: is not an integer", "x.json: i: 5 is not within 6 .. 9", "5 is not within 0 .. 4",
        "x.json: r: is not an",         "x.json: s: is not a number",        "1.5 is not within",
        "neither true nor false",       "x.json: i: is not a text",          "list of 3 numbers",
        "x.json: v: is not a number",   "x.json: absent: is missing",        "x.json: i: is not an object",
        "x.json: o.k: 9 is not within",
    };
    for (int i = 0; i < (int)(sizeof needle / sizeof *needle); i++) assert_refused(refuse_one(i), needle[i]);
}

static void text_keeps_order_and_values(void **state) {
    (void)state;
    const char *text =
        "{\n  \"z\": 1e-05,\n  \"a\": [\n    10000.0,\n    1.0800000429153442,\n    -3,\n    0.1\n  ],\n"
        "  \"m\": {},\n  \"l\": [],\n  \"t\": \"q\\\"\xc3\xa9\",\n  \"b\": [\n    true,\n    false,\n    "
        "null\n  ]\n}\n";
    json_t *o = object(text);
    size_t bytes;
    char *again = bq_json_text_of(o, &bytes);
    assert_string_equal(again, text);
    assert_int_equal(bytes, strlen(text));
    free(again);
    json_decref(o);
}

/* ---- files ---- */

static void paths_join(void **state) {
    (void)state;
    char p[32];
    bq_path_join(p, sizeof p, "a/b", "c");
    assert_string_equal(p, "a/b/c");
    bq_path_join(p, sizeof p, "a/", "c");
    assert_string_equal(p, "a/c");
    bq_path_join(p, sizeof p, "", "c");
    assert_string_equal(p, "c");
    bq_path_join(p, sizeof p, "a", "/c");
    assert_string_equal(p, "/c");
}

static void files_are_whole_or_absent(void **state) {
    (void)state;
    char deep[600], err[512];
    snprintf(deep, sizeof deep, "%s/x/y//z/", temp_dir);
    assert_int_equal(bq_dir_make(deep), 0);
    assert_int_equal(bq_dir_make(deep), 0);
    assert_int_equal(bq_dir_sync(deep), 0);
    char path[512];
    snprintf(path, sizeof path, "%s", temp_path("x/file"));
    assert_false(bq_file_exists(path));
    assert_true(bq_file_size(path) == -1);
    assert_int_equal(bq_file_write_atomic(path, "old", 3), 0);
    assert_true(bq_file_size(path) == 3);
    assert_int_equal(bq_dir_make(path), ENOTDIR);
    assert_int_equal(bq_file_write_atomic(temp_path("none/file"), "x", 1), ENOENT);
    const char *faults[] = {"BQ_FAULT=file_write", "BQ_FAULT=file_rename:1@0"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(child_run("write", path, faults[i], err, sizeof err), ENOSPC);
        size_t n;
        char *data = file_load(path, &n);
        assert_true(n == 3 && memcmp(data, "old", 3) == 0);
        free(data);
        assert_false(temporary_there(temp_path("x/file")));
    }
    file_save(temp_path("x/file.1.tmp"), "of another process", 18); /* 1 lives, the next does not */
    file_save(temp_path("x/file.999999999.tmp"), "stale", 5);
    file_save(temp_path("x/file.2.999999999.tmp"), "of another file", 15);
    assert_int_equal(child_run("write", path, NULL, err, sizeof err), 0);
    assert_true(file_there(temp_path("x/file.1.tmp")) && file_there(temp_path("x/file.2.999999999.tmp")));
    assert_false(file_there(temp_path("x/file.999999999.tmp")));
    assert_int_equal(bq_file_size(path), 9);
    const char *kept[] = {"x/a.tmp", "x/a.01.tmp", "x/.7.tmp", "x/a7.tmp", "x/a.7.tmp.h5"};
    for (int i = 0; i < 5; i++) file_save(temp_path(kept[i]), "k", 1);
    bq_temps_remove(temp_path("x"));
    assert_false(file_there(temp_path("x/file.1.tmp")) || file_there(temp_path("x/file.2.999999999.tmp")));
    for (int i = 0; i < 5; i++) assert_true(file_there(temp_path(kept[i])));
    assert_true(file_there(path));
}

/* A FIFO, which nobody writes into, is no input; a shell's pipe, as in <(command), is. */
static void fifos_are_refused(void **state) {
    (void)state;
    int fd, ends[2];
    char *data, path[40];
    size_t n;
    const char *fifo = temp_path("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    alarm(20);
    assert_int_equal(bq_file_open(fifo, O_RDONLY, &fd), BQ_NOT_FILE);
    assert_int_equal(fd, -1);
    assert_int_equal(bq_file_read(fifo, 100, &data, &n), BQ_NOT_FILE);
    assert_int_equal(bq_file_open("/dev/zero", O_RDONLY, &fd), BQ_NOT_FILE);
    assert_int_equal(bq_file_open(temp_dir, O_RDONLY, &fd), EISDIR);
    assert_int_equal(bq_file_open(temp_path("nowhere"), O_RDONLY, &fd), ENOENT);
    assert_string_equal(bq_file_why(BQ_NOT_FILE), "not a regular file");
    assert_string_equal(bq_file_why(ENOENT), "No such file or directory");
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        usleep(50000);
        _exit(write(ends[1], "late", 4) != 4);
    }
    close(ends[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    assert_int_equal(bq_file_read(path, 100, &data, &n), 0);
    assert_true(n == 4 && memcmp(data, "late", 4) == 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    alarm(0);
    close(ends[0]);
    free(data);
}

int main(int argc, char **argv) {
    if (argc == 3) return bq_file_write_atomic(argv[2], "newer one", 9);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_refused), cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(files_are_limited), cmocka_unit_test(getters_take),
        cmocka_unit_test(getters_refuse),    cmocka_unit_test(text_keeps_order_and_values),
        cmocka_unit_test(paths_join),        cmocka_unit_test(files_are_whole_or_absent),
        cmocka_unit_test(fifos_are_refused),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
