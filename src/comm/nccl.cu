/* SPDX-License-Identifier: Apache-2.0 */
#include <cuda_runtime.h>
#include <mpi.h>
#include <nccl.h>
#include <string.h>
#include <unistd.h>

extern "C" {
#include "base/die.h"
#include "comm/heartbeat.h"
#include "comm/nccl.h"
}

enum { PLACE = 96 }; /* bytes of a GPU's name: host name and bus id */

struct bq_nccl {
    ncclComm_t comm;
    cudaStream_t ops, stream;  /* the stream of the device's ops; that of the messages: the same one, or
                                  for `depth` one of its own */
    cudaEvent_t called, moved; /* depth: after the ops before the last start; after the
                                  messages of the last group */
};
static bq_nccl of_stage, of_depth; /* a rank has one device, so one of each is enough */

#define NCCL(call)                                                                                           \
    do {                                                                                                     \
        ncclResult_t result = (call);                                                                        \
        BQ_CHECK(result == ncclSuccess, "%s: %s", #call, ncclGetErrorString(result));                        \
    } while (0)
#define CUDA(call)                                                                                           \
    do {                                                                                                     \
        cudaError_t error = (call);                                                                          \
        BQ_CHECK(error == cudaSuccess, "%s: %s", #call, cudaGetErrorString(error));                          \
    } while (0)

/* Is every rank of the communicator on a GPU of its own? */
static bool apart(MPI_Comm line, int me, int all) {
    static char place[BQ_REPLICAS][PLACE];
    char *mine = place[me];
    int device;
    memset(place, 0, sizeof place);
    gethostname(mine, PLACE / 2);
    CUDA(cudaGetDevice(&device));
    CUDA(cudaDeviceGetPCIBusId(mine + strnlen(mine, PLACE / 2), PLACE / 2, device));
    MPI_Request request;
    MPI_Iallgather(MPI_IN_PLACE, 0, MPI_CHAR, place, PLACE, MPI_CHAR, line, &request);
    bq_comm_wait(&request, 1);
    for (int a = 0; a < all; a++)
        for (int b = 0; b < a; b++)
            if (memcmp(place[a], place[b], PLACE) == 0) return false;
    return true;
}

/* Connect the ranks of `line`: my stage, or my replica in all stages.  Either all ranks of world do, or none.
 * Collective over world. */
static bool meet(bq_nccl *nccl, const bq_comm *comm, MPI_Comm line, bq_dev *dev) {
    ncclUniqueId id = {};
    MPI_Request request;
    int me, all;
    MPI_Comm_rank(line, &me);
    MPI_Comm_size(line, &all);
    const bool can = dev->mem.place == BQ_DEVICE && all > 1 && all <= BQ_REPLICAS && apart(line, me, all);
    if (bq_comm_agree(comm, !can)) return false;
    if (me == 0) NCCL(ncclGetUniqueId(&id));
    MPI_Ibcast(&id, sizeof id, MPI_BYTE, 0, line, &request);
    bq_comm_wait(&request, 1);
    bq_heartbeat_within("ncclCommInitRank");
    NCCL(ncclCommInitRank(&nccl->comm, all, id, me));
    bq_heartbeat_within(NULL);
    nccl->ops = nccl->stream = (cudaStream_t)bq_cuda_stream(dev);
    return true;
}

extern "C" bq_nccl *bq_nccl_open(const bq_comm *comm, bq_dev *dev) {
    return meet(&of_stage, comm, comm->stage, dev) ? &of_stage : NULL;
}

/* The first message between two GPUs sets up their connection, and the host waits for the other rank inside
 * that call.  So send a first one here, where all ranks are present. */
static void connect_depth(const bq_comm *comm, bq_dev *dev) {
    const size_t mark = bq_arena_mark(&dev->mem);
    float *token = (float *)bq_arena_push(&dev->mem, 1, 2, BQ_F32).data;
    bq_nccl_start(&of_depth);
    if (comm->istage > 0) bq_nccl_receive(&of_depth, comm->istage - 1, token, 1);
    if (comm->istage + 1 < comm->nstage) bq_nccl_send(&of_depth, comm->istage + 1, token + 1, 1);
    bq_nccl_end(&of_depth);
    bq_nccl_join(&of_depth);
    dev->op->wait(dev);
    bq_arena_reset(&dev->mem, mark);
}

extern "C" bq_nccl *bq_nccl_open_depth(const bq_comm *comm, bq_dev *dev) {
    MPI_Comm line;
    bq_comm_split(comm, comm->replica, comm->istage, &line);
    const bool met = meet(&of_depth, comm, line, dev);
    MPI_Comm_free(&line);
    if (!met) return NULL;
    CUDA(cudaStreamCreateWithFlags(&of_depth.stream, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&of_depth.called, cudaEventDisableTiming));
    CUDA(cudaEventCreateWithFlags(&of_depth.moved, cudaEventDisableTiming));
    connect_depth(comm, dev);
    return &of_depth;
}

extern "C" void bq_nccl_close(bq_nccl *nccl) {
    if (!nccl) return;
    NCCL(ncclCommDestroy(nccl->comm));
    if (nccl->stream == nccl->ops) return;
    CUDA(cudaEventDestroy(nccl->moved));
    CUDA(cudaEventDestroy(nccl->called));
    CUDA(cudaStreamDestroy(nccl->stream));
}

extern "C" void bq_nccl_start(bq_nccl *nccl) {
    if (nccl->stream != nccl->ops) {
        CUDA(cudaEventRecord(nccl->called, nccl->ops));
        CUDA(cudaStreamWaitEvent(nccl->stream, nccl->called, 0));
    }
    NCCL(ncclGroupStart());
}

extern "C" void bq_nccl_send(bq_nccl *nccl, int peer, const float *data, int64_t count) {
    NCCL(ncclSend(data, (size_t)count, ncclFloat, peer, nccl->comm, nccl->stream));
}

extern "C" void bq_nccl_receive(bq_nccl *nccl, int peer, float *data, int64_t count) {
    NCCL(ncclRecv(data, (size_t)count, ncclFloat, peer, nccl->comm, nccl->stream));
}

extern "C" void bq_nccl_end(bq_nccl *nccl) {
    NCCL(ncclGroupEnd());
    if (nccl->stream != nccl->ops) CUDA(cudaEventRecord(nccl->moved, nccl->stream));
}

extern "C" void bq_nccl_join(bq_nccl *nccl) { CUDA(cudaStreamWaitEvent(nccl->ops, nccl->moved, 0)); }

extern "C" void bq_nccl_poll(bq_nccl *nccl) {
    ncclResult_t state = ncclSuccess;
    if (!nccl) return;
    NCCL(ncclCommGetAsyncError(nccl->comm, &state));
    if (state == ncclSuccess || state == ncclInProgress) return;
    ncclCommAbort(nccl->comm); /* frees the stream from operations that wait for another rank */
    BQ_DIE("NCCL: %s", ncclGetErrorString(state));
}
