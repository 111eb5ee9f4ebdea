/* SPDX-License-Identifier: Apache-2.0 */
/* expect.h - checks of a program that mpirun starts: each counts failures on its rank, the exit code is their
 * sum over all ranks, cut to 1. */
#ifndef BQ_TESTS_EXPECT_H
#define BQ_TESTS_EXPECT_H

#include "comm/comm.h"

#include <stdio.h>

static bq_comm comm;
static int failed;

#define EXPECT(cond, ...)                                                                                    \
    do {                                                                                                     \
        if (cond) break;                                                                                     \
        failed++;                                                                                            \
        fprintf(stderr, "rank %d of %d, line %d: ", comm.rank, comm.size, __LINE__);                         \
        fprintf(stderr, __VA_ARGS__);                                                                        \
        fputc('\n', stderr);                                                                                 \
    } while (0)

/* The program's exit code.  Collective over world. */
static inline int expect_end(void) {
    int total;
    MPI_Allreduce(&failed, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    bq_comm_close(&comm);
    return total > 0;
}

#endif
