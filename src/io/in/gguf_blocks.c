/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf_blocks.h"

#include "base/num.h"

#include <stddef.h>

/* A function x(b, y) decodes the block at b to y. */

static inline uint32_t u16_at(const uint8_t *b) { return (uint32_t)b[0] | (uint32_t)b[1] << 8; }
static inline uint32_t u32_at(const uint8_t *b) { return u16_at(b) | u16_at(b + 2) << 16; }
static inline float f16_at(const uint8_t *b) { return bq_from_f16((uint16_t)u16_at(b)); }

static inline void f32(const uint8_t *restrict b, float *restrict y) { *y = bq_float(u32_at(b)); }
static inline void f16(const uint8_t *restrict b, float *restrict y) { *y = f16_at(b); }
static inline void bf16(const uint8_t *restrict b, float *restrict y) {
    *y = bq_from_bf16((uint16_t)u16_at(b));
}

/* ---- blocks of 32: in byte j the low nibble is of element j, the high one of element j + 16 ---- */

static inline void q4_0(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

static inline void q4_1(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b), m = f16_at(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b[4 + j] & 15) + m;
        y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

/* The fifth bits stand together: bit i is of element i. */
static inline void q5_0(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b);
    uint32_t high = u32_at(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((int)((b[6 + j] & 15) | (high >> j & 1) << 4) - 16);
        y[j + 16] = d * (float)((int)((b[6 + j] >> 4) | (high >> (j + 16) & 1) << 4) - 16);
    }
}

static inline void q5_1(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b), m = f16_at(b + 2);
    uint32_t high = u32_at(b + 4);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(int)((b[8 + j] & 15) | (high >> j & 1) << 4) + m;
        y[j + 16] = d * (float)(int)((b[8 + j] >> 4) | (high >> (j + 16) & 1) << 4) + m;
    }
}

static inline void q8_0(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(int8_t)b[2 + j];
}

/* Codes of 4 bits that stand for the values of a table. */
static inline void looked_up(const float table[16], float d, const uint8_t *restrict b, int bytes,
                             float *restrict y) {
    for (int j = 0; j < bytes; j++) {
        y[j] = d * table[b[j] & 15];
        y[j + bytes] = d * table[b[j] >> 4];
    }
}

static const float iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/* Twice the values of e2m1, since the scales below are halved.  Code 8 is +0 here. */
static const float e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static inline void iq4_nl(const uint8_t *restrict b, float *restrict y) {
    looked_up(iq4, f16_at(b), b + 2, 16, y);
}

/* The scale is half of e8m0, so that the smallest ones are subnormal: 2^(e - 128). */
static inline void mxfp4(const uint8_t *restrict b, float *restrict y) {
    looked_up(e2m1, bq_float(b[0] < 2 ? 0x00200000u << b[0] : (b[0] - 1u) << 23), b + 1, 16, y);
}

/* Four scales in e4m3 without sign, each of 16 elements.  7f would be NaN: it counts as 0. */
static inline void nvfp4(const uint8_t *restrict b, float *restrict y) {
    for (int j = 0; j < 4; j++) {
        uint32_t exp = b[j] >> 3 & 15, man = b[j] & 7;
        float d = exp ? bq_float((exp + 119) << 23 | man << 20) : (float)man * 0x1p-10f;
        looked_up(e2m1, b[j] == 0x7f ? 0 : d, b + 4 + 8 * j, 8, y + 16 * j);
    }
}

/* ---- blocks of 256 ---- */

/* Sub-blocks of 16: two bits a code, of four sub-blocks each in the bytes of one. */
static inline void q2_k(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b + 80), dmin = f16_at(b + 82);
    for (int j = 0; j < 16; j++) {
        float scale = d * (float)(b[j] & 15), min = dmin * (float)(b[j] >> 4);
        const uint8_t *q = b + 16 + 32 * (j / 8) + 16 * (j % 2);
        int shift = 2 * (j % 8 / 2);
        for (int l = 0; l < 16; l++) y[16 * j + l] = scale * (float)(q[l] >> shift & 3) - min;
    }
}

/* The same order.  The third bits stand first; 4 is taken off where one is clear. */
static inline void q3_k(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b + 108);
    const uint8_t *s = b + 96;
    for (int j = 0; j < 16; j++) {
        int low = s[j % 8] >> (j < 8 ? 0 : 4) & 15, high = s[8 + j % 4] >> 2 * (j / 4) & 3;
        float scale = d * (float)((low | high << 4) - 32);
        const uint8_t *q = b + 32 + 32 * (j / 8) + 16 * (j % 2), *h = b + 16 * (j % 2);
        int shift = 2 * (j % 8 / 2), bit = 4 * (j / 8) + j % 8 / 2;
        for (int l = 0; l < 16; l++)
            y[16 * j + l] = scale * (float)((q[l] >> shift & 3) + 4 * (h[l] >> bit & 1) - 4);
    }
}

/* Scale and minimum of sub-block j: 6 bits each, 8 of each in 12 bytes. */
static inline void scale_k4(const uint8_t *s, int j, float *scale, float *min) {
    *scale = (float)(j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4);
    *min = (float)(j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4);
}

/* Sub-blocks of 32. */
static inline void q4_k(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b), dmin = f16_at(b + 2), scale, min;
    for (int j = 0; j < 8; j++) {
        const uint8_t *q = b + 16 + 32 * (j / 2);
        int shift = 4 * (j % 2);
        scale_k4(b + 4, j, &scale, &min);
        scale *= d, min *= dmin;
        for (int l = 0; l < 32; l++) y[32 * j + l] = scale * (float)(q[l] >> shift & 15) - min;
    }
}

