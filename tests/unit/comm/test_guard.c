/* SPDX-License-Identifier: Apache-2.0 */
/* The guard: a call that does not come back, and a launcher that is gone, end the process; nothing else does.
 */
#include "../base/child.h"

#include "base/die.h"
#include "comm/guard.h"

#include <signal.h>
#include <sys/time.h>

enum { LONG_AGO = 60 }; /* seconds: nothing has ended the process */

static int stuck(void) {
    bq_guard_open();
    bq_guard_within("MPI_Wait_for_ever", 0.01);
    for (int left = LONG_AGO; (left = (int)sleep((unsigned)left));) continue;
    return 70;
}
static int back_in_time(void) {
    bq_guard_open();
    bq_guard_within("MPI_Quick", 0.6);
    bq_guard_within(NULL, 0);
    bq_guard_within("MPI_Unlimited", 0);
    sleep(1);
    return 7;
}
static int stuck_where_others_hold_locks(void) {
    flockfile(stderr); /* a thread that writes its line when the reader has stopped */
    bq_guard_open();
    bq_guard_within("MPI_Wait_for_ever", 0.01);
    for (struct itimerval left = {0}; left.it_value.tv_sec == 0; getitimer(ITIMER_REAL, &left)) usleep(10000);
    raise(SIGALRM); /* not at its time */
    sleep(LONG_AGO);
    return 70;
}

static void calls_have_their_time(void **state) {
    (void)state;
    assert_true(one_line(in_child(stuck), BQ_DIED, "MPI_Wait_for_ever has not come back"));
    child_end end = in_child(back_in_time);
    assert_true(end.code == 7 && end.text[0] == 0);
    assert_int_equal(in_child(stuck_where_others_hold_locks).code, BQ_DIED);
}

/* A launcher that is gone as soon as its rank has found out who it is; the rank has so many seconds to speak.
 */
static int orphan(unsigned seconds) {
    int ready[2];
    char byte;
    if (pipe(ready)) return 90;
    pid_t rank = fork();
    if (rank < 0) return 91;
    if (rank == 0) {
        bq_guard_open();
        if (write(ready[1], "", 1) != 1) _exit(92);
        sleep(seconds);
        if (write(STDERR_FILENO, "alive\n", 6) != 6) _exit(93);
        _exit(0);
    }
    return read(ready[0], &byte, 1) == 1 ? 5 : 94;
}
static int launched(void) {
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    return orphan(LONG_AGO);
}
static int started_by_hand(void) { return orphan(1); }

static void ranks_end_with_their_launcher(void **state) {
    (void)state;
    unsetenv("OMPI_COMM_WORLD_SIZE"), unsetenv("PMIX_RANK"), unsetenv("PMI_RANK");
    assert_true(one_line(in_child(launched), 5, "is gone"));
    child_end end = in_child(started_by_hand);
    assert_int_equal(end.code, 5);
    assert_string_equal(end.text, "alive\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_have_their_time),
        cmocka_unit_test(ranks_end_with_their_launcher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
