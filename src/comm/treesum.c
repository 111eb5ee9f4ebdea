/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/treesum.h"

#include "base/die.h"
#include "base/meter.h"
#include "comm/nccl.h"

/* Where the device is the host the view of a matrix is the matrix itself; else it is in the device's staging
 * memory (pinned), contiguous.  One area is open at a time; its views are valid until the next one is
 * opened. */
typedef struct {
    bq_dev *dev;
    char *at;
} staging;

static size_t view_bytes(int64_t rows, int64_t cols) {
    size_t bytes = (size_t)(rows * cols) * sizeof(float);
    return (bytes + BQ_ARENA_ALIGN - 1) / BQ_ARENA_ALIGN * BQ_ARENA_ALIGN;
}

static bool apart(const staging *s) { return s->dev->mem.place == BQ_DEVICE; }

static staging open_staging(bq_dev *dev, size_t bytes) {
    return (staging){dev, dev->mem.place == BQ_DEVICE ? dev->op->stage(dev, bytes) : NULL};
}

/* The view of m, contents undefined; with m's contents after the device's next wait; and its copy back to
 * m. */
static bq_mat view_room(staging *s, bq_mat m) {
    if (!apart(s)) return m;
    bq_mat room = bq_mat_host(s->at, m.rows, m.cols, m.type);
    room.place = BQ_PINNED;
    s->at += view_bytes(m.rows, m.cols);
    return room;
}

static bq_mat view_get(staging *s, bq_mat m) {
    bq_mat room = view_room(s, m);
    if (apart(s)) s->dev->op->get(s->dev, m, room);
    return room;
}

static void view_put(staging *s, bq_mat view, bq_mat m) {
    if (apart(s)) s->dev->op->put(s->dev, view, m);
}

/* Are these two nodes siblings, the first the left one? */
static bool siblings(int level, int64_t index, int level2, int64_t index2) {
    return level == level2 && index % 2 == 0 && index2 == index + 1;
}

/* The nodes that leaves [first, first + count) end as.  Returns their number; *most: the largest number of
 * nodes at any time, the leaf that comes in included. */
static int shape(int64_t first, int64_t count, bq_tree_node *out, int *most) {
    bq_tree_node own[BQ_TREE_NODES], *node = out ? out : own;
    int n = 0;
    *most = 0;
    for (int64_t leaf = first; leaf < first + count; leaf++) {
        BQ_CHECK(n < BQ_TREE_NODES, "a sum of %ld parts", (long)count);
        node[n++] = (bq_tree_node){.index = leaf};
        *most = n > *most ? n : *most;
        while (n > 1 &&
               siblings(node[n - 2].level, node[n - 2].index, node[n - 1].level, node[n - 1].index)) {
            n--;
            node[n - 1].level++, node[n - 1].index /= 2;
        }
    }
    return n;
}

int bq_treesum_buffers(int64_t first, int64_t count) {
    int most;
    shape(first, count, NULL, &most);
    return most > 1 ? most : 1;
}

void bq_treesum_open(bq_treesum *sum, bq_dev *dev, int buffers, bq_mat first) {
    BQ_CHECK(buffers <= BQ_TREE_NODES, "a sum with %d buffers", buffers);
    *sum = (bq_treesum){.dev = dev, .buffers = buffers, .free_buffers = buffers};
    for (int k = 0; k < buffers; k++) {
        sum->buffer[k] = k ? bq_arena_push(&dev->mem, first.rows, first.cols, first.type) : first;
        sum->free_buffer[k] = sum->buffer[k];
    }
}

bq_mat bq_treesum_next(bq_treesum *sum) {
    BQ_CHECK(sum->free_buffers > 0, "a tree sum got more parts than it was opened for");
    return sum->free_buffer[sum->free_buffers - 1];
}

/* Append a finished node and add siblings while there are any.  own: nodes are in the sum's own buffers, so a
 * buffer is free again when its node has been added to another. */
