/* SPDX-License-Identifier: Apache-2.0 */
/* same_bits.h - two tests for programs of ops: any number of threads and every instruction set give the same
 * bits.  The program defines all_bits, which runs its ops on shapes with tails, on as many threads as are
 * set, and returns bits_of their outputs. */
#ifndef SAME_BITS_H
#define SAME_BITS_H

#include "ops_common.h"

static uint64_t all_bits(void);

static void threads_change_nothing(void **state) {
    (void)state;
    uint64_t first = 0;
    for (int threads = 1; threads <= THREAD_COUNTS; threads++) {
        bq_dev with = cpu_with(threads, 0);
        uint64_t bits = all_bits();
        if (threads == 1) first = bits;
        assert_true(bits == first);
        bq_dev_close(&with);
    }
}

/* The instruction set is chosen once a process, so the program starts itself under each of them.  main begins
 * with `if (isa_child()) return 0;`. */
static bool isa_child(void) {
    if (!getenv("BQ_TEST_BITS")) return false;
    bq_dev two = cpu_with(2, 0);
    printf("bits %016llx\n", (unsigned long long)all_bits());
    bq_dev_close(&two);
    return true;
}

static bool same_on_every_isa(void) {
    if (ops_mirror) return true; /* the cpu's alone: another program's test */
    static const char *const isa[] = {"base", "avx2", "avx512"};
    char program[512], command[640], line[256], bits[3][32] = {{0}};
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return false;
    program[n] = 0;
    for (int i = 0; i < 3; i++) {
        snprintf(command, sizeof command, "BQ_TEST_BITS=1 BQ_CPU_ISA=%s '%s'", isa[i], program);
        FILE *out = popen(command, "r"); /* the program's own path, not input */
        if (!out) return false;
        while (fgets(line, sizeof line, out))
            if (sscanf(line, "bits %31s", bits[i]) == 1) break;
        while (fgets(line, sizeof line, out)) continue;
        if (pclose(out) != 0 || !bits[i][0]) return false;
        if (strcmp(bits[i], bits[0]) != 0) fprintf(stderr, "%s differs from %s\n", isa[i], isa[0]);
    }
    return strcmp(bits[0], bits[1]) == 0 && strcmp(bits[0], bits[2]) == 0;
}

static void instruction_sets_change_nothing(void **state) {
    (void)state;
    assert_true(same_on_every_isa());
}

#define SAME_BITS cmocka_unit_test(threads_change_nothing), cmocka_unit_test(instruction_sets_change_nothing)

#endif
