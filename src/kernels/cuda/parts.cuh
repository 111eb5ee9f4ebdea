/* SPDX-License-Identifier: Apache-2.0 */
/* parts.cuh - operands of tensor cores in the ways of bq_compute, and the product of a step. */
#ifndef BQ_PARTS_CUH
#define BQ_PARTS_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/mma.cuh"

/* x rounded to tf32: 10 bits behind the point, to nearest, ties away from zero.  A NaN in the lower bits
 * would become a number, so this is for numbers; bq_word_tf32 keeps a NaN. */
static inline __device__ uint32_t bq_nearest_tf32(float x) { return (bq_bits(x) + 0x1000u) & ~0x1fffu; }
static inline __device__ uint32_t bq_word_tf32(float x) { return x == x ? bq_nearest_tf32(x) : bq_bits(x); }

/* The words of an operand as tensor cores take them.  In the way F32 words are floats, each the sum of two
 * numbers in tf32: hi is x rounded to nearest, and lo = x - hi, which is exact, has at most 12 bits and a
 * sign, of which a tensor core reads 11.  So hi + lo is x to 2^-23 of its size.  The other ways use hi
 * alone. */
template <int N> struct bq_parts { uint32_t hi[N], lo[N]; };
template <bq_compute WAY, int N>
static inline __device__ bq_parts<N> bq_parts_of(const uint32_t (&words)[N]) {
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
