/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated device: one, without compute capability; SIMT_ONE_GPU: one for all processes; SIMT_MEMORY: its
 * bytes. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <unistd.h>

const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorNotReady: return "device not ready";
    }
    return "unknown error";
}
cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) { return d == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetDevice(int *d) {
    *d = 0;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *name, int size, int) {
    snprintf(name, (size_t)size, "simt:%d", getenv("SIMT_ONE_GPU") ? 0 : (int)getpid());
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int device) {
    *value = 0; /* compute capability 0.0: emulated */
    return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
static std::map<const void *, size_t>
    shared_limits; /* of kernels that asked for more than every kernel has */
bool simt::shared_allowed(const void *kernel, size_t bytes) {
    const auto limit = shared_limits.find(kernel);
    return bytes <= (limit == shared_limits.end() ? 48 << 10 : limit->second);
}
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute, int value) {
    if (value > 99 << 10) return cudaErrorInvalidValue;
    shared_limits[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    const char *bytes = getenv("SIMT_MEMORY");
    *available = *total = bytes ? (size_t)atoll(bytes) : (size_t)8 << 30;
    return cudaSuccess;
}
