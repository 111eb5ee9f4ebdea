/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "io/state/acts.h"
#include "io/files.h"
#include "unit/io/flip.h"

#include <hdf5.h>
#include <signal.h>

enum { SAMPLES = 6, TOKENS = 5, HIDDEN = 9, VALUES = TOKENS * HIDDEN, RECORD = 32 };

static const uint64_t print = 0x1234567890abcdefu;

static void sample_of(int64_t sample, float *data) {
    for (int i = 0; i < VALUES; i++) data[i] = (float)(sample * 1000 + i) / 3;
}

static void put(bq_acts *a, int64_t sample) {
    float data[VALUES];
    sample_of(sample, data);
    bq_acts_write(a, sample, data);
}

static bool holds(bq_acts *a, int64_t sample) {
    float data[VALUES], expected[VALUES];
    if (!bq_acts_read(a, sample, data)) return false;
    sample_of(sample, expected);
    assert_memory_equal(data, expected, sizeof data);
    return true;
}

static bq_acts *create(const char *path) {
    bq_acts *a;
    bq_acts_create(&a, path, SAMPLES, TOKENS, HIDDEN, print);
    return a;
}

static int64_t count_of(const bq_acts *a) {
    int64_t n = 0;
    for (int64_t s = 0; s < SAMPLES; s++) n += bq_acts_has(a, s);
    return n;
}

static bq_acts *reopen(const char *path) {
    bq_acts *a;
    char why[BQ_WHY];
    if (bq_acts_open(&a, path, SAMPLES, TOKENS, HIDDEN, print, why)) fail_msg("%s", why);
    return a;
}

static void round_trip(void **state) {
    (void)state;
    const char *path = temp_path("fp_000.h5");
    bq_acts *a = create(path);
    assert_int_equal(count_of(a), 0);
    for (int64_t s = SAMPLES - 1; s >= 0; s -= 2) put(a, s);
    assert_true(holds(a, 5) && holds(a, 3) && holds(a, 1));
    assert_false(bq_acts_has(a, 0) || holds(a, 0));
    bq_acts_sync(a);
    bq_acts_close(a);
    a = reopen(path);
    assert_int_equal(count_of(a), 3);
    assert_true(holds(a, 5) && holds(a, 3) && holds(a, 1));
    put(a, 0);
    put(a, 5); /* again */
    bq_acts_close(a);
    a = reopen(path);
    assert_int_equal(count_of(a), 4);
    assert_true(holds(a, 0) && holds(a, 5));
    bq_acts_close(a);
    a = create(path); /* a new file forgets the old log */
    bq_acts_close(a);
    a = reopen(path);
    assert_int_equal(count_of(a), 0);
    bq_acts_close(a);
    bq_acts_close(NULL);
}

static void any_hdf5_reader_and_equal_bytes(void **state) {
    (void)state;
    float got[SAMPLES][VALUES], expected[VALUES];
    for (int n = 0; n < 2; n++) {
        bq_acts *a = create(temp_path(n ? "a.h5" : "b.h5"));
        for (int64_t s = 0; s < SAMPLES; s++) put(a, n ? s : SAMPLES - 1 - s);
        bq_acts_close(a);
    }
    assert_same_file(temp_path("a.h5"), temp_path("b.h5"));
    hid_t f = H5Fopen(temp_path("a.h5"), H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, "hidden", H5P_DEFAULT);
    assert_true(H5Dread(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, got) >= 0);
    for (int64_t s = 0; s < SAMPLES; s++) {
        sample_of(s, expected);
        assert_memory_equal(got[s], expected, sizeof expected);
    }
    H5Dclose(d);
    H5Fclose(f);
}

static void expect(const char *path, int64_t tokens, uint64_t fingerprint, int status, const char *needle) {
    bq_acts *a;
    char why[BQ_WHY], err[256];
    int fd = captured_fd(0), rc = bq_acts_open(&a, path, SAMPLES, tokens, HIDDEN, fingerprint, why);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, status);
    assert_string_equal(err, "");
    assert_null(a);
    if (!strstr(why, needle)) fail_msg("'%s' is not in: %s", needle, why);
    assert_int_equal(bq_acts_open(&a, path, SAMPLES, tokens, HIDDEN, fingerprint, NULL), status);
}

