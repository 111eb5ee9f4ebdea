/* element.h - element types: the numbers that a value is rounded to before a scale multiplies it.  All
 * backends use this source.
 *
 * To add a float, e2m1 say: its number and its row here, without a zero point, and a branch of bq_nearest
 * that rounds to it.  Then ranges, rounding to nearest and checkpoints have it.  An integer is its own code;
 * of a float, the ops quantize and dequantize must say which number a code is.  Recipes need a key that names
 * it.  An output format refuses an element that it does not list. */
#ifndef BQ_KERNELS_ELEMENT_H
#define BQ_KERNELS_ELEMENT_H

#include <stdbool.h>

/* The number of an integer is its bits: recipes and checkpoints have it as `bits`. */
enum { BQ_INT2 = 2, BQ_INT3, BQ_INT4, BQ_INT5, BQ_INT6, BQ_INT7, BQ_INT8 };

/* Name; bits of a code; the least and the largest number; may a zero point be added to its codes? */
#define BQ_ELEMENTS(ROW)                                                                                     \
    ROW(BQ_INT2, "int2", 2, -2, 1, true)                                                                     \
    ROW(BQ_INT3, "int3", 3, -4, 3, true)                                                                     \
    ROW(BQ_INT4, "int4", 4, -8, 7, true)                                                                     \
    ROW(BQ_INT5, "int5", 5, -16, 15, true)                                                                   \
    ROW(BQ_INT6, "int6", 6, -32, 31, true)                                                                   \
    ROW(BQ_INT7, "int7", 7, -64, 63, true)                                                                   \
    ROW(BQ_INT8, "int8", 8, -128, 127, true)

typedef struct {
    int bits; /* 0: there is no such element */
    float low, high;
    bool zero;
} bq_element;

/* A row without its name.  Compilers make a load of a constant of this switch; an array would be in the local
 * memory of each thread of a GPU, and names would make it a jump. */
static inline bq_element bq_element_of(int element) {
    int bits = 0;
    float low = 0, high = 0;
    bool zero = false;
#define BQ_ROW(number, name, of_bits, of_low, of_high, of_zero)                                              \
    case number: bits = of_bits, low = of_low, high = of_high, zero = of_zero; break;
    switch (element) { BQ_ELEMENTS(BQ_ROW) }
#undef BQ_ROW
    const bq_element row = {bits, low, high, zero};
    return row;
}

static inline const char *bq_element_name(int element) {
#define BQ_ROW(number, name, ...)                                                                            \
    case number: return name;
    switch (element) { BQ_ELEMENTS(BQ_ROW) }
#undef BQ_ROW
    return "no element";
}

/* x, between low and high, rounded to the element, ties to even.  So far all are integers: after adding
 * 1.5 * 2^23 a float has no bits for a fraction.  A branch on `element` costs integers nothing where the
 * compiler takes it out of the loop over x; perf/instructions.sh shows the loops where it does not. */
static inline float bq_nearest(int element, float x) {
    (void)element;
    return (x + 12582912.0f) - 12582912.0f;
}

#endif
