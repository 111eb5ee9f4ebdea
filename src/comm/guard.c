/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/guard.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOOK_EVERY  0.25 /* seconds */
#define LONGEST_GAP 1.0  /* seconds: a longer time between two looks counts as this much */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *inside; /* name of the call of MPI, or NULL */
static double limit, left; /* seconds that it may take; seconds that are left of them */
static pid_t launcher;     /* its process; 0: there is none */

static void look(double gap) {
    pthread_mutex_lock(&lock);
    const char *call = inside;
    left -= gap < LONGEST_GAP ? gap : LONGEST_GAP;
    const bool late = call && left < 0;
    pthread_mutex_unlock(&lock);
    const bool alone = launcher && getppid() != launcher;
    if (!late && !alone) return;
    bq_die_hook = NULL; /* no MPI_Abort: MPI belongs to the other thread and may never answer */
    BQ_CHECK(!alone, "the launcher (process %d) is gone: this rank ends, too (the same command goes on)",
             (int)launcher);
    BQ_DIE("%s has not come back for %.0f s: a rank is dead or stopped (--timeout; the same command goes on)",
           call, limit);
}

static void *guard(void *nothing) {
    for (double last = bq_seconds();;) {
        nanosleep(&(struct timespec){.tv_nsec = (long)(LOOK_EVERY * 1e9)}, NULL);
        const double now = bq_seconds();
        look(now - last);
        last = now;
    }
    return nothing;
}

bool bq_guard_launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return true;
    return false;
}

void bq_guard_open(void) {
    if (bq_guard_launched()) launcher = getppid();
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
    const int error = pthread_create(&thread, NULL, guard, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        pthread_detach(thread);
    else
        bq_log_all(BQ_WARN, "no thread that looks after MPI's own waits: a lost rank may go unnoticed there");
}

void bq_guard_within(const char *call, double seconds) {
    pthread_mutex_lock(&lock);
    inside = seconds > 0 ? call : NULL;
    limit = seconds;
    left = seconds + 0.5 * (bq_log_rank() % 8); /* not all at once: one rank prints its line, and the
                                                   launcher ends the others */
    pthread_mutex_unlock(&lock);
}
