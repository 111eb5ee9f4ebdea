/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "io/state/h5.h"
#include "io/state/raw.h"
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
    bq_h5_put_text(&h, "print", "fedcba9876543210");
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
        cmocka_unit_test(round_trip),   cmocka_unit_test(any_hdf5_reader),   cmocka_unit_test(equal_bytes),
        cmocka_unit_test(open_refuses), cmocka_unit_test(seal_finds_damage), cmocka_unit_test(one_open),
        cmocka_unit_test(full_disk),    cmocka_unit_test(no_room_at_all),    cmocka_unit_test(no_folder),
        cmocka_unit_test(locking),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