static inline void q5_k(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b), dmin = f16_at(b + 2), scale, min;
    for (int j = 0; j < 8; j++) {
        const uint8_t *q = b + 48 + 32 * (j / 2), *h = b + 16;
        int shift = 4 * (j % 2);
        scale_k4(b + 4, j, &scale, &min);
        scale *= d, min *= dmin;
        for (int l = 0; l < 32; l++)
            y[32 * j + l] = scale * (float)((q[l] >> shift & 15) | (h[l] >> j & 1) << 4) - min;
    }
}

/* Sub-blocks of 16.  Of a half's eight, the first four are in low nibbles. */
static inline void q6_k(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b + 208);
    for (int j = 0; j < 16; j++) {
        const uint8_t *q = b + 64 * (j / 8) + 16 * (j % 4), *h = b + 128 + 32 * (j / 8) + 16 * (j % 2);
        int shift = 4 * (j % 8 / 4), bits = 2 * (j % 8 / 2);
        float scale = d * (float)(int8_t)b[192 + j];
        for (int l = 0; l < 16; l++)
            y[16 * j + l] = scale * (float)((int)((q[l] >> shift & 15) | (h[l] >> bits & 3) << 4) - 32);
    }
}

static inline void iq4_xs(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b);
    for (int j = 0; j < 8; j++) {
        int low = b[4 + j / 2] >> 4 * (j % 2) & 15, high = (int)(u16_at(b + 2) >> 2 * j & 3);
        looked_up(iq4, d * (float)((low | high << 4) - 32), b + 8 + 16 * j, 16, y + 32 * j);
    }
}

/* Five values of three in a byte, as a fraction of 256: times 3^n, the next digit is before the point. */
static inline void trits(float d, const uint8_t *restrict b, int bytes, int digits, float *restrict y) {
    for (unsigned n = 0, power = 1; n < (unsigned)digits; n++, power *= 3) {
        for (int l = 0; l < bytes; l++) *y++ = d * (float)((int)((b[l] * power & 255) * 3 >> 8) - 1);
    }
}

static inline void tq1_0(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b + 52);
    trits(d, b, 32, 5, y);
    trits(d, b + 32, 16, 5, y + 160);
    trits(d, b + 48, 4, 4, y + 240);
}

static inline void tq2_0(const uint8_t *restrict b, float *restrict y) {
    float d = f16_at(b + 64);
    for (int j = 0; j < 8; j++) {
        const uint8_t *q = b + 32 * (j / 4);
        for (int l = 0; l < 32; l++) y[32 * j + l] = d * (float)((q[l] >> 2 * (j % 4) & 3) - 1);
    }
}

/* ---- the table: name, number, elements and bytes of a block, function ---- */

#define TYPES(X)                                                                                             \
    X(F32, 0, 1, 4, f32)                                                                                     \
    X(F16, 1, 1, 2, f16)                                                                                     \
    X(BF16, 30, 1, 2, bf16)                                                                                  \
    X(Q4_0, 2, 32, 18, q4_0)                                                                                 \
    X(Q4_1, 3, 32, 20, q4_1)                                                                                 \
    X(Q5_0, 6, 32, 22, q5_0)                                                                                 \
    X(Q5_1, 7, 32, 24, q5_1)                                                                                 \
    X(Q8_0, 8, 32, 34, q8_0)                                                                                 \
    X(Q2_K, 10, 256, 84, q2_k)                                                                               \
    X(Q3_K, 11, 256, 110, q3_k)                                                                              \
    X(Q4_K, 12, 256, 144, q4_k)                                                                              \
    X(Q5_K, 13, 256, 176, q5_k)                                                                              \
    X(Q6_K, 14, 256, 210, q6_k)                                                                              \
    X(IQ4_NL, 20, 32, 18, iq4_nl)                                                                            \
    X(IQ4_XS, 23, 256, 136, iq4_xs)                                                                          \
    X(TQ1_0, 34, 256, 54, tq1_0)                                                                             \
    X(TQ2_0, 35, 256, 66, tq2_0)                                                                             \
    X(MXFP4, 39, 32, 17, mxfp4)                                                                              \
    X(NVFP4, 40, 64, 36, nvfp4)

#define BLOCKS(name, number, elements, bytes, block)                                                         \
    static void block##_blocks(const uint8_t *b, int64_t blocks, float *y) {                                 \
        for (int64_t i = 0; i < blocks; i++) block(b + i * (bytes), y + i * (elements));                     \
    }
#define ROW(name, number, elements, bytes, block) {#name, number, elements, bytes, block##_blocks},

TYPES(BLOCKS)

static const bq_gguf_type types[] = {TYPES(ROW)};

enum { COUNT = sizeof types / sizeof *types };

const bq_gguf_type *bq_gguf_type_at(int i) { return i >= 0 && i < COUNT ? &types[i] : NULL; }

const bq_gguf_type *bq_gguf_type_of(uint32_t number) {
    for (int i = 0; i < COUNT; i++) {
        if (types[i].number == number) return &types[i];
    }
    return NULL;
}

const bq_gguf_type *bq_gguf_type_named(const char *name) {
    for (int i = 0; i < COUNT; i++) {
        if (strcmp(types[i].name, name) == 0) return &types[i];
    }
    return NULL;
}
