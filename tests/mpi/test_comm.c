/* SPDX-License-Identifier: Apache-2.0 */
/* comm on as many ranks as mpirun gives: what ranks agree on and exchange, and sums that do not depend on
 * their number.
 *
 * Every check counts failures on its rank; the exit code is their sum over all ranks, cut to 1. */
#include "base/clock.h"
#include "base/die.h"
#include "base/shard.h"
#include "comm/comm.h"
#include "comm/treesum.h"
#include "expect.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

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

static void bcast_up_to(size_t most) {
    static const size_t sizes[] = {0, 1, 7, 8, 100, 4096, ((size_t)1 << 22) + 3};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes && sizes[k] <= most; k++) {
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

static void bcast(void) { bcast_up_to(SIZE_MAX); }

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

/* Types for large messages, cut into pieces of a few floats: as if they were sent in one. */
static void large_messages(void) {
    enum { MOST = 100 };
    float sent[MOST], got[MOST + 1];
    int to = (comm.rank + 1) % comm.size, from = (comm.rank + comm.size - 1) % comm.size;
    for (int i = 0; i < MOST; i++) sent[i] = (float)(comm.rank * 1000 + i);
    for (int count = 1; count <= MOST; count += 11) {
        MPI_Datatype type = bq_comm_floats(count, 7);
        got[count] = -1;
        MPI_Sendrecv(sent, 1, type, to, 3, got, count, MPI_FLOAT, from, 3, comm.world, MPI_STATUS_IGNORE);
        for (int i = 0; i < count; i++)
            EXPECT(got[i] == (float)(from * 1000 + i), "%d floats, number %d", count, i);
        MPI_Sendrecv(sent, count, MPI_FLOAT, to, 3, got, 1, type, from, 3, comm.world, MPI_STATUS_IGNORE);
        EXPECT(got[count - 1] == (float)(from * 1000 + count - 1) && got[count] == -1, "%d floats", count);
        MPI_Type_free(&type);
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

enum { COLS = 6, MOST_ROWS = 37, MOST_PARTS = 23 };

static void fill(bq_mat m, int64_t leaf) {
    for (int64_t i = 0; i < m.rows * m.cols; i++) {
        double x = 1 / (double)(3 + (leaf * 7 + i) % 11) + (double)i * 1e-3;
        if (m.type == BQ_F64)
            ((double *)m.data)[i] = x;
        else
            bq_f32(m)[i] = (float)x;
    }
}

/* A sum over leaves that are shared out over the ranks: every rank's rows equal those of one rank alone, bit
 * for bit. */
static void tree_over_ranks(int64_t rows, int64_t parts, bq_type type, bq_dev *dev) {
    static const bq_comm alone = {.size = 1, .nstage = 1, .nreplica = 1};
    bq_shard leaves[64], whole = {0, rows, rows};
    bq_treesum sum;
    bq_mat want = bq_arena_push(&dev->mem, rows, COLS, type),
           have = bq_arena_push(&dev->mem, rows, COLS, type);
    bq_treesum_open(&sum, dev, bq_treesum_buffers(0, parts), bq_arena_push(&dev->mem, rows, COLS, type));
    for (int64_t i = 0; i < parts; i++) fill(bq_treesum_next(&sum), i), bq_treesum_add(&sum, i);
    dev->op->copy(dev, bq_treesum_end(&sum, &alone, &(bq_shard){0, parts, parts}, whole), want);

    for (int r = 0; r < comm.nreplica; r++) leaves[r] = bq_shard_of(parts, r, comm.nreplica);
    bq_shard mine = leaves[comm.replica], own = bq_shard_of(rows, comm.replica, comm.nreplica);
    bq_treesum_open(&sum, dev, bq_treesum_buffers(mine.first, mine.count),
                    bq_arena_push(&dev->mem, rows, COLS, type));
    for (int round = 0; round < 2; round++) { /* one opening serves several sums */
        for (int64_t i = mine.first; i < mine.first + mine.count; i++)
            fill(bq_treesum_next(&sum), i), bq_treesum_add(&sum, i);
        size_t mark = bq_arena_mark(&dev->mem);
        bq_mat slice = bq_treesum_end(&sum, &comm, leaves, own);
        EXPECT(bq_arena_mark(&dev->mem) - mark ==
                   bq_treesum_exchange(comm.replica, comm.nreplica, leaves, rows, COLS, type),
               "exchange bytes");
        EXPECT(slice.rows == own.count, "%ld rows, not %ld", (long)slice.rows, (long)own.count);
        dev->op->zero(dev, have);
        dev->op->copy(dev, slice, bq_mat_rows(have, own.first, own.count));
        bq_arena_reset(&dev->mem, mark);
        bq_comm_gather_rows(&comm, dev, have);
        EXPECT(memcmp(have.data, want.data, bq_mat_bytes(want)) == 0, "%ld rows, %ld parts differ",
               (long)rows, (long)parts);
    }
}

static void trees_apart(int64_t step) {
    bq_dev dev;
    EXPECT(bq_dev_open(&dev, "cpu", 1, (size_t)1 << 20) == BQ_OK, "no device");
    for (int64_t rows = 1; rows <= MOST_ROWS; rows += 6)
        for (int64_t parts = 1; parts <= MOST_PARTS; parts += step) {
            size_t mark = bq_arena_mark(&dev.mem);
            tree_over_ranks(rows, parts, parts % 2 ? BQ_F32 : BQ_F64, &dev);
            bq_arena_reset(&dev.mem, mark);
        }
    bq_dev_close(&dev);
}

static void trees(void) { trees_apart(1); }

/* Each element from the one rank that has it. */
static void fills(void) {
    double v[9];
    for (int i = 0; i < 9; i++) v[i] = i % comm.nreplica == comm.replica ? 0.1 * (i + 1) : 0;
    bq_comm_fill(&comm, v, 9);
    for (int i = 0; i < 9; i++) EXPECT(v[i] == 0.1 * (i + 1), "value %d is %g", i, v[i]);
}

/* Around the ring at once, of every count, in order. */
static void messages(void) {
    enum { COUNTS = 30 };
    static float sent[COUNTS][COUNTS], got[COUNTS][COUNTS + 1];
    int to = (comm.rank + 1) % comm.size, from = (comm.rank + comm.size - 1) % comm.size;
    MPI_Request request[2 * COUNTS];
    for (int n = 0; n < COUNTS; n++) {
        for (int i = 0; i < n; i++) sent[n][i] = (float)(comm.rank * 10000 + n * 100 + i);
        got[n][n] = -1;
        bq_comm_receive(&comm, from, got[n], n, &request[2 * n]);
        bq_comm_send(&comm, to, sent[n], n, &request[2 * n + 1]);
    }
    bq_comm_wait(request, 2 * COUNTS);
    for (int n = 0; n < COUNTS; n++) {
        for (int i = 0; i < n; i++)
            EXPECT(got[n][i] == (float)(from * 10000 + n * 100 + i), "%d floats, number %d", n, i);
        EXPECT(got[n][n] == -1, "more than %d floats", n);
    }
}

/* Vectors on the device: the largest of everybody's, and the one that is not 0. */
static void vectors(void) {
    bq_dev dev;
    EXPECT(bq_dev_open(&dev, "cpu", 1, (size_t)1 << 16) == BQ_OK, "no device");
    bq_mat most = bq_arena_push(&dev.mem, 5, 3, BQ_F32), one = bq_arena_push(&dev.mem, 5, 3, BQ_F32);
    for (int i = 0; i < 15; i++) {
        bq_f32(most)[i] = (float)((i + comm.replica) % comm.nreplica);
        bq_f32(one)[i] = i % comm.nreplica == comm.replica ? (float)i + 0.5f : 0;
    }
    bq_comm_stage_max(&comm, &dev, most);
    bq_comm_fill_scales(&comm, &dev, one);
    for (int i = 0; i < 15; i++) {
        EXPECT(bq_f32(most)[i] == (float)(comm.nreplica - 1), "largest %d", i);
        EXPECT(bq_f32(one)[i] == (float)i + 0.5f, "element %d", i);
    }
    bq_dev_close(&dev);
}

/* What MPI cannot count in one call: the same, where that is few elements, in each grid. */
static void many_calls(void) {
    const int usual = bq_comm_most, small[] = {7, 4, 1};
    for (int stages = 1; stages <= comm.size; stages++) {
        if (comm.size % stages || bq_comm_grid(&comm, stages) != BQ_OK) continue;
        for (int i = 0; i < 3; i++) {
            bq_comm_most = small[i];
            bcast_up_to(100);
            gather(), fills(), messages(), vectors(), trees_apart(5);
        }
    }
    bq_comm_most = usual;
    bq_comm_grid(&comm, 1);
}

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    void (*const checks[])(void) = {identity, grid,    agree,          bcast, gather, barrier,
                                    messages, vectors, large_messages, trees, fills,  many_calls};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) checks[i]();
    return expect_end();
}
