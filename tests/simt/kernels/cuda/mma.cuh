/* SPDX-License-Identifier: Apache-2.0 */
/* mma.cuh - in the place of src/kernels/cuda/mma.cuh on the emulator. */
#ifndef SIMT_MMA_CUH
#define SIMT_MMA_CUH

#include "kernels/cuda/num.cuh"

#define BQ_SHARED(name) uint32_t *const name = (uint32_t *)simt::dynamic_shared()
#define BQ_UNROLL(...)

/* Two numbers rounded to bf16, to nearest even; `first` comes first in memory. */
static inline __device__ uint32_t bq_word_bf16(float first, float second) {
    return (uint32_t)bq_to_bf16(second) << 16 | bq_to_bf16(first);
}

static inline __device__ void bq_mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    simt::mma(d, a, b, 1, __FILE__, __LINE__);
}

static inline __device__ void bq_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    simt::mma(d, a, b, 2, __FILE__, __LINE__);
}

#endif
