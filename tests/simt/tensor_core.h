/* SPDX-License-Identifier: Apache-2.0 */
/* tensor_core.h - how a tensor core adds, as badly as hardware may: an instruction adds n exact products to
 * an accumulator in f32.  Each term is cut (towards zero) two bits below the last bit that a float of the
 * largest term's size has; their sum is cut to a float.  Fasi, Higham, Mikaitis, Pranesh (2021), "Numerical
 * behavior of NVIDIA tensor cores", found this with no or few additional bits.  Real devices are at least as
 * exact. */
#ifndef SIMT_TENSOR_CORE_H
#define SIMT_TENSOR_CORE_H

#include <cmath>
#include <cstdint>
#include <cstring>

namespace simt {

enum { TENSOR_CORE_BITS = 26 }; /* of the largest term: the 24 of a float, and two */

static inline float cut_to_float(double x) {
    const float f = (float)x;
    return std::fabs((double)f) > std::fabs(x) ? std::nextafterf(f, 0.0f) : f;
}

/* Exponents of doubles and powers of two from their bits: the calls of libm are most of an emulated product.
 */
static inline int exponent(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return (int)(u >> 52 & 0x7ff) -
           1023; /* 1024: infinite or NaN; -1023: 0, or too small for a product of floats */
}
static inline double power_of_2(int e) {
    const uint64_t u = (uint64_t)(e + 1023) << 52;
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* acc + product[0] + ... + product[n - 1].  Products of operands of at most 24 bits are exact in double. */
static inline float tensor_core_sum(float acc, const double *product, int n) {
    int top = exponent(acc);
    for (int i = 0; i < n; i++) top = exponent(product[i]) > top ? exponent(product[i]) : top;
    if (top == 1024 || top == -1023) {
        double plain = acc;
        for (int i = 0; i < n; i++) plain += product[i];
        return (float)plain;
    }
    const double unit = power_of_2(top + 1 - TENSOR_CORE_BITS),
                 units = power_of_2(TENSOR_CORE_BITS - 1 - top);
    int64_t sum = (int64_t)(acc * units); /* cut towards zero */
    for (int i = 0; i < n; i++) sum += (int64_t)(product[i] * units);
    return cut_to_float((double)sum * unit);
}

} // namespace simt
#endif
