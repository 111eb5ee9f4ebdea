/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include "base/die.h"
#include "base/log.h"

#include <sys/time.h>

static int die_here(void) {
    BQ_DIE("write of '%s' failed: %d", "some/file", 42);
    return 0;
}
static int check_fails(void) {
    BQ_CHECK(1 + 1 == 3, "sum is %d", 1 + 1);
    return 0;
}
static int check_holds(void) {
    BQ_CHECK(1 + 1 == 2, "sum is %d", 1 + 1);
    return 7;
}
static void leave(int code) { _Exit(40 + code); }
static int die_by_hook(void) {
    bq_die_hook = leave;
    BQ_DIE("over");
    return 0;
}
static void wait_for_ever(int code) {
    struct itimerval left;
    (void)code;
    getitimer(ITIMER_REAL, &left);
    if (left.it_value.tv_sec == 0) _Exit(77); /* nothing would end this */
    left = (struct itimerval){.it_value = {.tv_usec = 1000}};
    setitimer(ITIMER_REAL, &left, NULL); /* now, not at its time */
    for (;;) pause();
}
static int die_where_mpi_hangs(void) {
    bq_die_hook = wait_for_ever;
    BQ_DIE("over");
    return 0;
}
static int die_as_rank_three(void) {
    bq_log_identity(3, 8);
    bq_log_level(BQ_ERROR); /* errors are never dropped */
    BQ_DIE("over");
    return 0;
}

static void death_is_one_line_and_code_1(void **state) {
    (void)state;
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    child_end end = in_child(die_here);
    assert_true(one_line(end, BQ_DIED, "write of 'some/file' failed: 42"));
    assert_non_null(strstr(end.text, host));
    assert_non_null(strstr(end.text, " test_die.c:")); /* the file's name without its path */
    assert_true(one_line(in_child(check_fails), BQ_DIED, "sum is 2"));
    end = in_child(check_holds);
    assert_true(end.code == 7 && end.text[0] == 0);
    assert_true(one_line(in_child(die_by_hook), 41, "over"));
    assert_true(one_line(in_child(die_where_mpi_hangs), BQ_DIED, "over"));
    assert_true(one_line(in_child(die_as_rank_three), BQ_DIED, "r3 "));
}

static int refuse_some(void) { return bq_refuse(BQ_DATA, "no key '%s' in %s", "hidden", "config.json"); }
static int refuse_to_the_log_file(void) {
    char path[] = "/tmp/bq_test_die_XXXXXX", line[256] = "";
    int fd = mkstemp(path);
    if (fd < 0) return 90;
    close(fd);
    if (bq_log_open(path) != 0) return 91;
    bq_refuse(BQ_USAGE, "kept");
    bq_log_close();
    FILE *f = fopen(path, "r");
    if (!f || !fgets(line, sizeof line, f)) return 92;
    fclose(f), unlink(path);
    return strstr(line, "error: kept\n") ? 0 : 93;
}

static void refusal_is_one_line_and_the_code(void **state) {
    (void)state;
    child_end end = in_child(refuse_some);
    assert_int_equal(end.code, BQ_DATA);
    assert_string_equal(end.text, "bq: error: no key 'hidden' in config.json\n");
    end = in_child(refuse_to_the_log_file);
    assert_int_equal(end.code, 0);
}

static const char *spec;
static int rank;
/* Which of ten calls at the point "here" fail, as bits; a call at another point goes between. */
static int faults(void) {
    int bits = 0;
    if (spec)
        setenv("BQ_FAULT", spec, 1);
    else
        unsetenv("BQ_FAULT");
    bq_log_identity(rank, 4);
    for (int i = 0; i < 7; i++) {
        if (bq_fault("elsewhere")) return 128;
        bits |= bq_fault("here") << i;
    }
    return bits;
}

static int faults_of(const char *text, int me) {
    spec = text, rank = me;
    return in_child(faults).code;
}

static void a_fault_is_one_hit_of_one_point_on_the_named_ranks(void **state) {
    (void)state;
    assert_int_equal(faults_of(NULL, 0), 0);
    assert_int_equal(faults_of("here:1", 0), 1);
    assert_int_equal(faults_of("here:3", 0), 4);
    assert_int_equal(faults_of("here", 0), 1);
    assert_int_equal(faults_of("here:3", 1), 0);
    assert_int_equal(faults_of("here:3@1", 0), 0);
    assert_int_equal(faults_of("here:3@1", 1), 4);
    assert_int_equal(faults_of("here:3@0,2", 0), 4);
    assert_int_equal(faults_of("here:3@0,2", 2), 4);
    assert_int_equal(faults_of("here:3@0,2", 1), 0);
    assert_int_equal(faults_of("here:3@12", 1), 0);
    assert_int_equal(faults_of("here:3@x", 0), 0);
    assert_int_equal(faults_of("her:1", 0), 0);
    assert_int_equal(faults_of("here:99", 0), 0);
    assert_int_equal(faults_of("", 0), 0);
    assert_int_equal(faults_of("elsewhere:2", 0), 128);
}

static int refuse_the_job(void) {
    bq_die_hook = leave;
    bq_log_identity(2, 4);
    bq_refuse_job(BQ_DATA, "sample %d", 7);
}

static void a_refused_job_ends_with_the_code(void **state) {
    (void)state;
    assert_true(one_line(in_child(refuse_the_job), 40 + BQ_DATA, "r2 error: sample 7"));
}

int main(void) {
    unsetenv("BQ_FAULT");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(death_is_one_line_and_code_1),
        cmocka_unit_test(a_refused_job_ends_with_the_code),
        cmocka_unit_test(refusal_is_one_line_and_the_code),
        cmocka_unit_test(a_fault_is_one_hit_of_one_point_on_the_named_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
