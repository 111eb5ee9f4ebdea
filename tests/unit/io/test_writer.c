/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"
#include "refuse.h"

#include "io/in/weights.h"
#include "io/out/writer.h"

static void fill(char *to, size_t bytes, int seed) {
    for (size_t i = 0; i < bytes; i++) to[i] = (char)(i * 7 + (size_t)seed);
}

/* Names and dtypes out of order, scalars and empty tensors among them, written in pieces of `piece` bytes. */
static void write_all(const char *path, const int *order, size_t piece) {
    static const struct {
        const char *name, *dtype;
        int dims;
        int64_t shape[2];
    } t[] = {
        {"b", "F32", 2, {3, 5}}, {"a", "F32", 1, {1}}, {"i", "I64", 0, {0}}, {"h", "BF16", 2, {3, 1}},
        {"z", "F32", 2, {0, 4}}, {"c", "I8", 1, {5}},  {"d", "F16", 1, {1}}, {"\xc3\xa9\"\\", "I32", 1, {1}},
    };
    char data[80];
    bq_writer *w = bq_writer_plan();
    for (int i = 0; i < 8; i++)
        bq_writer_add(w, t[order[i]].name, t[order[i]].dtype, t[order[i]].dims, t[order[i]].shape);
    bq_writer_open(w, path);
    assert_int_equal(bq_writer_count(w), 8);
    for (int i = 0; i < 8; i++) {
        const bq_tensor *at = bq_writer_at(w, i);
        fill(data, at->bytes, at->name[0]);
        for (size_t from = 0, n; from < at->bytes; from += n) {
            n = at->bytes - from < piece ? at->bytes - from : piece;
            bq_writer_put(w, data + from, n);
        }
    }
    assert_false(file_there(path)); /* not before close */
    bq_file_hash hash = bq_writer_close(w);
    size_t n;
    char *whole = file_load(path, &n);
    char have[65], want[65];
    bq_sha256_hex(hash.sha256, have);
    bq_sha256(whole, n, want);
    assert_true(hash.xxh3 == bq_hash_bytes(whole, n));
    assert_string_equal(have, want);
    free(whole);
}

static const int forward[] = {0, 1, 2, 3, 4, 5, 6, 7}, backward[] = {7, 6, 5, 4, 3, 2, 1, 0};

static void round_trip(void **state) {
    (void)state;
    static const char *const wanted[] = {"i", "a", "b", "z", "\xc3\xa9\"\\", "d", "h", "c"};
    const char *path = temp_path("w.safetensors");
    bq_weights *w;
    write_all(path, forward, 7);
    assert_false(temporary_there(temp_path("w.safetensors")));
    assert_int_equal(bq_weights_open(&w, path), BQ_OK);
    assert_int_equal(bq_weights_count(w), 8);
    assert_string_equal(bq_weights_metadata(w, "format"), "pt");
    size_t begin = bq_weights_at(w, 0)->offset;
    assert_int_equal(begin % 8, 0);
    for (int i = 0; i < 8; i++) {
        char want[80], got[80];
        const bq_tensor *t = bq_weights_find(w, wanted[i]);
        assert_non_null(t);
        size_t size = (size_t)bq_dtype_bits(t->dtype) / 8;
        assert_int_equal(t->offset % size, 0);
        fill(want, t->bytes, t->name[0]);
        bq_weights_read_raw(w, t, 0, got, t->bytes);
        assert_memory_equal(want, got, t->bytes);
    }
    /* Order in the file; z is empty, so its place among equals is free. */
    const char *last = NULL;
    for (int i = 0; i < 8; i++) {
        if (strcmp(wanted[i], "z") == 0) continue;
        if (last) assert_true(bq_weights_find(w, last)->offset < bq_weights_find(w, wanted[i])->offset);
        last = wanted[i];
    }
    bq_weights_close(w);
}

static void bytes_are_equal(void **state) {
    (void)state;
    const char *a = temp_path("a.safetensors"), *b = temp_path("b.safetensors");
    write_all(a, forward, 1000);
    write_all(b, backward, 1);
    assert_same_file(a, b);
    static const char *const start =
        "{\"__metadata__\":{\"format\":\"pt\",\"producer\":\"blockq\"},\"i\":{\"dtype\":\"I64\","
        "\"shape\":[],\"data_offsets\":[0,8]},\"a\":{";
    size_t n;
    char *data = file_load(a, &n);
    uint64_t header;
    memcpy(&header, data, 8);
    assert_int_equal(header % 8, 0);
    assert_memory_equal(data + 8, start, strlen(start));
    free(data);
    const char *path = temp_path("e.safetensors"); /* nothing at all is a file too */
    bq_writer *w = bq_writer_plan();
    bq_writer_open(w, path);
    bq_writer_close(w);
    bq_weights *e;
    assert_int_equal(bq_weights_open(&e, path), BQ_OK);
    assert_int_equal(bq_weights_count(e), 0);
    bq_weights_close(e);
}