static void push(bq_treesum *sum, bq_tree_node node, bool own) {
    BQ_CHECK(sum->nodes < BQ_TREE_NODES, "a tree sum with more than %d nodes", BQ_TREE_NODES);
    sum->node[sum->nodes++] = node;
    while (sum->nodes > 1) {
        bq_tree_node *a = &sum->node[sum->nodes - 2], *b = a + 1;
        if (!siblings(a->level, a->index, b->level, b->index)) break;
        sum->dev->op->add(sum->dev, b->sum, a->sum);
        if (own) sum->free_buffer[sum->free_buffers++] = b->sum;
        a->level++, a->index /= 2;
        sum->nodes--;
    }
}

void bq_treesum_add(bq_treesum *sum, int64_t leaf) {
    bq_tree_node node = {0, leaf, bq_treesum_next(sum)};
    sum->free_buffers--;
    push(sum, node, true);
}

size_t bq_treesum_exchange(int replica, int nreplica, const bq_shard *leaves, int64_t rows, int64_t cols,
                           bq_type type) {
    size_t sum = 0;
    for (int r = 0, most; r < nreplica; r++)
        if (r != replica)
            sum += (size_t)shape(leaves[r].first, leaves[r].count, NULL, &most) *
                   bq_arena_need(bq_shard_of(rows, replica, nreplica).count, cols, type);
    return sum;
}

/* m as a matrix of floats.  A double travels as two floats; its bits are not changed. */
static bq_mat floats(bq_mat m) {
    if (m.type == BQ_F64) m.cols *= 2, m.ld *= 2, m.type = BQ_F32;
    return m;
}

enum { F32 = sizeof(float) };

/* What the other replicas send: my rows of each of their nodes, side by side in the order of their leaves. */
typedef struct {
    bq_mat first;
    size_t apart;            /* bytes from one node to the next */
    int at[BQ_REPLICAS + 1]; /* number of a replica's first node; the last entry: of all nodes */
} arrivals;

static bq_mat arrival(const arrivals *theirs, int number) {
    bq_mat m = theirs->first;
    m.data = (char *)m.data + (size_t)number * theirs->apart;
    return m;
}

/* Push room for them to the arena. */
static void expect(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows,
                   arrivals *theirs) {
    const bq_mat *like = &sum->buffer[0];
    theirs->apart = bq_arena_need(rows.count, like->cols, like->type);
    theirs->at[0] = 0;
    for (int r = 0, most; r < comm->nreplica; r++) {
        int n = r == comm->replica ? 0 : shape(leaves[r].first, leaves[r].count, NULL, &most);
        theirs->at[r + 1] = theirs->at[r] + n;
        for (int k = 0; k < n; k++) {
            bq_mat m = bq_arena_push(&sum->dev->mem, rows.count, like->cols, like->type);
            if (theirs->at[r] + k == 0) theirs->first = m;
        }
    }
}

/* From GPU to GPU.  Both sides of a pair of replicas name their messages in the same order. */
static void exchange_nccl(bq_treesum *sum, const bq_comm *comm, bq_shard rows, const arrivals *theirs) {
    int64_t cols = floats(sum->buffer[0]).cols;
    bq_spent.received += theirs->at[comm->nreplica] * rows.count * cols * F32;
    bq_spent.sent += sum->nodes * (rows.total - rows.count) * cols * F32;
    bq_nccl_start(comm->nccl);
    for (int r = 0; r < comm->nreplica; r++) {
        if (r == comm->replica) continue;
        bq_shard out = bq_shard_of(rows.total, r, comm->nreplica);
        for (int k = theirs->at[r]; k < theirs->at[r + 1]; k++)
            bq_nccl_receive(comm->nccl, r, arrival(theirs, k).data, rows.count * cols);
        for (int k = 0; k < sum->nodes; k++)
            bq_nccl_send(comm->nccl, r, bq_mat_at(floats(sum->node[k].sum), out.first, 0), out.count * cols);
    }
    bq_nccl_end(comm->nccl);
}

/* By MPI.  In round d a replica sends to the one d behind it and receives from the one d before it.  When the
 * list of requests is nearly full it waits for all of them.  That cannot block for ever: all replicas go
 * through the rounds in the same order, so the messages of earlier rounds arrive. */
