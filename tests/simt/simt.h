/* SPDX-License-Identifier: Apache-2.0 */
/* simt.h - CUDA kernels on the host: every thread of a block is a fiber, blocks run one after another.
 *
 * A thread runs until it meets a barrier or a warp exchange.  When nobody can run, either a barrier is
 * complete (all threads wait at one line) or the kernel is wrong: each thread's file and line is printed and
 * the program ends.  A thread that meets nothing costs no switch.  One launch at a time, from any thread. */
#ifndef BQ_SIMT_H
#define BQ_SIMT_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim; /* set at every switch */

namespace simt {

enum order { FORWARD, REVERSE, SHUFFLED }; /* who runs first between barriers, and in which order blocks do */
extern order schedule;

enum { WARP = 32, MAX_THREADS = 1024 };

void launch(dim3 grid, dim3 block, const std::function<void()> &body, size_t shared = 0);

/* The block's dynamic shared memory: 0xff before a block begins, so that floats nobody set are NaN. */
void *dynamic_shared();

/* What a kernel's thread calls: wait for the block, or offer a value to the lanes of a mask and get theirs.
 */
void barrier(const char *file, int line);
const uint64_t *meet(unsigned mask, uint64_t value, const char *file, int line);
[[noreturn]] void die(const char *why);
unsigned lane();

template <class T> inline uint64_t pack(T v) {
    static_assert(sizeof(T) <= 8, "a warp exchange moves at most 8 bytes");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    return u;
}
template <class T> inline T pick(const uint64_t *values, unsigned from) {
    T v;
    memcpy(&v, &values[from], sizeof v);
    return v;
}
template <class T> inline T shfl(unsigned m, T v, unsigned from, const char *file, int line) {
    return pick<T>(meet(m, pack(v), file, line), from % WARP);
}
template <class T> inline T shfl_xor(unsigned m, T v, unsigned x, const char *file, int line) {
    return pick<T>(meet(m, pack(v), file, line), (lane() ^ x) % WARP);
}
template <class T> inline T shfl_down(unsigned m, T v, unsigned d, const char *file, int line) {
    const uint64_t *values = meet(m, pack(v), file, line);
    return lane() + d < WARP ? pick<T>(values, lane() + d) : v;
}
inline unsigned ballot(unsigned m, bool p, const char *file, int line) {
    const uint64_t *values = meet(m, p, file, line);
    unsigned bits = 0;
    for (unsigned k = 0; k < WARP; k++) bits |= (m >> k & (unsigned)values[k]) << k;
    return bits;
}

/* d += a b by the tensor cores of a warp (tensor_core.h), words and lanes as in kernels/cuda/mma.cuh.  A word
 * is a float, of which tf32's bits are read, or with `numbers` 2 two numbers in bf16. */
void mma(float *d, const uint32_t *a, const uint32_t *b, int numbers, const char *file, int line);

} // namespace simt

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __constant__              static
#define __shared__                static
#define __syncthreads()           simt::barrier(__FILE__, __LINE__)
#define __syncwarp()              ((void)simt::meet(~0u, 0, __FILE__, __LINE__))
#define __shfl_sync(m, v, s)      simt::shfl(m, v, s, __FILE__, __LINE__)
#define __shfl_xor_sync(m, v, x)  simt::shfl_xor(m, v, x, __FILE__, __LINE__)
#define __shfl_down_sync(m, v, d) simt::shfl_down(m, v, d, __FILE__, __LINE__)
#define __ballot_sync(m, p)       simt::ballot(m, p, __FILE__, __LINE__)
template <class T> static inline T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}

#endif