static void refusals(void **state) {
    (void)state;
    size_t n;
    const char *path = temp_path("r.h5"), *bad = temp_path("bad.h5");
    bq_acts *a = create(path);
    bq_acts_close(a);
    expect(temp_path("none.h5"), TOKENS, print, BQ_ACTS_ABSENT, "No such file");
    expect(path, TOKENS, print + 1, BQ_ACTS_FOREIGN, "fingerprint");
    expect(path, TOKENS + 1, print, BQ_ACTS_FOREIGN, "shape is 6 x 5 x 9, not 6 x 6 x 9");
    char *data = file_load(path, &n);
    for (size_t cut = 0; cut < n; cut += 97) {
        file_save(bad, data, cut);
        expect(bad, TOKENS, print, BQ_ACTS_TORN, "");
    }
    char *at = memmem(data, n, "blockq stream", 13);
    assert_non_null(at);
    at[7] = 'S';
    file_save(bad, data, n);
    expect(bad, TOKENS, print, BQ_ACTS_TORN, "its format is 'blockq Stream'");
    free(data);
}

/* A reason, or the file as it is: every value that open checks is known. */
static const char *look(const char *path) {
    static char why[BQ_WHY];
    bq_acts *a;
    int status = bq_acts_open(&a, path, SAMPLES, TOKENS, HIDDEN, print, why);
    for (int64_t s = 0; s < SAMPLES && status == BQ_ACTS_OK; s++) holds(a, s);
    bq_acts_close(a);
    return status == BQ_ACTS_OK ? NULL : why;
}

static void every_bit(void **state) {
    (void)state;
    size_t n;
    const char *path = temp_path("bits.h5");
    bq_acts *a = create(path);
    for (int64_t s = 0; s < SAMPLES; s++) put(a, s);
    bq_acts_close(a);
    char *data = file_load(path, &n);
    flip_bits(path, n - SAMPLES * VALUES * sizeof(float), 1, look);
    free(data);
}

/* What is written to is the very file that was looked at: nothing opens its name a second time. */
static void one_open(void **state) {
    (void)state;
    const char *path = temp_path("one.h5");
    bq_acts_close(create(path));
    int watch = watch_opens(path);
    bq_acts_close(reopen(path));
    assert_int_equal(count_opens(watch), 1);
}

static void torn_sample(void **state) {
    (void)state;
    size_t n;
    const char *path = temp_path("torn.h5");
    bq_acts *a = create(path);
    for (int64_t s = 0; s < SAMPLES; s++) put(a, s);
    bq_acts_close(a);
    char *data = file_load(path, &n);
    float expected[VALUES];
    sample_of(2, expected);
    char *at = memmem(data, n, expected, sizeof expected);
    assert_non_null(at);
    memset(at + sizeof expected - 4, 0, 4);
    file_save(path, data, n);
    free(data);
    a = reopen(path);
    assert_true(bq_acts_has(a, 2)); /* the log says so */
    assert_false(holds(a, 2));
    assert_false(bq_acts_has(a, 2));
    for (int64_t s = 0; s < SAMPLES; s++) assert_true(s == 2 || holds(a, s));
    put(a, 2);
    assert_true(holds(a, 2));
    bq_acts_close(a);
}

