/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints that a thread writes. */
#include "base/die.h"
#include "base/meter.h"
#include "unit/io/ckpt.h"

#include <signal.h>

enum { ROWS = 40, COLS = 99 };

static const bq_ckpt *build(int salt) {
    static int8_t code[ROWS * COLS];
    static float scale[ROWS];
    static double loss[2];
    static bq_ckpt c;
    for (int i = 0; i < ROWS * COLS; i++) code[i] = (int8_t)((i + salt) % 16 - 8);
    loss[0] = salt;
    c = (bq_ckpt){.block = 3, .fingerprint = print, .linears = 1, .steps = 2, .loss = loss};
    c.linear[0] = (bq_ckpt_linear){.name = "q",
                                   .scheme = {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                   .code = bq_mat_host(code, ROWS, COLS, BQ_I8),
                                   .scale = bq_mat_host(scale, ROWS, 1, BQ_F32)};
    return &c;
}

static double salt_of(const char *path) {
    bq_ckpt head;
    bq_ckpt_file *f;
    double loss[2];
    if (bq_ckpt_open(&f, path, print, &head, NULL) != BQ_CKPT_OK) return -1;
    bq_ckpt_read_loss(f, loss);
    bq_ckpt_close(f);
    return loss[0];
}

/* The file does not count before end; then it has the bytes of one that was written at once. */
static void behind(void **state) {
    (void)state;
    const char *path = temp_path("behind.h5");
    bq_ckpt_cost cost = {0};
    setenv("BQ_FAULT", "ckpt_stall", 1);
    bq_ckpt_out *o = bq_ckpt_start(path, build(1), true);
    assert_false(bq_ckpt_end(o, 0, &cost));
    assert_false(bq_ckpt_end(o, 0.3, &cost));
    expect(path, print, BQ_CKPT_ABSENT, "");
    bq_meter then = bq_spent;
    assert_true(bq_ckpt_end(o, 100, &cost));
    unsetenv("BQ_FAULT");
    assert_true(cost.seconds >= 2 && cost.read > 0);
    assert_true(bq_spent.files > then.files);
    assert_int_equal(bq_spent.written - then.written, cost.written);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_in_range(cost.written, ROWS * COLS / 2, st.st_size);
    bq_ckpt_write(temp_path("once.h5"), build(1));
    assert_same_file(path, temp_path("once.h5"));
    assert_false(temporary_there(path));
}

/* What fails in the thread: exit 1 and one line, from the caller's end; the old file as it was, nothing
 * beside it. */
static void failed(void **state) {
    (void)state;
    static const char *const fault[] = {"ckpt_write", "ckpt_rename", "h5_sync", "file_rename"};
    static const char *const needle[] = {"write of '", "rename of '", "write of '", "rename of '"};
    const char *path = temp_path("old.h5");
    char err[1024], name[64], mark[600];
    snprintf(mark, sizeof mark, "%s.started", path);
    for (int i = 0; i < 4; i++) {
        bq_ckpt_write(path, build(9));
        unlink(mark);
        snprintf(name, sizeof name, "BQ_FAULT=%s", fault[i]);
        assert_int_equal(child_run("behind", path, name, err, sizeof err), BQ_DIED);
        assert_one_line(err, needle[i]);
        assert_one_line(err, "old.h5' failed: ");
        assert_one_line(err, "the same command goes on");
        assert_true(file_there(mark)); /* start had returned */
        assert_true(salt_of(path) == 9);
        assert_false(temporary_there(path));
    }
}

/* Killed while the thread writes: the old file as it was. */
static void killed(void **state) {
    (void)state;
    char err[1024];
    const char *path = temp_path("killed.h5");
    bq_ckpt_write(path, build(9));
    assert_int_equal(child_run("behind", path, "BQ_FAULT=ckpt_kill", err, sizeof err), -SIGKILL);
    assert_true(salt_of(path) == 9);
    assert_int_equal(child_run("behind", path, NULL, err, sizeof err), 0);
    assert_true(salt_of(path) == 5);
    assert_false(temporary_there(path)); /* of the process that is gone */
}

/* Without a thread it is written at once. */
static void alone(void **state) {
    (void)state;
    char err[1024];
    const char *path = temp_path("alone.h5");
    assert_int_equal(child_run("behind", path, "BQ_FAULT=ckpt_thread", err, sizeof err), 0);
    assert_one_line(err, "no thread to write '");
    assert_true(salt_of(path) == 5);
}

static int child(const char *path) {
    char mark[600];
    bq_ckpt_cost cost;
    bq_ckpt_out *o = bq_ckpt_start(path, build(5), true);
    snprintf(mark, sizeof mark, "%s.started", path);
    file_save(mark, "", 0);
    while (!bq_ckpt_end(o, 0.01, &cost)) {}
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return child(argv[2]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(behind), cmocka_unit_test(failed),
                                       cmocka_unit_test(killed), cmocka_unit_test(alone)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
