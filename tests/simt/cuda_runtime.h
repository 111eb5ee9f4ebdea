/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_runtime.h - shadow of NVIDIA's header, for running .cu files on the host: the calls blockq uses.
 *
 * Put this folder first on g++'s include path.  Work on streams is lazy: it runs at the latest moment the API
 * allows, when the host waits for it, so that a forgotten event or wait leaves stale data behind.  Copies
 * from or to pageable memory behave as the manual says: the source is read at once, and a copy to the host
 * returns when it is done.  Device memory is out of the host's reach, has guard zones and is filled with
 * 0xff, so that floats nobody set are NaN; copies and kernel arguments are checked for the kind of memory
 * they point to.  A misuse prints one line and ends the program. */
#ifndef BQ_SIMT_CUDA_RUNTIME_H
#define BQ_SIMT_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tuple>
#include "simt.h"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorNotReady = 600
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;

const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int d);
cudaError_t cudaGetDevice(int *d);
cudaError_t cudaDeviceGetPCIBusId(char *name, int size,
                                  int d); /* one a process, or with SIMT_ONE_GPU one for all */
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaDeviceSynchronize(void);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s); /* not ready once, then everything runs */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags = 0);

/* Work on a stream that is captured does not run: the graph has it, with kernel arguments and factors as they
 * are now, and addresses whose contents are read at every launch.  Refused while capturing: waits, events,
 * pageable memory, allocations; and to end a graph that has not run yet. */
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t rows, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s);
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t rows, cudaStream_t s);

struct cudaLaunchAttribute; /* attributes are refused */
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

namespace simt {

/* Memory of the device (or pinned on the host), and whether n bytes lie in one piece of it. */
cudaError_t allocate(void **p, size_t n, bool device);
cudaError_t release(void *p, bool device);
bool on_device(const void *p, size_t n);
/* Where the bytes of an address lie: device memory has other addresses on the host.  What runs on a stream
 * reads and writes there. */
void *there(const void *p);

/* Put work on a stream; run all that stands before now. */
void enqueue(cudaStream_t s, std::function<void()> work);

/* What the host has launched; printed at the end of the program where SIMT_COUNT is set. */
struct counts {
    long kernels, graphs, waits;
    ~counts();
};
extern counts launched;

/* Addresses in a kernel's argument become what they are there; one of host memory ends the program. */
void move_argument(void *argument, size_t bytes);
bool launchable(const cudaLaunchConfig_t *c);
bool shared_allowed(const void *kernel, size_t bytes);
[[noreturn]] void misuse(const char *what);

} // namespace simt

/* Dynamic shared memory: 48 KiB, or as much as was asked for, up to 99 KiB, which each GPU from sm_80 on
 * has. */
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
    return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}

template <class T> inline cudaError_t cudaMalloc(T **p, size_t n) {
    return simt::allocate((void **)p, n, true);
}
template <class T> inline cudaError_t cudaMallocHost(T **p, size_t n) {
    return simt::allocate((void **)p, n, false);
}
inline cudaError_t cudaFree(void *p) { return simt::release(p, true); }
inline cudaError_t cudaFreeHost(void *p) { return simt::release(p, false); }

template <class T> inline T simt_argument(T argument) {
    __builtin_clear_padding(&argument); /* it may hold the rest of an old address */
    simt::move_argument(&argument, sizeof argument);
    return argument;
}

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *c, void (*kernel)(P...), A &&...a) {
    if (!simt::launchable(c)) return cudaErrorInvalidConfiguration;
    const std::tuple<P...> with{simt_argument<P>(static_cast<P>(a))...};
    if (!simt::shared_allowed((const void *)kernel, c->dynamicSmemBytes)) return cudaErrorInvalidValue;
    const dim3 grid = c->gridDim, block = c->blockDim;
    const size_t shared = c->dynamicSmemBytes;
    simt::launched.kernels++;
    simt::enqueue(c->stream, [=] {
        simt::launch(
            grid, block, [&] { std::apply(kernel, with); }, shared);
    });
    return cudaSuccess;
}

#endif
