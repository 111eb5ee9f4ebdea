/* SPDX-License-Identifier: Apache-2.0 */
/* The cuda backend: how a device is opened, closed and waited for, and the table of its ops. */
#include "kernels/cuda/cuda_ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

extern "C" int bq_cuda_devices(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

extern "C" size_t bq_cuda_memory(int number) {
    const int devices = bq_cuda_devices();
    size_t available = 0, total = 0;
    if (devices == 0) return 0;
    BQ_CUDA(cudaSetDevice(number % devices));
    BQ_CUDA(cudaMemGetInfo(&available, &total));
    return available;
}

extern "C" void *bq_cuda_stream(const bq_dev *dev) { return ((const bq_cuda *)dev->impl)->stream; }

/* A part of the numerics class: raised when the bits of an op that is not `bitwise` change. */
enum { KERNELS = 2 };

static void describe(bq_dev *dev) {
    bq_cuda *cuda = bq_cuda_of(dev);
    int major, minor, blas;
    BQ_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->device));
    BQ_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->device));
    BQ_CUBLAS(cublasGetVersion(cuda->blas, &blas));
    snprintf(dev->name, sizeof dev->name, "cuda sm_%d%d cuBLAS %d kernels %d", major, minor, blas, KERNELS);
}

static int cuda_open(bq_dev *dev, int number, size_t mem) {
    const int devices = bq_cuda_devices();
    if (devices == 0) {
        dev->op = NULL;
        return bq_refuse(BQ_USAGE, "no CUDA device here: use the cpu");
    }
    bq_cuda *cuda = new bq_cuda();
    dev->impl = cuda;
    const char *graph = getenv("BQ_CUDA_GRAPH");
    cuda->plain = graph && strcmp(graph, "0") == 0;
    cuda->device = number % devices;
    BQ_CUDA(cudaSetDevice(cuda->device));
    BQ_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    BQ_CUDA(cudaStreamCreateWithFlags(&cuda->ahead, cudaStreamNonBlocking));
    BQ_CUDA(cudaEventCreateWithFlags(&cuda->copied, cudaEventDisableTiming));
    BQ_CUDA(cudaEventCreateWithFlags(&cuda->called, cudaEventDisableTiming));
    BQ_CUDA(cudaMalloc(&cuda->workspace, BQ_CUDA_WORKSPACE));
    BQ_CUDA(cudaMalloc(&cuda->results, BQ_CUDA_RESULTS * sizeof *cuda->results));
    BQ_CUDA(cudaMallocHost(&cuda->landed, BQ_CUDA_RESULTS * sizeof *cuda->landed));
    BQ_CUBLAS(cublasCreate(&cuda->blas));
    BQ_CUBLAS(cublasSetStream(cuda->blas, cuda->stream));
    BQ_CUBLAS(cublasSetWorkspace(cuda->blas, cuda->workspace, BQ_CUDA_WORKSPACE));
    BQ_CUBLAS(cublasSetMathMode(cuda->blas, CUBLAS_PEDANTIC_MATH));
    void *base = NULL;
    const cudaError_t error = cudaMalloc(&base, mem);
    BQ_CHECK(error == cudaSuccess, "%zu bytes on CUDA device %d: %s", mem, cuda->device,
             cudaGetErrorString(error));
    bq_arena_adopt(&dev->mem, base, mem, BQ_DEVICE);
    dev->computes =
        1u << BQ_COMPUTE_F32 | 1u << BQ_COMPUTE_FP16X2 | 1u << BQ_COMPUTE_TF32 | 1u << BQ_COMPUTE_BF16;
    describe(dev);
    return BQ_OK;
}

