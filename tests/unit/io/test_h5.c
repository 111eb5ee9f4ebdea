#include "base/die.h"
#include "io/h5.h"
#include "io/raw.h"
#include "unit/io/temp.h"

#include <fcntl.h>
#include <hdf5.h>

/* A file with one of everything. */
static void make(const char *path) {
    float data[3][7], wide[3][9];
    int8_t bytes[5] = {-128, -1, 0, 1, 127};
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 7; c++) data[r][c] = wide[r][c] = (float)(10 * r + c) + 0.5f;
    bq_h5 h;
    bq_h5_create(&h, path);
    bq_h5_put_text(&h, "format", "test");
    bq_h5_put_int(&h, "small", BQ_I32, -7);
    bq_h5_put_int(&h, "large", BQ_I64, INT64_MIN);
    bq_h5_put_hex(&h, "print", 0xfedcba9876543210u);
    int64_t one = bq_h5_put_data(&h, "one", BQ_F32, 2, (int64_t[]){3, 7});
    bq_h5_put_group(&h, "group");
    bq_h5_put_text(&h, "format", "inner");
    int64_t two = bq_h5_put_data(&h, "two", BQ_I8, 1, (int64_t[]){5});
    bq_h5_put_group(&h, NULL);
    int64_t three = bq_h5_put_data(&h, "three", BQ_F32, 3, (int64_t[]){1, 3, 7});
    bq_h5_fix(&h);
    bq_h5_write(&h, three, (bq_mat){wide, 3, 7, 9, BQ_F32, BQ_HOST});
    bq_h5_write(&h, one, bq_mat_host(data, 3, 7, BQ_F32));
    bq_h5_write(&h, two, bq_mat_host(bytes, 1, 5, BQ_I8));
    bq_h5_seal(&h, 42);
    bq_h5_commit(&h);
}

static void round_trip(void **state) {
    (void)state;
    bq_h5 h = {0};
    char text[16];
    int64_t v, shape[3], offset;
    uint64_t tag, hex;
    float got[3][9];
    const char *path = temp_path("round.h5");
    make(path);
    assert_false(file_there(temp_path("round.h5.tmp")));
    assert_true(bq_h5_open(&h, path, &tag));
    assert_int_equal(tag, 42);
    assert_true(bq_h5_get_text(&h, "format", text, sizeof text));
    assert_string_equal(text, "test");
    assert_true(bq_h5_get_int(&h, "small", -7, -7, &v));
    assert_int_equal(v, -7);
    assert_true(bq_h5_get_int(&h, "large", INT64_MIN, 0, &v));
    assert_true(v == INT64_MIN);
    assert_true(bq_h5_get_hex(&h, "print", &hex));
    assert_true(hex == 0xfedcba9876543210u);
    assert_true(bq_h5_get_group(&h, "group"));
    assert_true(bq_h5_get_text(&h, "format", text, sizeof text));
    assert_string_equal(text, "inner");
    assert_true(bq_h5_has_data(&h, "two"));
    assert_false(bq_h5_has_data(&h, "one"));
    assert_true(bq_h5_get_group(&h, NULL));
    assert_true(bq_h5_get_data(&h, "three", BQ_F32, 3, shape, &offset));
    assert_int_equal(shape[0] * 100 + shape[1] * 10 + shape[2], 137);
    bq_h5_detach(&h);
    memset(got, 0, sizeof got);
    assert_true(bq_h5_read(&h, offset, (bq_mat){got, 3, 7, 9, BQ_F32, BQ_HOST}));
    for (int r = 0; r < 3; r++) {
        for (int c = 0; c < 7; c++) assert_true(got[r][c] == (float)(10 * r + c) + 0.5f);
        assert_true(got[r][7] == 0 && got[r][8] == 0);
    }
    assert_false(bq_h5_read(&h, h.size, bq_mat_host(got, 3, 7, BQ_F32)));
    bq_h5_close(&h);
    bq_h5_close(&h);
}