static void dropped_leaves_nothing(void **state) {
    (void)state;
    const char *path = temp_path("d.safetensors");
    bq_writer *w = bq_writer_plan();
    bq_writer_add(w, "a", "F32", 1, (int64_t[]){4});
    bq_writer_open(w, path);
    assert_true(temporary_there(temp_path("d.safetensors")));
    bq_writer_drop(w);
    bq_writer_drop(NULL);
    assert_false(file_there(path) || temporary_there(temp_path("d.safetensors")));
}

static void index_is_read_back(void **state) {
    (void)state;
    const char *path = temp_path("model.safetensors.index.json");
    bq_index_write(path, 1234, json_pack("{s:s, s:s}", "x.b", "m-1.safetensors", "x.a", "m-2.safetensors"));
    size_t n;
    json_t *map;
    char *text = file_load(path, &n);
    text[n] = 0;
    assert_non_null(strstr(text, "\"total_size\": 1234"));
    assert_int_equal(bq_index_parse(path, text, n, &map), BQ_OK);
    assert_int_equal(json_object_size(map), 2);
    assert_string_equal(json_string_value(json_object_get(map, "x.a")), "m-2.safetensors");
    json_decref(map);
    free(text);
}

/* Children that must die; an old file of the name survives all of them. */
static int die(const char *what, const char *path) {
    bq_writer *w = bq_writer_plan();
    bq_writer_add(w, "a", "F32", 1, (int64_t[]){4});
    if (!strcmp(what, "twice")) bq_writer_add(w, "a", "F32", 1, (int64_t[]){4});
    bq_writer_open(w, path);
    bq_writer_put(w, "0123456789abcdef", strcmp(what, "little") ? 16 : 15);
    if (!strcmp(what, "much")) bq_writer_put(w, "x", 1);
    bq_writer_close(w);
    return 0;
}

static void trouble_dies(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"twice", NULL, "planned twice"},
        {"little", NULL, "15 of 16 bytes"},
        {"much", NULL, "more data than planned"},
        {"write", "BQ_FAULT=writer_write:2", "No space left on device"},
        {"close", "BQ_FAULT=writer_close", "Input/output error"},
        {"rename", "BQ_FAULT=file_rename", "No space left on device"},
    };
    char err[1000];
    const char *path = temp_path("f.safetensors");
    text_save(path, "old");
    for (int i = 0; i < 6; i++) {
        assert_int_equal(child_run(cases[i][0], path, cases[i][1], err, sizeof err), BQ_DIED);
        assert_one_line(err, cases[i][2]);
        assert_non_null(strstr(err, i ? "f.safetensors" : "'a'"));
        struct stat st;
        assert_true(stat(path, &st) == 0 && st.st_size == 3);
    }
    assert_int_equal(child_run("fine", temp_path("none/x.safetensors"), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "No such file");
    assert_int_equal(child_run("fine", path, NULL, err, sizeof err), 0);
}

static void full_disks_die(void **state) {
    (void)state;
    char err[1000], folder[512], path[600];
    snprintf(folder, sizeof folder, "%s", temp_path("small"));
    if (!small_disk(folder, "size=8k")) skip();
    snprintf(path, sizeof path, "%s/x.safetensors", folder);
    char *big = calloc(1, 8192);
    file_save(temp_path("small/filler"), big, 4096);
    free(big);
    int rc = child_run("big", path, NULL, err, sizeof err);
    bool there = file_there(path);
    umount(folder);
    assert_int_equal(rc, BQ_DIED);
    assert_one_line(err, "No space left on device");
    assert_false(there);
}

static int fill_disk(const char *path) {
    static char data[65536];
    bq_writer *w = bq_writer_plan();
    bq_writer_add(w, "a", "I8", 1, (int64_t[]){65536});
    bq_writer_open(w, path);
    bq_writer_put(w, data, sizeof data);
    bq_writer_close(w);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return strcmp(argv[1], "big") ? die(argv[1], argv[2]) : fill_disk(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(bytes_are_equal),
        cmocka_unit_test(dropped_leaves_nothing),
        cmocka_unit_test(index_is_read_back),
        cmocka_unit_test(trouble_dies),
        cmocka_unit_test(full_disks_die),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
