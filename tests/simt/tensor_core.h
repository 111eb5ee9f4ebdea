/* tensor_core.h - how a tensor core adds, as badly as hardware may: an instruction adds n exact products to
 * an accumulator in f32.  Each term is cut (towards zero) two bits below the last bit that a float of the
 * largest term's size has; their sum is cut to a float.  Fasi, Higham, Mikaitis, Pranesh (2021), "Numerical
 * behavior of NVIDIA tensor cores", found this with no or few additional bits.  Real devices are at least as
 * exact. */
#ifndef SIMT_TENSOR_CORE_H
#define SIMT_TENSOR_CORE_H

#include <cmath>

namespace simt {

enum { TENSOR_CORE_BITS = 26 }; /* of the largest term: the 24 of a float, and two */

static inline float cut_to_float(double x) {
    const float f = (float)x;
    return std::fabs((double)f) > std::fabs(x) ? std::nextafterf(f, 0.0f) : f;
}

/* acc + product[0] + ... + product[n - 1].  Products of operands of at most 24 bits are exact in double. */
static inline float tensor_core_sum(float acc, const double *product, int n) {
    double largest = std::fabs((double)acc), plain = acc, sum;
    for (int i = 0; i < n; i++) {
        const double size = std::fabs(product[i]);
        largest = size > largest ? size : largest;
        plain += product[i];
    }
    if (!std::isfinite(plain) || largest == 0) return (float)plain;
    const double unit = std::ldexp(1.0, std::ilogb(largest) + 1 - TENSOR_CORE_BITS), units = 1 / unit;
    sum = std::trunc(acc * units);
    for (int i = 0; i < n; i++) sum += std::trunc(product[i] * units);
    return cut_to_float(sum * unit);
}

} // namespace simt
#endif
