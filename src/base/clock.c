/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include "base/meter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Thread_local bq_meter bq_spent;

double bq_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* getrusage does not serve: after fork and exec its peak starts with that of the program that called exec. */
size_t bq_peak_rss(void) {
    static const char key[] = "VmHWM:";
    char line[128];
    size_t kilobytes = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && !kilobytes && fgets(line, sizeof line, f))
        if (strncmp(line, key, sizeof key - 1) == 0) kilobytes = strtoul(line + sizeof key - 1, NULL, 10);
    if (f) fclose(f);
    return kilobytes * 1024;
}

void bq_peak_forget(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f) fputs("5", f), fclose(f);
}

/* The memory limit of one control group; `most` where it sets none, or a larger one. */
static size_t group_limit(const char *group, size_t most) {
    char path[1200];
    size_t limit;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
    FILE *f = fopen(path, "r");
    if (!f) return most;
    if (fscanf(f, "%zu", &limit) != 1 || limit > most) limit = most; /* the file says "max": no limit */
    fclose(f);
    return limit;
}

size_t bq_memory_available(void) {
    size_t most = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    char group[1024] = "";
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (f) {
        if (fscanf(f, "0::%1023s", group) != 1) group[0] = 0;
        fclose(f);
    }
    for (char *slash; (slash = strrchr(group, '/')); *slash = 0)
        most = group_limit(group, most); /* the limits of the groups above hold, too */
    return group_limit("", most);
}
