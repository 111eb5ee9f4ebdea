#include <cuda_runtime.h>
#include <mpi.h>
#include <nccl.h>
#include <string.h>
#include <unistd.h>

extern "C" {
#include "base/die.h"
#include "comm/nccl.h"
}

enum { PLACE = 96 }; /* bytes of the name of a GPU: host and bus */

struct bq_nccl {
    ncclComm_t comm;
    cudaStream_t stream;
};
static bq_nccl joined; /* a rank has one device */

#define NCCL(call)                                                                                           \
    do {                                                                                                     \
        ncclResult_t result = (call);                                                                        \
        BQ_CHECK(result == ncclSuccess, "%s: %s", #call, ncclGetErrorString(result));                        \
    } while (0)

/* Is every replica of the stage on a GPU of its own? */
static bool apart(const bq_comm *comm) {
    static char place[BQ_REPLICAS][PLACE];
    char *mine = place[comm->replica];
    int device;
    cudaError_t error = cudaGetDevice(&device);
    memset(place, 0, sizeof place);
    gethostname(mine, PLACE / 2);
    if (error == cudaSuccess)
        error = cudaDeviceGetPCIBusId(mine + strnlen(mine, PLACE / 2), PLACE / 2, device);
    BQ_CHECK(error == cudaSuccess, "where a GPU is: %s", cudaGetErrorString(error));
    MPI_Request request;
    MPI_Iallgather(MPI_IN_PLACE, 0, MPI_CHAR, place, PLACE, MPI_CHAR, comm->stage, &request);
    bq_comm_wait(comm, &request, 1);
    for (int a = 0; a < comm->nreplica; a++)
        for (int b = 0; b < a; b++)
            if (memcmp(place[a], place[b], PLACE) == 0) return false;
    return true;
}

extern "C" bq_nccl *bq_nccl_open(const bq_comm *comm, bq_dev *dev) {
    ncclUniqueId id = {};
    const bool can = dev->mem.place == BQ_DEVICE && comm->nreplica > 1 && apart(comm);
    if (bq_comm_agree(comm, !can)) return NULL; /* all stages, or none */
    if (comm->replica == 0) NCCL(ncclGetUniqueId(&id));
    bq_comm_stage_bcast(comm, &id, sizeof id);
    NCCL(ncclCommInitRank(&joined.comm, comm->nreplica, id, comm->replica));
    joined.stream = (cudaStream_t)bq_cuda_stream(dev);
    return &joined;
}

extern "C" void bq_nccl_close(bq_nccl *nccl) {
    if (nccl) NCCL(ncclCommDestroy(nccl->comm));
}

extern "C" void bq_nccl_start(bq_nccl *nccl) {
    (void)nccl;
    NCCL(ncclGroupStart());
}

extern "C" void bq_nccl_send(bq_nccl *nccl, int replica, const float *data, int64_t count) {
    NCCL(ncclSend(data, (size_t)count, ncclFloat, replica, nccl->comm, nccl->stream));
}

extern "C" void bq_nccl_receive(bq_nccl *nccl, int replica, float *data, int64_t count) {
    NCCL(ncclRecv(data, (size_t)count, ncclFloat, replica, nccl->comm, nccl->stream));
}

extern "C" void bq_nccl_end(bq_nccl *nccl) {
    (void)nccl;
    NCCL(ncclGroupEnd());
}

extern "C" void bq_nccl_poll(bq_nccl *nccl) {
    ncclResult_t state = ncclSuccess;
    if (!nccl) return;
    NCCL(ncclCommGetAsyncError(nccl->comm, &state));
    if (state == ncclSuccess || state == ncclInProgress) return;
    ncclCommAbort(nccl->comm); /* the stream lets go of what waits for a peer */
    BQ_DIE("NCCL: %s", ncclGetErrorString(state));
}