static void exchange_mpi(const bq_treesum *sum, const bq_comm *comm, bq_shard rows, const bq_mat *mine,
                         const arrivals *theirs) {
    enum { LIST = 4096 };
    MPI_Request request[LIST];
    int64_t cols = floats(sum->buffer[0]).cols;
    int pending = 0, n = comm->nreplica;
    for (int d = 1; d < n; d++) {
        int to = (comm->replica + d) % n, from = (comm->replica + n - d) % n;
        bq_shard out = bq_shard_of(rows.total, to, n);
        if (pending + 2 * BQ_TREE_NODES > LIST || pending > bq_comm_most)
            bq_comm_wait(request, pending), pending = 0;
        for (int k = theirs->at[from]; k < theirs->at[from + 1]; k++)
            bq_comm_receive(comm, bq_comm_rank_of(comm, from), arrival(theirs, k).data, rows.count * cols,
                            &request[pending++]);
        for (int k = 0; k < sum->nodes; k++)
            bq_comm_send(comm, bq_comm_rank_of(comm, to), bq_mat_at(mine[k], out.first, 0), out.count * cols,
                         &request[pending++]);
    }
    bq_comm_wait(request, pending);
}

/* Send every other replica its rows of my nodes, and receive my rows of theirs. */
static void exchange(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows,
                     arrivals *theirs) {
    bq_mat mine[BQ_TREE_NODES];
    expect(sum, comm, leaves, rows, theirs);
    int all = theirs->at[comm->nreplica];
    if (comm->nccl) exchange_nccl(sum, comm, rows, theirs);
    if (comm->nccl || comm->nreplica == 1) return;
    int64_t cols = floats(sum->buffer[0]).cols;
    staging s = open_staging(sum->dev, (size_t)sum->nodes * view_bytes(rows.total, cols) +
                                           (size_t)all * view_bytes(rows.count, cols));
    arrivals landed = *theirs;
    for (int k = 0; k < sum->nodes; k++) mine[k] = view_get(&s, floats(sum->node[k].sum));
    for (int k = 0; k < all; k++) {
        bq_mat room = view_room(&s, floats(arrival(theirs, k)));
        if (k == 0) landed.first = room;
        if (k == 1) landed.apart = (size_t)((char *)room.data - (char *)landed.first.data);
    }
    sum->dev->op->wait(sum->dev);
    exchange_mpi(sum, comm, rows, mine, &landed);
    for (int k = 0; k < all; k++) view_put(&s, arrival(&landed, k), floats(arrival(theirs, k)));
}

bq_mat bq_treesum_end(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows) {
    bq_tree_node mine[BQ_TREE_NODES], node[BQ_TREE_NODES];
    arrivals theirs;
    int count = sum->nodes;
    for (int k = 0; k < count; k++) mine[k] = sum->node[k];
    exchange(sum, comm, leaves, rows, &theirs);
    sum->nodes = 0;
    for (int r = 0, most; r < comm->nreplica; r++) {
        bool own = r == comm->replica;
        int n = own ? count : shape(leaves[r].first, leaves[r].count, node, &most);
        for (int k = 0; k < n; k++) {
            bq_tree_node next = own ? mine[k] : node[k];
            next.sum =
                own ? bq_mat_rows(next.sum, rows.first, rows.count) : arrival(&theirs, theirs.at[r] + k);
            push(sum, next, false);
        }
    }
    BQ_CHECK(sum->nodes > 0, "a tree sum without parts");
    for (; sum->nodes > 1; sum->nodes--)
        sum->dev->op->add(sum->dev, sum->node[sum->nodes - 1].sum, sum->node[sum->nodes - 2].sum);
    sum->nodes = 0;
    sum->free_buffers = sum->buffers;
    for (int k = 0; k < sum->buffers; k++) sum->free_buffer[k] = sum->buffer[k];
    return sum->node[0].sum;
}

