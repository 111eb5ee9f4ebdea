/* SPDX-License-Identifier: Apache-2.0 */
/* num.h - number formats and functions that give the same bits everywhere.
 *
 * They use only + - * /, comparisons and operations on bits.  So every compiler that does not contract
 * a * b + c into one fused operation gives the same bits, on a CPU and on a GPU. */
#ifndef BQ_NUM_H
#define BQ_NUM_H

#include <stdint.h>
#include <string.h>

static inline uint32_t bq_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float bq_float(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline float bq_from_bf16(uint16_t h) { return bq_float((uint32_t)h << 16); }

/* To nearest, ties to even; NaN stays NaN. */
static inline uint16_t bq_to_bf16(float x) {
    uint32_t u = bq_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static inline float bq_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = h >> 10 & 31u, man = h & 0x3ffu;
    if (exp == 31) return bq_float(sign | 0x7f800000u | man << 13);
    if (exp) return bq_float(sign | (exp + 112) << 23 | man << 13);
    float v = (float)man * 0x1p-24f; /* zero and subnormal numbers */
    return sign ? -v : v;
}

/* FP8 with 4 bits of exponent: no infinities; all bits but the sign set: NaN. */
static inline float bq_from_e4m3(uint8_t h) {
    uint32_t sign = (uint32_t)(h & 0x80u) << 24, exp = h >> 3 & 15u, man = h & 7u;
    if (exp == 15 && man == 7) return bq_float(sign | 0x7fc00000u);
    if (exp) return bq_float(sign | (exp + 120) << 23 | man << 20);
    float v = (float)man * 0x1p-9f; /* zero and subnormal numbers */
    return sign ? -v : v;
}

/* To nearest, ties to even; from 65520 on it is infinity; NaN stays NaN. */
static inline uint16_t bq_to_f16(float x) {
    uint32_t u = bq_bits(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* subnormal in f16: adding 0.5 aligns the last bit with 2^-24 */
        return (uint16_t)(sign | (bq_bits(bq_float(a) + 0.5f) - 0x3f000000u));
    }
    return (uint16_t)(sign | (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13);
}

/* e^x by Cody-Waite reduction and a polynomial; error at most 2 ulp.  0 for x < -87.33; e^88 for x > 88.
 * There is no branch, so that loops over it vectorize; every vector width gives the same bits. */
static inline float bq_exp(float x) {
    float lo = x < -87.33f ? 1.0f : 0.0f; /* 1: the result is 0.  Not a branch, since loops must vectorize */
    x = x < -87.33f ? -87.33f : x;
    x = x > 88.0f ? 88.0f : x;
    float k = x * 1.44269504f + 12582912.0f; /* adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits */
    uint32_t n = bq_bits(k) - 0x4b400000u;
    k -= 12582912.0f;
    float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    float y = p * bq_float((n + 127u) << 23);
    return lo > 0 ? 0.0f : y;
}

/* tanh(x): a polynomial near 0, else from bq_exp; error at most 2 ulp.  No branch, as in bq_exp. */
static inline float bq_tanh(float x) {
    float z = x * x, a = x < 0 ? -x : x, p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    p = p * z * x + x;
    float far = 1.0f - 2.0f / (bq_exp(2 * a) + 1.0f);
    far = x < 0 ? -far : far;
    return a < 0.625f ? p : far;
}

/* x^(1/5) for x >= 0, as x z^4 with z = x^(-1/5).  The first guess of z divides the exponent by 5
 * and is at most 6 % off.  Then four Newton steps without a division: a step turns a relative
 * error e into about 3 e^2. */
static inline float bq_fifth_root(float x) {
    float z = bq_float(1278423859u - bq_bits(x) / 5u); /* the constant: 6 / 5 of the bits of 1.0 */
    for (int i = 0; i < 4; i++) z = z * (6.0f - x * z * z * z * z * z) * 0.2f;
    return x * z * z * z * z;
}

/* 1 / the mean of n numbers whose squares have that sum; 0 where they are all 0. */
static inline double bq_relative(double squares, int64_t n) { return squares == 0 ? 0 : (double)n / squares; }

#endif