static void any_hdf5_reader(void **state) {
    (void)state;
    int8_t got[5];
    make(temp_path("plain.h5"));
    hid_t f = H5Fopen(temp_path("plain.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(f >= 0);
    hid_t d = H5Dopen2(f, "/group/two", H5P_DEFAULT);
    assert_true(d >= 0);
    assert_true(H5Dread(d, H5T_NATIVE_INT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, got) >= 0);
    assert_int_equal(got[0], -128);
    assert_int_equal(got[4], 127);
    H5Dclose(d);
    H5Fclose(f);
}

/* Another second, another process, other garbage in fresh memory. */
static void equal_bytes(void **state) {
    (void)state;
    char err[1024];
    assert_int_equal(child_run("make", temp_path("a.h5"), "MALLOC_PERTURB_=85", err, sizeof err), 0);
    sleep(1);
    assert_int_equal(child_run("make", temp_path("b.h5"), "MALLOC_PERTURB_=170", err, sizeof err), 0);
    make(temp_path("c.h5"));
    assert_same_file(temp_path("a.h5"), temp_path("b.h5"));
    assert_same_file(temp_path("a.h5"), temp_path("c.h5"));
}

static void expect(const char *path, bool sealed, const char *needle) {
    bq_h5 h = {0};
    uint64_t tag;
    assert_false(bq_h5_open(&h, path, sealed ? &tag : NULL));
    if (!strstr(h.why, needle)) fail_msg("'%s' is not in: %s", needle, h.why);
    bq_h5_close(&h);
}

static void open_refuses(void **state) {
    (void)state;
    bq_h5 h = {0};
    assert_false(bq_h5_open(&h, temp_path("none.h5"), NULL));
    assert_true(h.absent);
    expect(temp_dir, false, "Is a directory");
    file_save(temp_path("text"), "hello", 5);
    expect(temp_path("text"), false, "not an HDF5 file");
    expect(temp_path("text"), true, "seal");
    file_save(temp_path("empty"), "", 0);
    expect(temp_path("empty"), false, "not an HDF5 file");
    assert_int_equal(mkfifo(temp_path("pipe"), 0600), 0);
    expect(temp_path("pipe"), false, "not a regular file");
}

/* Every single damaged byte, and every cut, is found before HDF5 looks. */
static void seal_finds_damage(void **state) {
    (void)state;
    size_t n;
    const char *path = temp_path("sealed.h5"), *bad = temp_path("bad.h5");
    make(path);
    char *data = file_load(path, &n);
    for (size_t i = 0; i < n; i += i + 200 < n ? 41 : 1) {
        data[i] = (char)(data[i] ^ 0x10);
        file_save(bad, data, n);
        data[i] = (char)(data[i] ^ 0x10);
        expect(bad, true, "seal");
    }
    for (size_t cut = 0; cut < n; cut += cut + 64 < n ? 512 : 1) {
        file_save(bad, data, cut);
        expect(bad, true, "seal");
    }
    free(data);
}

/* A file made by the library itself, in ways we must not accept. */
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
        expect(path, false, needle[way]);
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
    expect(path, false, "more than 256 names");
}

static void one_open(void **state) {
    (void)state;
    bq_h5 h;
    uint64_t tag;
    const char *path = temp_path("once.h5");
    make(path);
    int watch = watch_opens(path);
    assert_true(bq_h5_open(&h, path, &tag));
    bq_h5_close(&h);
    assert_int_equal(count_opens(watch), 1);
}

static void full_disk(void **state) {
    (void)state;
    char err[1024], path[300];
    const char *disk = temp_path("disk");
    if (!small_disk(disk, "size=64k")) skip();
    snprintf(path, sizeof path, "%s/x.h5", disk);
    make(path);
    size_t n, m;
    char *before = file_load(path, &n);
    int rc = child_run("big", path, NULL, err, sizeof err);
    char *after = file_load(path, &m);
    bool left = temporary_there(path);
    umount(disk);
    assert_int_equal(rc, BQ_DIED);
    assert_one_line(err, "x.h5' failed: No space left on device");
    assert_false(left);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    free(before);
    free(after);
}

/* Not even room for what HDF5 itself writes; and a job that leaves by exit (as MPI_Abort may) says it once.
 */
static void no_room_at_all(void **state) {
    (void)state;
    char err[4096], path[300];
    const char *disk = temp_path("tiny");
    if (!small_disk(disk, "size=32k")) skip();
    snprintf(path, sizeof path, "%s/x.h5", disk);
    int rc = child_run("fill", path, NULL, err, sizeof err);
    umount(disk);
    assert_int_equal(rc, BQ_DIED);
    assert_one_line(err, "x.h5' failed: No space left on device");
}

static void no_folder(void **state) {
    (void)state;
    char err[1024];
    assert_int_equal(child_run("make", temp_path("none/x.h5"), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "none/x.h5' failed: No such file or directory");
}

static void locking(void **state) {
    (void)state;
    char err[1024];
    assert_int_equal(child_run("locking", "FALSE", NULL, err, sizeof err), 0);
    assert_int_equal(child_run("locking", "TRUE", "HDF5_USE_FILE_LOCKING=TRUE", err, sizeof err), 0);
}

static void fill(const char *path) {
    char filler[600], page[4096] = {0};
    snprintf(filler, sizeof filler, "%s.filler", path);
    int fd = open(filler, O_WRONLY | O_CREAT, 0600);
    while (write(fd, page, sizeof page) > 0) {}
    close(fd);
}

static int child(const char *what, const char *path) {
    bq_h5 h;
    bq_h5_init();
    if (strcmp(what, "locking") == 0) return strcmp(getenv("HDF5_USE_FILE_LOCKING"), path) != 0;
    if (strcmp(what, "fill") == 0) fill(path);
    if (strcmp(what, "big"))
        make(path);
    else {
        bq_h5_create(&h, path);
        bq_h5_put_data(&h, "big", BQ_F32, 1, (int64_t[]){1 << 20});
        bq_h5_fix(&h);
        bq_h5_commit(&h);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),        cmocka_unit_test(any_hdf5_reader),
        cmocka_unit_test(equal_bytes),       cmocka_unit_test(open_refuses),
        cmocka_unit_test(seal_finds_damage), cmocka_unit_test(content_refuses),
        cmocka_unit_test(other_structures),  cmocka_unit_test(many_names),
        cmocka_unit_test(one_open),          cmocka_unit_test(full_disk),
        cmocka_unit_test(no_room_at_all),    cmocka_unit_test(no_folder),
        cmocka_unit_test(locking),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
