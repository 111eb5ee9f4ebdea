/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include "io/in/safetensors.h"

#include <fcntl.h>

static int parse(const char *header, size_t data) {
    bq_safetensors s;
    int rc = bq_safetensors_parse(&s, "m.safetensors", header, strlen(header), 8 + strlen(header) + data);
    bq_safetensors_close(&s);
    return rc;
}

#define T(name, dtype, shape, range)                                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

static const struct {
    const char *header;
    size_t data;
    const char *needle; /* NULL: fine */
} cases[] = {
    {"{}", 0, NULL},
    {"{}   ", 0, NULL},
    {"{\"__metadata__\":{\"format\":\"pt\"}," T("a", "F32", "[2,3]", "[0,24]") "}", 24, NULL},
    {"{" T("b", "BF16", "[3]", "[4,10]") "," T("a", "F32", "[]", "[0,4]") "}", 10, NULL},
    {"{" T("z", "F32", "[0,7]", "[4,4]") "," T("a", "F32", "[1]", "[0,4]") "," T("b", "I8", "[2]",
                                                                                 "[4,6]") "}",
     6, NULL},
    {"{" T("a", "F4", "[3,2]", "[0,3]") "}", 3, NULL},
    {"{" T("a", "F8_E4M3", "[1,1,1,1,1,1,1,2]", "[0,2]") "}", 2, NULL},

    {"", 0, "does not begin"},
    {" {}", 0, "does not begin"},
    {"[]", 0, "does not begin"},
    {"{\"a\":", 0, "not valid JSON"},
    {"{\"a\xff\":1}", 0, "not valid JSON"},
    {"{\"__metadata__\":3}", 0, "__metadata__"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "'a' is not a text"},
    {"{}", 1, "1 bytes after the last tensor"},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8, "duplicate"},
    {"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[1]", "[4,8]") "}", 8, "an overlap"},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[0,4]") "}", 4, "an overlap"},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[8,12]") "}", 12, "a hole"},
    {"{" T("a", "F32", "[1]", "[4,8]") "}", 8, "a hole"},
    {"{" T("z", "F32", "[0]", "[2,2]") "," T("a", "F32", "[1]", "[0,4]") "}", 4, "an overlap"},
    {"{" T("a", "F32", "[1]", "[0,4]") "}", 8, "4 bytes after the last tensor"},
    {"{" T("a", "F32", "[2]", "[0,8]") "}", 4, "truncated"},
    {"{" T("a", "F32", "[2]", "[0,4]") "}", 4, "do not match"},
    {"{" T("a", "F32", "[2,3]", "[0,20]") "}", 20, "do not match"},
    {"{" T("a", "F32", "[-1]", "[0,4]") "}", 4, "shape"},
    {"{" T("a", "F32", "[-1,-1]", "[0,4]") "}", 4, "shape"},
    {"{" T("a", "F32", "[1.0]", "[0,4]") "}", 4, "shape"},
    {"{" T("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows"},
    {"{" T("a", "F32", "[9223372036854775807]", "[0,4]") "}", 4, "overflows"},
    {"{" T("a", "F32", "[4611686018427387904,4,0]", "[0,0]") "}", 0, "overflows"},
    {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "at most 8"},
    {"{" T("a", "F32", "4", "[0,4]") "}", 4, "shape"},
    {"{" T("a", "F33", "[1]", "[0,4]") "}", 4, "dtype is unknown"},
    {"{" T("a", "F4", "[3]", "[0,2]") "}", 2, "whole bytes"},
    {"{" T("a", "F32", "[1]", "[4,0]") "}", 4, "not a range"},
    {"{" T("a", "F32", "[1]", "[-4,0]") "}", 4, "not a range"},
    {"{" T("a", "F32", "[1]", "[0,4,8]") "}", 4, "not a pair"},
    {"{" T("a", "F32", "[1]", "[0]") "}", 4, "not a pair"},
    {"{" T("a", "F32", "[1]", "4") "}", 4, "not a pair"},
    {"{" T("a", "F32", "[1]", "[0,18446744073709551615]") "}", 4, "not valid JSON"},
    {"{" T("a", "F32", "[1]", "[9223372036854775800,9223372036854775804]") "}", 4, "beyond the end"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "not a pair"},
    {"{\"a\":[]}", 0, "no dtype"},
    {"{\"a\":null}", 0, "no dtype"},
};

