/* mma.cuh - products on tensor cores.  All PTX of the project is in this file.
 *
 * A step multiplies 8 words along the sum: a warp has d (16 x 8) += a (16 x 8 words) b (8 words x 8).  A word
 * is one number in tf32, or two neighbours along the sum in bf16.  Lane 4 g + t has
 *     d(g, 2 t), d(g, 2 t + 1), d(g + 8, 2 t), d(g + 8, 2 t + 1)
 *     a(g, t), a(g + 8, t), a(g, t + 4), a(g + 8, t + 4)
 *     b(t, g), b(t + 4, g)
 * Sums are in f32, but tensor cores may cut where a float would be rounded, so long sums are made of short
 * ones (tiles.cuh).  Without a GPU the emulator multiplies, with the worst rounding that is allowed. */
#ifndef BQ_MMA_CUH
#define BQ_MMA_CUH

#include "kernels/cuda/cuda.h"

/* x rounded to tf32: 10 bits behind the point, to nearest, ties away from zero.  A NaN in the lower bits
 * would become a number, so this is for numbers; bq_word_tf32 keeps a NaN. */
static inline __device__ uint32_t bq_nearest_tf32(float x) { return (bq_bits(x) + 0x1000u) & ~0x1fffu; }
static inline __device__ uint32_t bq_word_tf32(float x) { return x == x ? bq_nearest_tf32(x) : bq_bits(x); }

/* Two numbers rounded to bf16, to nearest even; `first` comes first in memory. */
static inline __device__ uint32_t bq_word_bf16(float first, float second) {
#ifdef __CUDACC__
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
#else
    return (uint32_t)bq_to_bf16(second) << 16 | bq_to_bf16(first);
#endif
}

static inline __device__ void bq_mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    simt::mma(d, a, b, 1, __FILE__, __LINE__);
#endif
}

static inline __device__ void bq_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    simt::mma(d, a, b, 2, __FILE__, __LINE__);
#endif
}

/* The words of an operand as tensor cores take them.  In the way F32 words are floats, each the sum of two
 * numbers in tf32: hi is x rounded to nearest, and lo = x - hi, which is exact, has at most 12 bits and a sign,
 * of which a tensor core reads 11.  So hi + lo is x to 2^-23 of its size.  The other ways use hi alone. */
template <int N> struct bq_parts {
    uint32_t hi[N], lo[N];
};
template <bq_compute WAY, int N> static inline __device__ bq_parts<N> bq_parts_of(const uint32_t (&words)[N]) {
    bq_parts<N> p;
    for (int i = 0; i < N; i++) {
        const float x = bq_float(words[i]);
        p.hi[i] = WAY == BQ_COMPUTE_F32 ? bq_nearest_tf32(x) : words[i];
        p.lo[i] = WAY == BQ_COMPUTE_F32 ? bq_bits(x - bq_float(p.hi[i])) : 0;
    }
    return p;
}

/* d += a b for one step.  In the way F32 by three products, the small ones first; the product of the two lo
 * parts is below 2^-24 of the whole and left out. */
template <bq_compute WAY>
static inline __device__ void bq_mma(float (&d)[4], const bq_parts<4> &a, const bq_parts<2> &b) {
    if constexpr (WAY == BQ_COMPUTE_BF16) {
        bq_mma_bf16(d, a.hi, b.hi);
    } else {
        if constexpr (WAY == BQ_COMPUTE_F32) {
            bq_mma_tf32(d, a.lo, b.hi);
            bq_mma_tf32(d, a.hi, b.lo);
        }
        bq_mma_tf32(d, a.hi, b.hi);
    }
}

#endif
