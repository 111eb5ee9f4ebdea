/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include "io/files.h"
#include "io/state/lock.h"

#include <signal.h>

static void start(const char *name, char run_dir[400]) {
    char ckpt[420];
    snprintf(run_dir, 400, "%s", temp_path(name));
    snprintf(ckpt, sizeof ckpt, "%s/ckpt", run_dir);
    assert_int_equal(bq_dir_make(ckpt), 0);
}

/* A second one is refused, by name, also within a process; after release it gets in. */
static void one_at_a_time(void **state) {
    (void)state;
    char run_dir[400], err[1024], me[40];
    bq_lock a = {0}, b = {0};
    start("one", run_dir);
    bq_lock_release(&a);
    assert_int_equal(bq_lock_take(&a, run_dir), BQ_OK);
    int fd = captured_fd(0), rc = bq_lock_take(&b, run_dir);
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_USAGE);
    snprintf(me, sizeof me, "pid %ld)", (long)getpid());
    assert_one_line(err, me);
    assert_false(b.held);
    assert_int_equal(child_run("take", run_dir, NULL, err, sizeof err), BQ_USAGE);
    assert_one_line(err, me);
    bq_lock_release(&a);
    assert_int_equal(child_run("take", run_dir, NULL, err, sizeof err), BQ_OK);
    assert_int_equal(bq_lock_take(&b, run_dir), BQ_OK);
    bq_lock_release(&b);
}

/* A look says who holds it, and takes nothing. */
static void looks(void **state) {
    (void)state;
    char run_dir[400], who[128], me[40];
    bq_lock a = {0}, b = {0};
    start("looks", run_dir);
    assert_int_equal(bq_lock_look(run_dir, who), BQ_LOCK_FREE);
    assert_string_equal(who, "");
    assert_int_equal(bq_lock_take(&a, run_dir), BQ_OK);
    assert_int_equal(bq_lock_look(run_dir, who), BQ_LOCK_HELD);
    snprintf(me, sizeof me, "pid %ld", (long)getpid());
    assert_non_null(strstr(who, me));
    bq_lock_release(&a);
    assert_int_equal(bq_lock_look(run_dir, who), BQ_LOCK_FREE);
    assert_int_equal(bq_lock_take(&b, run_dir), BQ_OK);
    bq_lock_release(&b);
}

static void a_killed_holder_is_gone(void **state) {
    (void)state;
    char run_dir[400], err[1024];
    bq_lock a;
    start("killed", run_dir);
    assert_int_equal(child_run("die", run_dir, NULL, err, sizeof err), -SIGKILL);
    assert_int_equal(bq_lock_take(&a, run_dir), BQ_OK);
    bq_lock_release(&a);
}

static void no_directory(void **state) {
    (void)state;
    char err[1024];
    bq_lock a;
    int fd = captured_fd(0), rc = bq_lock_take(&a, temp_path("nowhere"));
    captured_text(fd, err, sizeof err);
    assert_int_equal(rc, BQ_USAGE);
    assert_one_line(err, "nowhere/ckpt/lock': No such file");
    bq_lock_release(&a);
}

int main(int argc, char **argv) {
    bq_lock lock;
    if (argc == 3) {
        int rc = bq_lock_take(&lock, argv[2]);
        if (strcmp(argv[1], "die") == 0) raise(SIGKILL);
        return rc;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_at_a_time),
        cmocka_unit_test(looks),
        cmocka_unit_test(a_killed_holder_is_gone),
        cmocka_unit_test(no_directory),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
