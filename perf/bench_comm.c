/* SPDX-License-Identifier: Apache-2.0 */
/* bench_comm - the messages that a run sends, as csv on rank 0's standard output.
 *
 *     mpirun -n N bench_comm [RUNS [MOST_KIB]] [--compare OLD.csv]      defaults: 9 runs, messages up to
 * 16384 KiB
 *
 * hand-over: ranks pair up and exchange a message each way, as stages of the reference pipeline do.  tree
 * sum: a matrix a rank is summed, each rank ending with its rows.  gather: everybody's rows for everybody.
 * broadcast: rank 0's bytes for the stage.  The fraction is of a plain MPI_Sendrecv around the ring (with one
 * rank, a memcpy) of as many bytes as a rank sends, and for the sum the additions in a plain loop; medians of
 * raw seconds by ours, as measured side by side.  Latencies are the rows of 4 bytes. */
#include "base/clock.h"
#include "base/die.h"
#include "comm/treesum.h"
#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS_MAX = 99, COLS = 256 };

static bq_comm comm;
static bq_dev dev;
static bq_mat matrix;
static float *in, *out;
static int runs = 9;
static int64_t most = (int64_t)16 << 20;

typedef void work(int64_t floats);

/* The rank that shares a hand-over with this one: itself where there is none. */
static int partner(void) { return (comm.rank ^ 1) < comm.size ? comm.rank ^ 1 : comm.rank; }

static void hand_over(int64_t n) {
    MPI_Request request[2];
    if (partner() == comm.rank) {
        memcpy(in, out, (size_t)n * sizeof *in);
        return;
    }
    bq_comm_receive(&comm, partner(), in, n, &request[0]);
    bq_comm_send(&comm, partner(), out, n, &request[1]);
    bq_comm_wait(request, 2);
}

static void plain_pair(int64_t n) {
    if (partner() == comm.rank)
        memcpy(in, out, (size_t)n * sizeof *in);
    else
        MPI_Sendrecv(out, (int)n, MPI_FLOAT, partner(), 1, in, (int)n, MPI_FLOAT, partner(), 1, comm.world,
                     MPI_STATUS_IGNORE);
}

/* To the right, and from the left. */
static void ring(int64_t n) {
    int right = (comm.rank + 1) % comm.size, left = (comm.rank + comm.size - 1) % comm.size;
    if (comm.size == 1)
        memcpy(in, out, (size_t)n * sizeof *in);
    else
        MPI_Sendrecv(out, (int)n, MPI_FLOAT, right, 1, in, (int)n, MPI_FLOAT, left, 1, comm.world,
                     MPI_STATUS_IGNORE);
}

static bq_mat shaped(int64_t n) {
    bq_mat m = matrix;
    m.cols = n < COLS ? n : COLS, m.ld = m.cols, m.rows = n / m.cols;
    return m;
}

static void tree_sum(int64_t n) {
    bq_mat m = shaped(n);
    bq_treesum sum;
    bq_shard leaves[BQ_REPLICAS];
    size_t mark = bq_arena_mark(&dev.mem);
    for (int r = 0; r < comm.size; r++) leaves[r] = (bq_shard){r, 1, comm.size};
    bq_treesum_open(&sum, &dev, 1, m);
    bq_treesum_next(&sum), bq_treesum_add(&sum, comm.rank);
    bq_treesum_end(&sum, &comm, leaves, bq_shard_of(m.rows, comm.rank, comm.size));
    bq_arena_reset(&dev.mem, mark);
}

/* A rank's slice to and from each other rank, and the sum of what came. */
static void plain_sum(int64_t n) {
    int64_t slice = n / comm.size;
    for (int k = 1; k < comm.size; k++) {
        ring(slice);
        for (int64_t i = 0; i < slice; i++) bq_f32(matrix)[i] += in[i];
    }
}

static void gather(int64_t n) { bq_comm_gather_rows(&comm, &dev, shaped(n)); }

static void plain_gather(int64_t n) {
    for (int k = 1; k < comm.size; k++) ring(n / comm.size);
}

static void broadcast(int64_t n) { bq_comm_stage_bcast(&comm, out, (int)(n * 4)); }

/* Rank 0 to each other rank by turns. */
static void plain_broadcast(int64_t n) {
    for (int r = 1; r < comm.size; r++) {
        if (comm.rank == 0) MPI_Send(out, (int)n, MPI_FLOAT, r, 2, comm.world);
        if (comm.rank == r) MPI_Recv(out, (int)n, MPI_FLOAT, 0, 2, comm.world, MPI_STATUS_IGNORE);
    }
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of one call, the slowest rank's: many calls where it is short. */
static double measure(work *run, int64_t n) {
    int calls = n < 4096 ? 200 : n < 262144 ? 20 : 2;
    MPI_Barrier(comm.world);
    double start = bq_seconds();
    for (int k = 0; k < calls; k++) run(n);
    double seconds = (bq_seconds() - start) / calls, slowest;
    MPI_Allreduce(&seconds, &slowest, 1, MPI_DOUBLE, MPI_MAX, comm.world);
    return slowest;
}

/* sent: floats that a rank sends, of a message or matrix of n. */
static void report(const char *what, int64_t n, double sent, work *ours, work *plain) {
    double best = INFINITY, of[RUNS_MAX];
    char shape[48];
    measure(ours, n), measure(plain, n);
    for (int r = 0; r < runs; r++) {
        double raw = measure(plain, n), seconds = measure(ours, n);
        of[r] = raw / seconds, best = fmin(best, seconds);
    }
    qsort(of, (size_t)runs, sizeof *of, by_size);
    snprintf(shape, sizeof shape, "%ld B on %d", (long)(n * 4), comm.size);
    if (comm.rank) return;
    printf("%s,%s,%.3e,%.1f,%.3f\n", what, shape, best, 4 * sent / best / 1e6, of[runs / 2]);
    fflush(stdout);
    compare_row(what, shape, 1, &of[runs / 2]);
}

static void sizes(void) {
    for (int64_t n = 1; n <= most / 4; n = n == 1 ? 4096 : 16 * n) {
        double others = (double)(comm.size - 1);
        report("hand-over", n, (double)n, hand_over, plain_pair);
        if (n < COLS || comm.size == 1) continue;
        report("tree sum", n, (double)n * others / comm.size, tree_sum, plain_sum);
        report("gather", n, (double)n * others / comm.size, gather, plain_gather);
        report("broadcast", n, (double)n * others, broadcast, plain_broadcast);
    }
}

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    compare_open(&argc, argv);
    if (argc > 1) runs = atoi(argv[1]);
    if (argc > 2) most = atol(argv[2]) << 10;
    BQ_CHECK(runs > 0 && runs <= RUNS_MAX && most >= 4,
             "usage: bench_comm [RUNS [MOST_KIB]] [--compare OLD.csv]");
    if (bq_dev_open(&dev, "cpu", 1, (size_t)most * 3 + (1 << 20)) != BQ_OK) return 1;
    matrix = bq_arena_push(&dev.mem, most / 4 / COLS + 1, COLS, BQ_F32);
    in = calloc((size_t)most, 1), out = calloc((size_t)most, 1);
    BQ_CHECK(in && out, "no memory for messages of %ld bytes", (long)most);
    if (comm.rank == 0) printf("# %d ranks\nwhat,size,seconds,mb_s_of_a_rank,of_plain\n", comm.size);
    sizes();
    bq_dev_close(&dev);
    free(in), free(out);
    code = comm.rank == 0 ? compare_close() : 0;
    MPI_Bcast(&code, 1, MPI_INT, 0, comm.world);
    bq_comm_close(&comm);
    return code;
}