static void headers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!cases[i].needle)
            assert_int_equal(parse(cases[i].header, cases[i].data), BQ_OK);
        else
            assert_refused(parse(cases[i].header, cases[i].data), cases[i].needle);
    }
}

static void fields(void **state) {
    (void)state;
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "BF16", "[3]", "[24,30]") "," T(
        "a", "F32", "[2,3]", "[0,24]") "}";
    bq_safetensors s;
    assert_int_equal(bq_safetensors_parse(&s, "m", header, strlen(header), 8 + strlen(header) + 30), BQ_OK);
    assert_int_equal(s.count, 2);
    assert_string_equal(s.at[0].name, "a");
    assert_string_equal(s.at[0].dtype, "F32");
    assert_true(s.at[0].dims == 2 && s.at[0].shape[0] == 2 && s.at[0].shape[1] == 3);
    assert_true(s.at[0].offset == 8 + strlen(header) && s.at[0].bytes == 24);
    assert_true(s.at[1].offset == 8 + strlen(header) + 24 && s.at[1].bytes == 6 &&
                bq_tensor_count(&s.at[1]) == 3);
    const json_t *format = json_object_get(json_object_get(s.header, BQ_METADATA_KEY), "format");
    assert_string_equal(json_string_value(format), "pt");
    bq_safetensors_close(&s);
    bq_safetensors_close(&s);
}

static int read_bytes(const void *data, size_t bytes) {
    bq_safetensors s;
    const char *path = temp_path("raw.safetensors");
    file_save(path, data, bytes);
    int fd = open(path, O_RDONLY), rc = bq_safetensors_read(&s, fd, path);
    bq_safetensors_close(&s);
    close(fd);
    return rc;
}

/* The length in the first eight bytes is the first thing that lies. */
static void lengths(void **state) {
    (void)state;
    static const uint64_t wrong[] = {3, 100, 100000001, UINT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 7};
    char file[10] = {2, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    assert_int_equal(read_bytes(file, 10), BQ_OK);
    for (size_t n = 0; n < 8; n++) assert_refused(read_bytes(file, n), "too few");
    assert_refused(read_bytes(file, 8), "header of 2 bytes");
    assert_refused(read_bytes(file, 9), "header of 2 bytes");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(file, &wrong[i], 8);
        assert_refused(read_bytes(file, 10), "allowed are 2");
    }
    memset(file, 0, 8);
    assert_refused(read_bytes(file, 10), "does not begin");
    int fd = open(temp_dir, O_RDONLY);
    bq_safetensors s;
    assert_refused(bq_safetensors_read(&s, fd, "dir"), "not a file");
    close(fd);
}

static int index_of(const char *text) {
    json_t *map;
    int rc = bq_index_parse("i.json", text, strlen(text), &map);
    if (rc) assert_null(map);
    json_decref(map);
    return rc;
}

static void indices(void **state) {
    (void)state;
    static const char *const outside[] = {
        "../a.safetensors",
        "/etc/a.safetensors",
        "x/a.safetensors",
        ".safetensors",
        "..safetensors",
        "a.bin",
        "",
        "a.safetensors/",
        "..",
        ".a.safetensors",
        "a.safetensors\\u0000",
    };
    assert_int_equal(index_of("{\"metadata\":{},\"weight_map\":{\"a\":\"m-1.safetensors\"}}"), BQ_OK);
    assert_refused(index_of("{}"), "weight_map");
    assert_refused(index_of("{\"weight_map\":{}}"), "weight_map");
    assert_refused(index_of("{\"weight_map\":[\"a\"]}"), "weight_map");
    assert_refused(index_of("{\"weight_map\":{\"a\":1}}"), "'a' is not in a file");
    assert_refused(index_of("{\"weight_map\":{\"a\":\"m.safetensors\",\"a\":\"m.safetensors\"}}"),
                   "duplicate");
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"weight_map\":{\"ok\":\"m.safetensors\",\"a\":\"%s\"}}", outside[i]);
        assert_refused(index_of(text), "i.json");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(fields),
        cmocka_unit_test(lengths),
        cmocka_unit_test(indices),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
