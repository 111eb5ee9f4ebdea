/* SPDX-License-Identifier: Apache-2.0 */
/* Files made by the library itself, in ways that we must not accept or must find our way in. */
#include "io/state/h5.h"
#include "unit/io/temp.h"

#include <hdf5.h>

typedef struct {
    const char *name, *needle;
} hostile;

static void attribute(hid_t at, const char *name, hid_t type, int count, const void *value) {
    hsize_t n = (hsize_t)count;
    hid_t space = count == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, NULL);
    hid_t a = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(a >= 0);
    assert_true(H5Awrite(a, type, value) >= 0);
    H5Aclose(a);
    H5Sclose(space);
}

static void dataset(hid_t at, const char *name, hid_t type, hsize_t size, hid_t plist) {
    hid_t space = H5Screate_simple(1, &size, NULL);
    hid_t d = H5Dcreate2(at, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(d >= 0);
    H5Dclose(d);
    H5Sclose(space);
}

static void make_hostile(const char *path) {
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t string = H5Tcopy(H5T_C_S1), vlen = H5Tcopy(H5T_C_S1), plist = H5Pcreate(H5P_DATASET_CREATE);
    double real = 1;
    int pair[2] = {1, 2};
    uint64_t big = UINT64_MAX;
    const char *pointer = "variable";
    char letters[300];
    hsize_t chunk = 4;
    memset(letters, 'x', sizeof letters);
    assert_true(f >= 0);
    attribute(f, "real", H5T_NATIVE_DOUBLE, 1, &real);
    attribute(f, "pair", H5T_NATIVE_INT, 2, pair);
    attribute(f, "big", H5T_NATIVE_UINT64, 1, &big);
    H5Tset_size(vlen, H5T_VARIABLE);
    attribute(f, "vlen", vlen, 1, &pointer);
    H5Tset_size(string, 300);
    attribute(f, "long", string, 1, letters);
    H5Tset_size(string, 20);
    attribute(f, "twenty", string, 1, letters);
    attribute(f, "control", string, 1, "a\033[2Jb\0............");
    H5Tset_strpad(string, H5T_STR_SPACEPAD);
    attribute(f, "padded", string, 1, "ab                  ");
    dataset(f, "late", H5T_STD_I32LE, 8, H5P_DEFAULT);
    dataset(f, "huge", H5T_STD_I32LE, (hsize_t)1 << 61, H5P_DEFAULT);
    dataset(f, "far", H5T_STD_I32LE, (hsize_t)1 << 40, H5P_DEFAULT);
    dataset(f, "real", H5T_IEEE_F64LE, 8, H5P_DEFAULT);
    dataset(f, "swapped", H5T_STD_I32BE, 8, H5P_DEFAULT);
    H5Pset_external(plist, "/etc/passwd", 0, 32);
    dataset(f, "external", H5T_STD_I32LE, 8, plist);
    H5Pclose(plist);
    plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t named = H5Tcopy(H5T_STD_I32LE);
    assert_true(H5Tcommit2(f, "type", named, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT) >= 0);
    dataset(f, "named", named, 8, H5P_DEFAULT);
    H5Tclose(named);
    H5Pset_chunk(plist, 1, &chunk);
    dataset(f, "chunked", H5T_STD_I32LE, 8, plist);
    assert_true(H5Lcreate_soft("/late", f, "soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Gclose(H5Gcreate2(f, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Pclose(plist);
    H5Tclose(string);
    H5Tclose(vlen);
    H5Fclose(f);
}

static void content_refuses(void **state) {
    (void)state;
    static const hostile ints[] = {{"none", "is missing"},
                                   {"real", "not an integer"},
                                   {"pair", "not a single value"},
                                   {"big", "outside"},
                                   {"vlen", "not an integer"}};
    static const hostile texts[] = {{"none", "is missing"},    {"real", "not a string"},
                                    {"vlen", "not a string"},  {"long", "300 bytes"},
                                    {"twenty", "longer than"}, {"control", "control"}};
    static const hostile sets[] = {
        {"none", "is missing"},     {"late", "beyond the end"}, {"huge", "too large"},
        {"far", "beyond the end"},  {"real", "not of type"},    {"swapped", "not of type"},
        {"external", "contig"},     {"chunked", "contig"},      {"soft", "link"},
        {"group", "not a dataset"}, {"named", "elsewhere"}};
    const char *path = temp_path("hostile.h5");
    char text[16] = "kept";
    int64_t v = 5, shape[3], offset;
    bq_h5 h = {0};
    bq_h5_init();
    make_hostile(path);
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        assert_true(bq_h5_open(&h, path, NULL));
        assert_false(bq_h5_get_int(&h, ints[i].name, -1000, 1000, &v));
        if (!strstr(h.why, ints[i].needle)) fail_msg("%s: %s", ints[i].name, h.why);
        assert_int_equal(v, 5);
        assert_false(bq_h5_get_text(&h, "padded", text, sizeof text)); /* the first reason stays */
        assert_non_null(strstr(h.why, ints[i].needle));
        bq_h5_close(&h);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_true(bq_h5_open(&h, path, NULL));
        assert_false(bq_h5_get_text(&h, texts[i].name, text, sizeof text));
        if (!strstr(h.why, texts[i].needle)) fail_msg("%s: %s", texts[i].name, h.why);
        assert_string_equal(text, "kept");
        bq_h5_close(&h);
    }
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        assert_true(bq_h5_open(&h, path, NULL));
        assert_false(bq_h5_get_data(&h, sets[i].name, BQ_I32, 1, shape, &offset));
        if (!strstr(h.why, sets[i].needle)) fail_msg("%s: %s", sets[i].name, h.why);
        bq_h5_close(&h);
    }
    assert_true(bq_h5_open(&h, path, NULL));
    assert_true(bq_h5_get_text(&h, "padded", text, sizeof text));
    assert_string_equal(text, "ab");
    assert_false(bq_h5_get_group(&h, "late"));
    bq_h5_close(&h);
}

static void expect(const char *path, const char *needle) {
    bq_h5 h = {0};
    assert_false(bq_h5_open(&h, path, NULL));
    if (!strstr(h.why, needle)) fail_msg("'%s' is not in: %s", needle, h.why);
    bq_h5_close(&h);
}

/* Files in ways that the library knows and we do not: each is told so when it is opened. */
static void other_structures(void **state) {
    (void)state;
    const char *path = temp_path("other.h5");
    for (int way = 0; way < 6; way++) {
        static const char *const needle[] = {"newer",      "newer",     "newer", "not an HDF5 file",
                                             "superblock", "superblock"};
        hid_t access = H5Pcreate(H5P_FILE_ACCESS), how = H5Pcreate(H5P_FILE_CREATE);
        if (way == 0) H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
        if (way == 1) H5Pset_link_creation_order(how, H5P_CRT_ORDER_TRACKED);
        if (way == 3) H5Pset_userblock(how, 512);
        if (way == 4) H5Pset_sym_k(how, 32, 8);
        if (way == 5) H5Pset_sizes(how, 4, 4);
        hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, how, access);
        assert_true(f >= 0);
        if (way == 2) H5Lcreate_external("/etc/passwd", "/x", f, "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
        H5Fclose(f);
        H5Pclose(how);
        H5Pclose(access);
        expect(path, needle[way]);
    }
}

/* A tree of two levels, names and attributes taken away again, and one name too many. */
static void many_names(void **state) {
    (void)state;
    char name[16];
    const char *path = temp_path("many.h5");
    for (int n = 0; n < 300; n += 299) {
        hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        for (int i = 0; i < 256 + n; i++) {
            snprintf(name, sizeof name, "name_%d", i * 7919 % 1009);
            dataset(f, name, H5T_STD_I8LE, 8, H5P_DEFAULT);
            attribute(f, name, H5T_NATIVE_INT, 1, &i);
            if (i % 5 == 0) H5Adelete(f, name);
            if (i % 3 == 0 && !n) H5Ldelete(f, name, H5P_DEFAULT);
        }
        H5Fclose(f);
        if (n) break;
        bq_h5 h;
        int64_t v;
        if (!bq_h5_open(&h, path, NULL)) fail_msg("%s", h.why);
        for (int i = 0; i < 1009; i++) {
            snprintf(name, sizeof name, "name_%d", i * 7919 % 1009);
            assert_int_equal(bq_h5_has_data(&h, name), i < 256 && i % 3 != 0);
            if (i < 256 && i % 5 != 0) assert_true(bq_h5_get_int(&h, name, i, i, &v));
        }
        bq_h5_close(&h);
    }
    expect(path, "more than 256 names");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_refuses),
        cmocka_unit_test(other_structures),
        cmocka_unit_test(many_names),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
