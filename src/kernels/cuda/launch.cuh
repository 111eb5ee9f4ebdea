/* SPDX-License-Identifier: Apache-2.0 */
/* launch.cuh - how kernels are launched, and common shapes of their grids. */
#ifndef BQ_LAUNCH_CUH
#define BQ_LAUNCH_CUH

#include "kernels/cuda/cuda.h"

enum { BQ_THREADS = 256 }; /* threads of a thread block, unless there is a reason for another number */

/* Launch a kernel on the device's stream, with so many bytes of dynamic shared memory.  Arguments are
 * converted to the kernel's parameters.  An empty grid launches nothing. */
template <class... P, class... A>
static inline void bq_launch_shared(bq_dev *dev, dim3 grid, unsigned threads, size_t shared,
                                    void (*kernel)(P...), A... args) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    if (shared > 48 << 10) /* more than this has to be asked for */
        BQ_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared));
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = bq_cuda_of(dev)->stream;
    BQ_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...));
}

template <class... P, class... A>
static inline void bq_launch(bq_dev *dev, dim3 grid, unsigned threads, void (*kernel)(P...), A... args) {
    bq_launch_shared(dev, grid, threads, 0, kernel, args...);
}

static inline unsigned bq_pieces(int64_t n, int64_t each) { return (unsigned)((n + each - 1) / each); }

/* One thread for each element: x goes over the columns, y over the rows, which kernels take
 * in steps of gridDim.y. */
static inline dim3 bq_grid_elements(int64_t rows, int64_t cols) {
    return dim3(bq_pieces(cols, BQ_THREADS), (unsigned)(rows < 65535 ? rows : 65535));
}
static inline __device__ int64_t bq_column() { return (int64_t)blockIdx.x * BQ_THREADS + threadIdx.x; }

#endif