static void gather_nccl(const bq_comm *comm, bq_mat m, const int64_t *first) {
    int me = comm->replica;
    bq_nccl_start(comm->nccl);
    for (int r = 0; r < comm->nreplica; r++) {
        if (r == me) continue;
        bq_nccl_receive(comm->nccl, r, bq_mat_at(m, first[r], 0), (first[r + 1] - first[r]) * m.cols);
        bq_nccl_send(comm->nccl, r, bq_mat_at(m, first[me], 0), (first[me + 1] - first[me]) * m.cols);
    }
    bq_nccl_end(comm->nccl);
}

/* In place.  The MPI type is one row, so that counts stay small however long the rows are. */
static void gather_mpi(const bq_comm *comm, bq_mat m, const int64_t *first) {
    int count[BQ_REPLICAS], place[BQ_REPLICAS];
    MPI_Request request;
    MPI_Datatype row;
    for (int r = 0; r < comm->nreplica; r++)
        count[r] = (int)(first[r + 1] - first[r]), place[r] = (int)first[r];
    MPI_Type_contiguous((int)m.cols, MPI_FLOAT, &row);
    MPI_Type_commit(&row);
    MPI_Iallgatherv(MPI_IN_PLACE, 0, row, m.data, count, place, row, comm->stage, &request);
    bq_comm_wait(&request, 1);
    MPI_Type_free(&row);
}

void bq_comm_gather_slices(const bq_comm *comm, bq_dev *dev, bq_mat m, const int64_t *first) {
    if (comm->nreplica == 1) return;
    m = floats(m);
    BQ_CHECK(m.ld == m.cols && m.type == BQ_F32, "gather of %ld x %ld rows", (long)m.rows, (long)m.cols);
    int64_t own = first[comm->replica], rows = first[comm->replica + 1] - own;
    bq_spent.sent += rows * m.cols * (comm->nreplica - 1) * F32;
    bq_spent.received += (m.rows - rows) * m.cols * F32;
    if (comm->nccl) gather_nccl(comm, m, first);
    if (comm->nccl) return;
    staging s = open_staging(dev, view_bytes(m.rows, m.cols));
    bq_mat host = view_room(&s, m);
    if (host.data != m.data) dev->op->get(dev, bq_mat_rows(m, own, rows), bq_mat_rows(host, own, rows));
    dev->op->wait(dev);
    gather_mpi(comm, host, first);
    view_put(&s, host, m);
}

void bq_comm_gather_rows(const bq_comm *comm, bq_dev *dev, bq_mat m) {
    int64_t first[BQ_REPLICAS + 1];
    for (int r = 0; r < comm->nreplica; r++) first[r] = bq_shard_of(m.rows, r, comm->nreplica).first;
    first[comm->nreplica] = m.rows;
    bq_comm_gather_slices(comm, dev, m, first);
}

void bq_comm_fill(const bq_comm *comm, double *values, int64_t count) {
    if (comm->nreplica > 1) bq_comm_reduce(comm, values, count, MPI_DOUBLE, MPI_SUM);
}

bool bq_comm_stage_any(const bq_comm *comm, bool mine) {
    double any = mine;
    bq_comm_fill(comm, &any, 1);
    return any > 0;
}

/* v = op over all replicas' v, element by element. */
static void reduce(const bq_comm *comm, bq_dev *dev, bq_mat v, MPI_Op op) {
    if (comm->nreplica == 1) return;
    BQ_CHECK(v.ld == v.cols && v.type == BQ_F32, "a reduction of %ld x %ld", (long)v.rows, (long)v.cols);
    staging s = open_staging(dev, view_bytes(v.rows, v.cols));
    bq_mat host = view_get(&s, v);
    dev->op->wait(dev);
    bq_comm_reduce(comm, host.data, v.rows * v.cols, MPI_FLOAT, op);
    view_put(&s, host, v);
}

void bq_comm_stage_max(const bq_comm *comm, bq_dev *dev, bq_mat v) { reduce(comm, dev, v, MPI_MAX); }
void bq_comm_fill_scales(const bq_comm *comm, bq_dev *dev, bq_mat v) { reduce(comm, dev, v, MPI_SUM); }