/* Cut anywhere, the log gives just its whole records; what is appended behind the wreck still counts. */
static void torn_log(void **state) {
    (void)state;
    size_t n;
    const char *path = temp_path("log.h5"), *log = temp_path("log.h5.valid");
    bq_acts *a = create(path);
    for (int64_t s = 0; s < 3; s++) put(a, s);
    bq_acts_close(a);
    char *data = file_load(log, &n);
    assert_int_equal(n, 3 * RECORD);
    for (size_t cut = 0; cut <= n; cut++) {
        file_save(log, data, cut);
        a = reopen(path);
        assert_int_equal(count_of(a), cut / RECORD);
        put(a, 4);
        bq_acts_close(a);
        a = reopen(path);
        assert_int_equal(count_of(a), cut / RECORD + 1);
        assert_true(holds(a, 4));
        bq_acts_close(a);
    }
    for (size_t i = 0; i < n; i++) { /* a damaged record is no record, whichever byte it is */
        data[i] = (char)(data[i] ^ 4);
        file_save(log, data, n);
        data[i] = (char)(data[i] ^ 4);
        a = reopen(path);
        assert_int_equal(count_of(a), 2);
        assert_false(bq_acts_has(a, (int64_t)i / RECORD));
        bq_acts_close(a);
    }
    unlink(log);
    a = reopen(path);
    assert_int_equal(count_of(a), 0);
    bq_acts_close(a);
    free(data);
}

static void garbage_and_foreign_logs(void **state) {
    (void)state;
    size_t n, m;
    bq_acts *a = create(temp_path("one.h5")), *b;
    for (int64_t s = 0; s < SAMPLES; s++) put(a, s);
    bq_acts_close(a);
    char *log = file_load(temp_path("one.h5.valid"), &n), all[1024];
    /* another stream's log, left beside this file by a copy */
    bq_acts_create(&b, temp_path("two.h5"), SAMPLES, TOKENS, HIDDEN, print + 1);
    bq_acts_close(b);
    file_save(temp_path("two.h5.valid"), log, n);
    assert_int_equal(bq_acts_open(&b, temp_path("two.h5"), SAMPLES, TOKENS, HIDDEN, print + 1, NULL),
                     BQ_ACTS_OK);
    assert_int_equal(count_of(b), 0);
    bq_acts_close(b);
    /* garbage before, between and behind */
    m = 0;
    memset(all, 'b', sizeof all);
    memcpy(all + 13, log, 2 * RECORD);
    memcpy(all + 200, log + 2 * RECORD, RECORD);
    memcpy(all + 300, log + 3 * RECORD, RECORD - 1);
    memcpy(all + 400, "bqvalid1", 8);
    memcpy(all + sizeof all - RECORD - 1, log + 4 * RECORD, RECORD);
    file_save(temp_path("one.h5.valid"), all, sizeof all);
    a = reopen(temp_path("one.h5"));
    for (int64_t s = 0; s < SAMPLES; s++) m += bq_acts_has(a, s) == (s < 3 || s == 4);
    assert_int_equal(m, SAMPLES);
    bq_acts_close(a);
    free(log);
}

/* The failed write ends the job with one line; what was there before still is, the torn sample is not. */
static void failed_write(void **state) {
    (void)state;
    char err[1024];
    assert_int_equal(child_run("write", temp_path("f.h5"), "BQ_FAULT=acts_write:3", err, sizeof err),
                     BQ_DIED);
    assert_one_line(err, "f.h5' failed: No space left on device");
    bq_acts *a = reopen(temp_path("f.h5"));
    assert_int_equal(count_of(a), 2);
    assert_true(holds(a, 0) && holds(a, 1) && !holds(a, 2));
    bq_acts_close(a);
}

/* No record is in the log before the sample's data are known to be on disk. */
static void data_before_records(void **state) {
    (void)state;
    static const char *const fault[] = {"BQ_FAULT=acts_sync:1", "BQ_FAULT=acts_sync:2"};
    const char *path = temp_path("order.h5"), *log = temp_path("order.h5.valid");
    char err[1024];
    bq_acts *a = create(path);
    put(a, 3);
    put(a, 1);
    assert_int_equal(bq_file_size(log), 0);
    bq_acts_sync(a);
    assert_int_equal(bq_file_size(log), 2 * RECORD);
    put(a, 2);
    assert_int_equal(bq_file_size(log), 2 * RECORD);
    bq_acts_close(a);
    assert_int_equal(bq_file_size(log), 3 * RECORD);
    for (int i = 0; i < 2; i++) { /* in sync, in close */
        assert_int_equal(child_run("sync", path, fault[i], err, sizeof err), BQ_DIED);
        assert_one_line(err, "sync of '");
        assert_int_equal(bq_file_size(log), i * RECORD);
    }
}

