/* comm on as many ranks as mpirun gives: what ranks agree on and exchange, and sums that do not depend on
 * their number.
 *
 * Every check counts failures on its rank; the exit code is their sum over all ranks, cut to 1. */
#include "base/clock.h"
#include "base/die.h"
#include "base/hash.h"
#include "base/shard.h"
#include "comm/comm.h"
#include "comm/treesum.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

static void identity(void) {
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    EXPECT(comm.rank == rank && comm.size == size, "says rank %d of %d", comm.rank, comm.size);
    EXPECT(comm.local >= 0 && comm.local < size, "local rank %d", comm.local);
    EXPECT(comm.nstage == 1 && comm.istage == 0 && comm.nreplica == size && comm.replica == rank,
           "first grid");
}

/* Every number of stages that divides, there and back; the others refused by all, and nothing changed. */
static void grid(void) {
    for (int n = 1; n <= comm.size; n++) {
        if (comm.size % n) continue;
        EXPECT(bq_comm_grid(&comm, n) == BQ_OK, "%d stages", n);
        int replica, replicas;
        MPI_Comm_rank(comm.stage, &replica);
        MPI_Comm_size(comm.stage, &replicas);
        EXPECT(comm.nstage == n && comm.nreplica == comm.size / n, "%d x %d", comm.nstage, comm.nreplica);
        EXPECT(comm.istage * comm.nreplica + comm.replica == comm.rank, "%d.%d", comm.istage, comm.replica);
        EXPECT(replica == comm.replica && replicas == comm.nreplica, "stage's %d of %d", replica, replicas);
    }
    const int bad[] = {0, -1, comm.size + 1};
    bq_comm before = comm;
    for (int i = 0; i < 3; i++) EXPECT(bq_comm_grid(&comm, bad[i]) == BQ_LAUNCH, "%d stages", bad[i]);
    EXPECT(comm.nstage == before.nstage && comm.stage == before.stage, "a refused grid changed something");
    EXPECT(bq_comm_grid(&comm, 1) == BQ_OK, "one stage");
}

/* The largest value wins, whoever has it. */
static void agree(void) {
    for (int who = 0; who < comm.size; who++) {
        static const int values[] = {1, BQ_STOPPED, 1 << 30};
        for (int i = 0; i < 3; i++) {
            int all = bq_comm_agree(&comm, comm.rank == who ? values[i] : i - 1);
            EXPECT(all == values[i], "rank %d said %d, agreed on %d", who, values[i], all);
        }
    }
    EXPECT(bq_comm_agree(&comm, -5 - comm.rank) == -5, "negative values");
    int wrong = 0;
    for (int i = 0; i < 2000; i++) wrong += bq_comm_agree(&comm, i % comm.size == comm.rank ? i : 0) != i;
    EXPECT(wrong == 0, "%d of 2000 were wrong", wrong);
}

static unsigned char byte_of(size_t i) { return (unsigned char)(i * 37 + (i >> 8)); }

static void bcast(void) {
    static const size_t sizes[] = {0, 1, 7, 4096, ((size_t)1 << 22) + 3};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        unsigned char *data = calloc(sizes[k] + 1, 1);
        if (!data) abort();
        for (size_t i = 0; comm.rank == 0 && i < sizes[k]; i++) data[i] = byte_of(i);
        data[sizes[k]] = 0xA5;
        bq_comm_bcast(&comm, data, sizes[k]);
        size_t wrong = 0;
        for (size_t i = 0; i < sizes[k]; i++) wrong += data[i] != byte_of(i);
        EXPECT(wrong == 0 && data[sizes[k]] == 0xA5, "%zu of %zu bytes", wrong, sizes[k]);
        free(data);
    }
}

/* Shares of every size, none among them; what is not mine stays as it was. */
static void gather(void) {
    for (int64_t total = 0; total <= 3 * comm.size + 1; total++) {
        double values[32];
        bq_shard mine = bq_shard_of(total, comm.rank, comm.size);
        for (int64_t i = 0; i < 32; i++)
            values[i] = i >= mine.first && i < mine.first + mine.count ? 1.5 * (double)i : -1;
        bq_comm_gather(&comm, values, total);
        for (int64_t i = 0; i < 32; i++) {
            bool filled = comm.rank == 0 ? i < total : i >= mine.first && i < mine.first + mine.count;
            EXPECT(values[i] == (filled ? 1.5 * (double)i : -1), "%ld values, number %ld", (long)total,
                   (long)i);
        }
    }
}

/* Nobody leaves before the last one came. */
static void barrier(void) {
    for (int late = 0; late < comm.size; late++) {
        if (comm.rank == late) nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
        double came = bq_seconds(), last;
        bq_comm_barrier(&comm);
        double left = bq_seconds();
        MPI_Allreduce(&came, &last, 1, MPI_DOUBLE, MPI_MAX,
                      MPI_COMM_WORLD); /* one clock: the ranks share a node */
        EXPECT(left >= last, "left %g s before rank %d came", last - left, late);
    }
}

/* Parts made by whoever owns them, summed on rank 0.  The fingerprint is the one of any number of ranks. */
static void tree_of_shares(void) {
    enum { PARTS = 13, SIZE = 6 };
    static const uint64_t known = 0x8d0fc8811d2f701cu;
    double all[PARTS * SIZE] = {0};
    for (int e = 0; e < SIZE; e++) {
        double column[PARTS];
        bq_shard mine = bq_shard_of(PARTS, comm.rank, comm.size);
        for (int64_t i = mine.first; i < mine.first + mine.count; i++)
            column[i] = (double)(1.0f / (float)(3 + i * 7 % 11) + (float)e * 1e-3f);
        bq_comm_gather(&comm, column, PARTS);
        for (int i = 0; comm.rank == 0 && i < PARTS; i++) all[i * SIZE + e] = column[i];
    }
    if (comm.rank) return;
    bq_dev dev;
    bq_treesum sum;
    EXPECT(bq_dev_open(&dev, "cpu", 1, 65536) == BQ_OK, "no device");
    bq_treesum_open(&sum, &dev, PARTS, bq_arena_push(&dev.mem, 1, SIZE, BQ_F32));
    for (int i = 0; i < PARTS; i++) {
        float *to = bq_treesum_next(&sum).data;
        for (int e = 0; e < SIZE; e++) to[e] = (float)all[i * SIZE + e];
        bq_treesum_add(&sum);
    }
    uint64_t hash = bq_hash_bytes(bq_treesum_end(&sum).data, SIZE * sizeof(float));
    EXPECT(hash == known, "fingerprint %016lx, not %016lx", (unsigned long)hash, (unsigned long)known);
    bq_dev_close(&dev);
}

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    void (*const checks[])(void) = {identity, grid, agree, bcast, gather, barrier, tree_of_shares};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) checks[i]();
    int total;
    MPI_Allreduce(&failed, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    bq_comm_close(&comm);
    return total > 0;
}