static void cuda_close(bq_dev *dev) {
    bq_cuda *cuda = bq_cuda_of(dev);
    bq_cuda_forget(dev);
    BQ_CUDA(cudaStreamSynchronize(cuda->stream));
    BQ_CUDA(cudaStreamSynchronize(cuda->ahead));
    BQ_CUBLAS(cublasDestroy(cuda->blas));
    void *base = dev->mem.base;
    bq_arena_close(&dev->mem);
    BQ_CUDA(cudaFree(base));
    BQ_CUDA(cudaFreeHost(cuda->stage));
    BQ_CUDA(cudaFreeHost(cuda->landed));
    BQ_CUDA(cudaFree(cuda->results));
    BQ_CUDA(cudaFree(cuda->workspace));
    BQ_CUDA(cudaEventDestroy(cuda->called));
    BQ_CUDA(cudaEventDestroy(cuda->copied));
    BQ_CUDA(cudaStreamDestroy(cuda->ahead));
    BQ_CUDA(cudaStreamDestroy(cuda->stream));
    delete cuda;
}

/* It polls, so that a rank that waits for long uses no core and can watch the other ranks. */
static void cuda_wait(bq_dev *dev) {
    bq_cuda *cuda = bq_cuda_of(dev);
    BQ_CHECK(!cuda->recording, "a wait among ops that are recorded");
    if (cuda->nresults)
        BQ_CUDA(cudaMemcpyAsync(cuda->landed, cuda->results, (size_t)cuda->nresults * sizeof *cuda->landed,
                                cudaMemcpyDeviceToHost, cuda->stream));
    cudaError_t state;
    for (int tries = 0; (state = cudaStreamQuery(cuda->stream)) == cudaErrorNotReady; tries++) {
        const struct timespec moment = {0, 20000};
        if (bq_dev_waiting && tries % 64 == 0) bq_dev_waiting();
        if (tries > 1000) nanosleep(&moment, NULL);
    }
    BQ_CUDA(state);
    const double *from = cuda->landed;
    for (int i = 0; i < cuda->npending; from += cuda->pending[i++].count)
        memcpy(cuda->pending[i].to, from, (size_t)cuda->pending[i].count * sizeof *from);
    cuda->nresults = cuda->npending = 0;
}

/* It waits first: copies from and to the memory that it handed out before are done then. */
static void *cuda_stage(bq_dev *dev, size_t bytes) {
    bq_cuda *cuda = bq_cuda_of(dev);
    cuda_wait(dev);
    if (bytes <= cuda->stage_size) return cuda->stage;
    BQ_CUDA(cudaFreeHost(cuda->stage));
    BQ_CUDA(cudaMallocHost(&cuda->stage, bytes));
    cuda->stage_size = bytes;
    return cuda->stage;
}

static void *cuda_pin(bq_dev *dev, size_t bytes) {
    void *memory = NULL;
    (void)dev;
    return !bq_fault("pin") && cudaMallocHost(&memory, bytes + 1) == cudaSuccess ? memory : NULL;
}

static void cuda_unpin(bq_dev *dev, void *memory) {
    cuda_wait(dev);
    BQ_CUDA(cudaFreeHost(memory));
}

double *bq_cuda_result(bq_dev *dev, double *to, int64_t count) {
    bq_cuda *cuda = bq_cuda_of(dev);
    BQ_CHECK(count <= BQ_CUDA_RESULTS, "%ld results of one op", (long)count);
    if (cuda->npending == BQ_CUDA_PENDING || cuda->nresults + count > BQ_CUDA_RESULTS) cuda_wait(dev);
    cuda->pending[cuda->npending].to = to;
    cuda->pending[cuda->npending++].count = count;
    cuda->nresults += count;
    return cuda->results + cuda->nresults - count;
}

#define OP(type, name, ...) .name = bq_cuda_##name,
extern "C" const bq_ops bq_ops_cuda = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .wait = cuda_wait,
    .replay = bq_cuda_replay,
    .recorded = bq_cuda_recorded,
    .forget = bq_cuda_forget,
    .stage = cuda_stage,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .put = bq_cuda_put,
    .get = bq_cuda_get,
    .put_ahead = bq_cuda_put_ahead,
    .arrived = bq_cuda_arrived,
    .join = bq_cuda_join,
#include "kernels/ops.def"
};
