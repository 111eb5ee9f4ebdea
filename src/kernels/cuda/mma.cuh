/* SPDX-License-Identifier: Apache-2.0 */
/* mma.cuh - what nvcc has and the emulator of tests/simt has in its own way: it has its own file of this
 * name. All PTX of the project is here.
 *
 * A step multiplies 8 words along the sum: a warp has d (16 x 8) += a (16 x 8 words) b (8 words x 8).  A word
 * is one number in tf32, or two neighbours along the sum in bf16.  Lane 4 g + t has
 *     d(g, 2 t), d(g, 2 t + 1), d(g + 8, 2 t), d(g + 8, 2 t + 1)
 *     a(g, t), a(g + 8, t), a(g, t + 4), a(g + 8, t + 4)
 *     b(t, g), b(t + 4, g)
 * Sums are in f32, but tensor cores may cut where a float would be rounded, so long sums are made of short
 * ones (tiles.cuh). */
#ifndef BQ_MMA_CUH
#define BQ_MMA_CUH

#include "kernels/cuda/num.cuh"

/* Where dynamic shared memory begins, in a kernel. */
#define BQ_SHARED(name) extern __shared__ __align__(16) uint32_t name[]
/* How often the next loop is unrolled: wholly where no number is given, which a loop over an array in
 * registers needs. */
#define BQ_PRAGMA(text) _Pragma(#text)
#define BQ_UNROLL(...)  BQ_PRAGMA(unroll __VA_ARGS__)

/* Two numbers rounded to bf16, to nearest even; `first` comes first in memory. */
static inline __device__ uint32_t bq_word_bf16(float first, float second) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
}

static inline __device__ void bq_mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static inline __device__ void bq_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
