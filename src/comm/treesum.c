#include "comm/treesum.h"

#include "base/die.h"
#include "base/meter.h"
#include "comm/nccl.h"
#include "comm/staged.h"

#include <limits.h>

/* May the node to the right join the one to the left? */
static bool siblings(int level, int64_t index, int level2, int64_t index2) {
    return level == level2 && index % 2 == 0 && index2 == index + 1;
}

/* The nodes that leaves [first, first + count) end as; returns how many, *most: alive at a time, with the
 * leaf coming in. */
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

/* Put a finished node behind the others and merge while there are siblings.  A merged node's buffer is free
 * again when it is one of the sum's own. */
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

/* m as floats: of f64 each travels as a pair, bits as they are. */
static bq_mat floats(bq_mat m) {
    if (m.type == BQ_F64) m.cols *= 2, m.ld *= 2, m.type = BQ_F32;
    return m;
}

enum { MAX_THEIRS = 1024, MAX_PENDING = 4096 };
enum { F32 = sizeof(float) };

/* Staging memory of an exchange: my nodes, and what comes from the others. */
static size_t staging(const bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows) {
    int64_t cols = floats(sum->buffer[0]).cols;
    size_t bytes = (size_t)sum->nodes * bq_stage_need(rows.total, cols, BQ_F32);
    for (int r = 0, most; r < comm->nreplica; r++)
        bytes += (size_t)shape(leaves[r].first, leaves[r].count, NULL, &most) *
                 bq_stage_need(rows.count, cols, BQ_F32);
    return bytes;
}

/* The nodes that come from the others, in the order of their leaves, with room for my rows of them. */
static int expect(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows,
                  bq_tree_node *theirs) {
    int at = 0, most;
    int64_t cols = floats(sum->buffer[0]).cols;
    for (int r = 0; r < comm->nreplica; r++) {
        bq_tree_node node[BQ_TREE_NODES];
        int n = r == comm->replica ? 0 : shape(leaves[r].first, leaves[r].count, node, &most);
        BQ_CHECK((bq_shard_of(rows.total, r, comm->nreplica).count + 1) * cols < 1 << 30 &&
                     at + n <= MAX_THEIRS && at + n + sum->nodes * comm->nreplica <= MAX_PENDING,
                 "an exchange of %ld x %ld between %d replicas", (long)rows.total, (long)cols,
                 comm->nreplica);
        for (int k = 0; k < n; k++, at++) {
            theirs[at] = node[k];
            theirs[at].sum =
                bq_arena_push(&sum->dev->mem, rows.count, sum->buffer[0].cols, sum->buffer[0].type);
        }
    }
    return at;
}

static int nodes_of(const bq_shard *leaves, int replica) {
    int most;
    return shape(leaves[replica].first, leaves[replica].count, NULL, &most);
}

/* From GPU to GPU: what a pair of replicas exchanges is in the same order on both sides. */
static void exchange_nccl(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows,
                          const bq_tree_node *theirs) {
    int64_t cols = floats(sum->buffer[0]).cols;
    bq_nccl_start(comm->nccl);
    for (int r = 0, at = 0; r < comm->nreplica; r++) {
        if (r == comm->replica) continue;
        bq_shard out = bq_shard_of(rows.total, r, comm->nreplica);
        for (int k = nodes_of(leaves, r); k > 0; k--)
            bq_nccl_receive(comm->nccl, r, theirs[at++].sum.data, rows.count * cols);
        for (int k = 0; k < sum->nodes; k++)
            bq_nccl_send(comm->nccl, r, bq_mat_at(floats(sum->node[k].sum), out.first, 0), out.count * cols);
    }
    bq_nccl_end(comm->nccl);
}

/* Send each other replica its rows of my nodes; receive my rows of theirs. */
static void exchange(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows,
                     bq_tree_node *theirs) {
    MPI_Request request[MAX_PENDING];
    bq_mat host[BQ_TREE_NODES], landed[MAX_THEIRS];
    int pending = 0, all = expect(sum, comm, leaves, rows, theirs);
    int64_t cols = floats(sum->buffer[0]).cols;
    if (comm->nreplica == 1) return;
    bq_spent.received += all * rows.count * cols * F32;
    bq_spent.sent += sum->nodes * (rows.total - rows.count) * cols * F32;
    if (comm->nccl) {
        exchange_nccl(sum, comm, leaves, rows, theirs);
        return;
    }
    bq_stage stage = bq_stage_open(sum->dev, staging(sum, comm, leaves, rows));
    for (int k = 0; k < sum->nodes; k++) host[k] = bq_stage_get(&stage, floats(sum->node[k].sum));
    for (int k = 0; k < all; k++) landed[k] = bq_stage_room(&stage, floats(theirs[k].sum));
    sum->dev->op->wait(sum->dev);
    for (int r = 0, at = 0; r < comm->nreplica; r++) {
        if (r == comm->replica) continue;
        bq_shard out = bq_shard_of(rows.total, r, comm->nreplica);
        for (int k = 0; k < nodes_of(leaves, r); k++)
            MPI_Irecv(landed[at++].data, (int)(rows.count * cols), MPI_FLOAT, r, k, comm->stage,
                      &request[pending++]);
        for (int k = 0; k < sum->nodes; k++)
            MPI_Isend(bq_mat_at(host[k], out.first, 0), (int)(out.count * cols), MPI_FLOAT, r, k, comm->stage,
                      &request[pending++]);
    }
    bq_comm_wait(comm, request, pending);
    for (int k = 0; k < all; k++) bq_stage_put(&stage, landed[k], floats(theirs[k].sum));
}