/* The records say that all is there; only reading it shows that it is not. */
static void whole(void **state) {
    (void)state;
    size_t n;
    const char *path = temp_path("whole.h5");
    bq_acts *a = create(path);
    for (int64_t s = 0; s < SAMPLES; s++) put(a, s);
    assert_true(bq_acts_whole(a, 0, SAMPLES));
    bq_acts_close(a);
    char *data = file_load(path, &n);
    data[n - 1] ^= 1;
    file_save(path, data, n);
    free(data);
    a = reopen(path);
    assert_true(bq_acts_has_all(a, 0, SAMPLES) && bq_acts_whole(a, 0, SAMPLES - 1));
    assert_false(bq_acts_whole(a, 2, SAMPLES - 2));
    assert_false(bq_acts_has(a, SAMPLES - 1));
    put(a, SAMPLES - 1);
    assert_true(bq_acts_whole(a, 0, SAMPLES));
    bq_acts_close(a);
}

/* Killed at any time: the file opens (or there is none), and what the log has is right. */
static void killed(void **state) {
    (void)state;
    const char *path = temp_path("killed.h5");
    for (int n = 0; n < 20; n++) {
        char err[64];
        int ends[2];
        unlink(path);
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(ends[0]);
            execl("/proc/self/exe", "test", "loop", path, (char *)NULL);
            _exit(126);
        }
        close(ends[1]);
        while (!file_there(path)) usleep(100);
        usleep((useconds_t)(700 * n));
        kill(pid, SIGKILL);
        assert_int_equal(read(ends[0], err, sizeof err), 0); /* the child is gone */
        close(ends[0]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        bq_acts *a;
        int rc = bq_acts_open(&a, path, SAMPLES, TOKENS, HIDDEN, print, NULL);
        assert_true(rc == BQ_ACTS_OK || rc == BQ_ACTS_ABSENT);
        for (int64_t s = 0; rc == BQ_ACTS_OK && s < SAMPLES; s++)
            if (bq_acts_has(a, s)) assert_true(holds(a, s));
        bq_acts_close(a);
    }
}

static void full_disk(void **state) {
    (void)state;
    char err[1024], path[600];
    const char *disk = temp_path("disk");
    if (!small_disk(disk, "size=64k")) skip();
    snprintf(path, sizeof path, "%s/large.h5", disk);
    int rc = child_run("large", path, NULL, err, sizeof err);
    bool left = file_there(path);
    umount(disk);
    assert_int_equal(rc, BQ_DIED);
    assert_one_line(err, "large.h5' failed: No space left on device");
    assert_false(left);
}

static int child(const char *what, const char *path) {
    bq_acts *a;
    if (strcmp(what, "large") == 0)
        bq_acts_create(&a, path, 100, 100, 100, print);
    else if (strcmp(what, "write") == 0) {
        a = create(path);
        for (int64_t s = 0; s < SAMPLES; s++) {
            put(a, s);
            if (s == 1) bq_acts_sync(a);
        }
    } else if (strcmp(what, "sync") == 0) {
        a = create(path);
        put(a, 0);
        bq_acts_sync(a);
        put(a, 1);
        bq_acts_close(a);
    } else {
        for (int64_t n = 0;; n++) {
            a = create(path);
            for (int64_t s = 0; s < SAMPLES; s++) put(a, (s + n) % SAMPLES);
            bq_acts_close(a);
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(any_hdf5_reader_and_equal_bytes),
        cmocka_unit_test(refusals),   cmocka_unit_test(every_bit),
        cmocka_unit_test(one_open),   cmocka_unit_test(torn_sample),
        cmocka_unit_test(torn_log),   cmocka_unit_test(garbage_and_foreign_logs),
        cmocka_unit_test(killed),     cmocka_unit_test(failed_write),
        cmocka_unit_test(full_disk),  cmocka_unit_test(data_before_records),
        cmocka_unit_test(whole),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
