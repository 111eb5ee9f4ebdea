/* SPDX-License-Identifier: Apache-2.0 */
/* nccl.h - shadow of NVIDIA's header: grouped sends and receives over MPI, which run when the stream does. */
#ifndef BQ_SIMT_NCCL_H
#define BQ_SIMT_NCCL_H

#include "cuda_runtime.h"

enum ncclResult_t { ncclSuccess = 0, ncclSystemError = 2, ncclInProgress = 7 };
enum ncclDataType_t { ncclFloat = 7 };
typedef struct ncclComm *ncclComm_t;
struct ncclUniqueId {
    char internal[128];
};

const char *ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
/* Here: collective over MPI_COMM_WORLD. */
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);

#endif