bq_mat bq_treesum_end(bq_treesum *sum, const bq_comm *comm, const bq_shard *leaves, bq_shard rows) {
    bq_tree_node mine[BQ_TREE_NODES], theirs[MAX_THEIRS];
    int count = sum->nodes, at = 0;
    for (int k = 0; k < count; k++) mine[k] = sum->node[k];
    exchange(sum, comm, leaves, rows, theirs);
    sum->nodes = 0;
    for (int r = 0; r < comm->nreplica; r++) {
        int n = r == comm->replica ? count : nodes_of(leaves, r);
        for (int k = 0; k < n; k++) {
            bq_tree_node node = r == comm->replica ? mine[k] : theirs[at++];
            if (r == comm->replica) node.sum = bq_mat_rows(node.sum, rows.first, rows.count);
            push(sum, node, false);
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

void bq_comm_gather_slices(const bq_comm *comm, bq_dev *dev, bq_mat m, const int64_t *first) {
    int count[BQ_REPLICAS], place[BQ_REPLICAS];
    if (comm->nreplica == 1) return;
    m = floats(m);
    BQ_CHECK(m.ld == m.cols && m.type == BQ_F32 && m.rows * m.cols < INT_MAX, "gather of %ld x %ld rows",
             (long)m.rows, (long)m.cols);
    for (int r = 0; r < comm->nreplica; r++)
        count[r] = (int)((first[r + 1] - first[r]) * m.cols), place[r] = (int)(first[r] * m.cols);
    int64_t mine = count[comm->replica];
    bq_spent.sent += mine * (comm->nreplica - 1) * F32;
    bq_spent.received += (m.rows * m.cols - mine) * F32;
    MPI_Request request;
    int64_t own = first[comm->replica], rows = first[comm->replica + 1] - own;
    if (comm->nccl) {
        gather_nccl(comm, m, first);
        return;
    }
    bq_stage stage = bq_stage_open(dev, bq_stage_need(m.rows, m.cols, BQ_F32));
    bq_mat host = bq_stage_room(&stage, m);
    if (host.data != m.data) dev->op->get(dev, bq_mat_rows(m, own, rows), bq_mat_rows(host, own, rows));
    dev->op->wait(dev);
    MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, host.data, count, place, MPI_FLOAT, comm->stage, &request);
    bq_comm_wait(comm, &request, 1);
    bq_stage_put(&stage, host, m);
}

void bq_comm_gather_rows(const bq_comm *comm, bq_dev *dev, bq_mat m) {
    int64_t first[BQ_REPLICAS + 1];
    for (int r = 0; r < comm->nreplica; r++) first[r] = bq_shard_of(m.rows, r, comm->nreplica).first;
    first[comm->nreplica] = m.rows;
    bq_comm_gather_slices(comm, dev, m, first);
}

/* A sum or maximum of so many bytes over the stage: given and got once. */
static void count_reduction(int64_t bytes) { bq_spent.sent += bytes, bq_spent.received += bytes; }

void bq_comm_fill(const bq_comm *comm, double *values, int count) {
    MPI_Request request;
    if (comm->nreplica == 1) return;
    count_reduction(count * (int64_t)sizeof *values);
    MPI_Iallreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, comm->stage, &request);
    bq_comm_wait(comm, &request, 1);
}

/* v = op of everybody's v, element by element. */
static void reduce(const bq_comm *comm, bq_dev *dev, bq_mat v, MPI_Op op) {
    MPI_Request request;
    if (comm->nreplica == 1) return;
    BQ_CHECK(v.ld == v.cols && v.type == BQ_F32 && v.rows * v.cols < INT_MAX, "a reduction of %ld x %ld",
             (long)v.rows, (long)v.cols);
    bq_stage stage = bq_stage_open(dev, bq_stage_need(v.rows, v.cols, BQ_F32));
    bq_mat host = bq_stage_get(&stage, v);
    dev->op->wait(dev);
    count_reduction(v.rows * v.cols * F32);
    MPI_Iallreduce(MPI_IN_PLACE, host.data, (int)(v.rows * v.cols), MPI_FLOAT, op, comm->stage, &request);
    bq_comm_wait(comm, &request, 1);
    bq_stage_put(&stage, host, v);
}

void bq_comm_stage_max(const bq_comm *comm, bq_dev *dev, bq_mat v) { reduce(comm, dev, v, MPI_MAX); }

void bq_comm_fill_scales(const bq_comm *comm, bq_dev *dev, bq_mat v) { reduce(comm, dev, v, MPI_SUM); }
