/* SPDX-License-Identifier: Apache-2.0 */
/* rng.h - random numbers without state: Philox4x32-10 (Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011).
 *
 * A random number is a function of the place where it is used.  So it is the same on every rank, in every
 * thread and after every restart. */
#ifndef BQ_RNG_H
#define BQ_RNG_H

#include <stdint.h>

/* The place where numbers are drawn.  Limits: block < 65536; phase and sweep < 256;
 * iteration and sample < 2^32. */
typedef struct {
    uint64_t seed;
    uint32_t sweep, phase, block, iteration, sample;
} bq_rng_key;

/* Words 4 * quad ... 4 * quad + 3, of 32 bits each, at a place:
 *   counter = (quad, sample, iteration, block << 16 | phase << 8 | sweep)
 *   key     = (low half, high half of seed) */
static inline void bq_philox(bq_rng_key at, uint32_t quad, uint32_t out[4]) {
    uint32_t c0 = quad, c1 = at.sample, c2 = at.iteration;
    uint32_t c3 = at.block << 16 | (at.phase & 255u) << 8 | (at.sweep & 255u);
    uint32_t k0 = (uint32_t)at.seed, k1 = (uint32_t)(at.seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

#endif
