/* SPDX-License-Identifier: Apache-2.0 */
/* power.h - logarithm and power with the same bits everywhere, to about 14 digits.
 *
 * They use only + - * /, rint and operations on bits, like num.h.  They serve the few places where the last
 * bit of a C library's function would decide which weights a model gets. */
#ifndef BQ_POWER_H
#define BQ_POWER_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* log2(x) for x positive, finite and not subnormal: x = 2^e m, and log m = 2 atanh((m - 1) / (m + 1)). */
static inline double bq_log2(double x) {
    uint64_t u;
    memcpy(&u, &x, 8);
    int64_t e = (int64_t)(u >> 52) - 1023;
    u = (u & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    double m;
    memcpy(&m, &u, 8);
    if (m > 1.4142135623730951) m *= 0.5, e++;
    double f = (m - 1) / (m + 1), f2 = f * f, sum = 0;
    for (int k = 25; k > 0; k -= 2) sum = sum * f2 + 1.0 / k;
    return (double)e + 2 * f * sum * 1.4426950408889634;
}

/* 2^y; y is clamped to [-1000, 1000]. */
static inline double bq_exp2(double y) {
    y = y > 1000 ? 1000 : y < -1000 ? -1000 : y;
    double whole = rint(y), f = (y - whole) * 0.6931471805599453, sum = 1, power;
    for (int k = 16; k > 0; k--) sum = 1 + sum * f / k;
    uint64_t u = (uint64_t)(1023 + (int64_t)whole) << 52;
    memcpy(&power, &u, 8);
    return sum * power;
}

/* x^r for x >= 0, r >= 0; exact for r = 0 (also 0^0 = 1) and for r = 1. */
static inline double bq_power(double x, double r) {
    if (r == 0) return 1;
    if (r == 1 || x == 0) return x;
    return bq_exp2(r * bq_log2(x));
}

#endif
