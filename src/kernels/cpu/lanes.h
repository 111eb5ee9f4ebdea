/* SPDX-License-Identifier: Apache-2.0 */
/* lanes.h - shared by the files that are compiled for AVX-512 (CMakeLists.txt). */
#ifndef BQ_LANES_H
#define BQ_LANES_H

#include <immintrin.h>
#include <stdint.h>

#define LANES  16 /* words of 32 bits in a vector */
#define INLINE static inline __attribute__((always_inline))

/* A mask of the first n words; n may be below 0 or above LANES. */
INLINE __mmask16 lanes(int64_t n) { return (__mmask16)(n >= LANES ? 0xffff : n > 0 ? (1u << n) - 1 : 0); }

/* Interleave: cvtne2ps leaves two halves of 16 bf16; element i of both halves becomes one word. */
INLINE __m512i woven(__m512i halves) {
    return _mm512_permutexvar_epi16(_mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9,
                                                     24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
                                                     16, 0),
                                    halves);
}

#endif
