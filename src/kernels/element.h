/* SPDX-License-Identifier: Apache-2.0 */
/* element.h - element types: the numbers that a value is rounded to before a scale multiplies it.  All
 * backends use this source.
 *
 * Integers are their own codes.  Floats have a sign, an exponent and a mantissa, as OCP's formats define
 * them; a code is their bits, in the low bits of a byte.  None has an infinity in use: values beyond the
 * largest number become that number.
 *
 * To add one: its number and its row here.  An output format refuses an element that it does not list. */
#ifndef BQ_KERNELS_ELEMENT_H
#define BQ_KERNELS_ELEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/num.h"

/* The number of an integer is its bits: recipes and checkpoints have it as `bits`. */
enum { BQ_INT1 = 1, BQ_INT2, BQ_INT3, BQ_INT4, BQ_INT5, BQ_INT6, BQ_INT7, BQ_INT8 };
enum { BQ_E2M1 = 32, BQ_E2M3, BQ_E3M2, BQ_E4M3, BQ_E5M2 };

/* Name; bits of a code; the least and the largest number; may a zero point be added to its codes?  Of floats:
 * bits of the mantissa, and the exponent of the least normal number. */
#define BQ_ELEMENTS(ROW)                                                                                     \
    ROW(BQ_INT1, "int1", 1, -1, 0, true, 0, 0)                                                               \
    ROW(BQ_INT2, "int2", 2, -2, 1, true, 0, 0)                                                               \
    ROW(BQ_INT3, "int3", 3, -4, 3, true, 0, 0)                                                               \
    ROW(BQ_INT4, "int4", 4, -8, 7, true, 0, 0)                                                               \
    ROW(BQ_INT5, "int5", 5, -16, 15, true, 0, 0)                                                             \
    ROW(BQ_INT6, "int6", 6, -32, 31, true, 0, 0)                                                             \
    ROW(BQ_INT7, "int7", 7, -64, 63, true, 0, 0)                                                             \
    ROW(BQ_INT8, "int8", 8, -128, 127, true, 0, 0)                                                           \
    ROW(BQ_E2M1, "e2m1", 4, -6, 6, false, 1, 0)                                                              \
    ROW(BQ_E2M3, "e2m3", 6, -7.5f, 7.5f, false, 3, 0)                                                        \
    ROW(BQ_E3M2, "e3m2", 6, -28, 28, false, 2, -2)                                                           \
    ROW(BQ_E4M3, "e4m3", 8, -448, 448, false, 3, -6)                                                         \
    ROW(BQ_E5M2, "e5m2", 8, -57344, 57344, false, 2, -14)

/* How a value is rounded.  mantissa 0: to an integer. */
typedef struct {
    int mantissa, least;
} bq_number;

typedef struct {
    int bits; /* 0: there is no such element */
    float low, high;
    bool zero;
    bq_number number;
} bq_element;

/* A row without its name.  Compilers make a load of a constant of this switch; an array would be in the local
 * memory of each thread of a GPU, and names would make it a jump. */
static inline bq_element bq_element_of(int element) {
    int bits = 0, mantissa = 0, least = 0;
    float low = 0, high = 0;
    bool zero = false;
#define BQ_ROW(n, name, of_bits, of_low, of_high, of_zero, of_mantissa, of_least)                            \
    case n:                                                                                                  \
        bits = of_bits, low = of_low, high = of_high, zero = of_zero, mantissa = of_mantissa,                \
        least = of_least;                                                                                    \
        break;
    switch (element) { BQ_ELEMENTS(BQ_ROW) }
#undef BQ_ROW
    const bq_element row = {bits, low, high, zero, {mantissa, least}};
    return row;
}

static inline const char *bq_element_name(int element) {
#define BQ_ROW(number, name, ...)                                                                            \
    case number: return name;
    switch (element) { BQ_ELEMENTS(BQ_ROW) }
#undef BQ_ROW
    return "no element";
}

static inline bool bq_element_whole(int element) { return bq_element_of(element).number.mantissa == 0; }

/* x, at most the largest number, rounded to nearest, ties to even, with the sign of x.  The sum has one bit
 * more than the mantissa behind its leading bit, or as many as subnormal numbers have. */
static inline float bq_nearest_float(bq_number n, float x) {
    const uint32_t u = bq_bits(x), has = u >> 23 & 255u, least = (uint32_t)(n.least + 127),
                   e = has > least ? has : least;
    const float high = bq_float((e + 23u - (uint32_t)n.mantissa) << 23 | 0x400000u);
    return bq_float(bq_bits((x + high) - high) | (u & 0x80000000u));
}

/* x, between low and high, rounded to the element, ties to even.  After adding 1.5 * 2^23 a float has no bits
 * for a fraction.  In loops the compiler must know whether n is that of an integer, or the test costs as much
 * as the rounding: see BQ_EACH_NUMBER (cpu/vec_grid.h). */
static inline float bq_nearest(bq_number n, float x) {
    return n.mantissa ? bq_nearest_float(n, x) : (x + 12582912.0f) - 12582912.0f;
}

/* The code of a number of a float element, and the number of a code. */
static inline int8_t bq_float_code(bq_element e, float x) {
    const uint32_t u = bq_bits(x), a = u & 0x7fffffffu, m = (uint32_t)e.number.mantissa,
                   less = (uint32_t)(e.number.least + 126) << m, unit = (uint32_t)(e.number.least + 127);
    const uint32_t small = (uint32_t)(bq_float(a) * bq_float((254u - unit + m) << 23));
    const uint32_t code = a < unit << 23 ? small : (a >> (23u - m)) - less;
    return (int8_t)(code | u >> 31 << (e.bits - 1));
}

static inline float bq_float_value(bq_element e, int8_t code) {
    const uint32_t c = (uint8_t)code, m = (uint32_t)e.number.mantissa, sign = 1u << (e.bits - 1),
                   field = c & (sign - 1), more = (uint32_t)(e.number.least + 126) << m;
    const float small = (float)field * bq_float((uint32_t)(e.number.least + 127 - (int)m) << 23);
    const float x = field >> m ? bq_float((field + more) << (23u - m)) : small;
    return bq_float(bq_bits(x) | (c & sign ? 0x80000000u : 0u));
}

/* The number of any element's code. */
static inline float bq_element_value(bq_element e, int8_t code) {
    return e.number.mantissa ? bq_float_value(e, code) : (float)code;
}

#endif
