/* SPDX-License-Identifier: Apache-2.0 */
/* How the types of GGUF quantize values by their own rule: that of ggml, in float.  Types with one scale
 * round it to F16 after the codes are made; Q6_K before. */
#include "base/num.h"
#include "io/out/gguf.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

uint8_t *bq_gguf_put_half(uint8_t *to, uint16_t x) {
    to[0] = (uint8_t)x, to[1] = (uint8_t)(x >> 8);
    return to + 2;
}

void bq_gguf_put_nibbles(uint8_t *to, const uint8_t field[32], bool fifth) {
    uint32_t high = 0;
    for (int i = 0; i < BLOCK && fifth; i++) high |= (uint32_t)(field[i] >> 4) << i;
    for (int i = 0; i < 4 && fifth; i++) *to++ = (uint8_t)(high >> 8 * i);
    for (int j = 0; j < BLOCK / 2; j++) to[j] = (uint8_t)((field[j] & 15) | (field[j + 16] & 15) << 4);
}

static float inverse(float d) { return d == 0 ? 0 : 1 / d; }

static void q8_0(const float *x, uint8_t *to) {
    float most = 0;
    for (int i = 0; i < BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    float d = most / 127, id = inverse(d);
    to = bq_gguf_put_half(to, bq_to_f16(d));
    for (int i = 0; i < BLOCK; i++) to[i] = (uint8_t)(int8_t)roundf(x[i] * id); /* half away from zero */
}

/* The value of the largest magnitude becomes code 0. */
static void symmetric(const float *x, int half, uint8_t *to) {
    uint8_t field[BLOCK];
    float v = x[0];
    for (int i = 1; i < BLOCK; i++)
        if (fabsf(x[i]) > fabsf(v)) v = x[i];
    float d = v / (float)-half, id = inverse(d);
    for (int i = 0; i < BLOCK; i++)
        field[i] = (uint8_t)fminf(truncf(x[i] * id + ((float)half + 0.5f)), (float)(2 * half - 1));
    bq_gguf_put_nibbles(bq_gguf_put_half(to, bq_to_f16(d)), field, half == 16);
}

static void with_minimum(const float *x, int half, uint8_t *to) {
    uint8_t field[BLOCK];
    float low = x[0], high = x[0], levels = (float)(2 * half - 1);
    for (int i = 1; i < BLOCK; i++) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    float d = (high - low) / levels, id = inverse(d);
    for (int i = 0; i < BLOCK; i++) field[i] = (uint8_t)fminf(truncf((x[i] - low) * id + 0.5f), levels);
    to = bq_gguf_put_half(bq_gguf_put_half(to, bq_to_f16(d)), bq_to_f16(low));
    bq_gguf_put_nibbles(to, field, half == 16);
}

/* ---- Q6_K: 16 groups of 16, each with a scale of 8 bits, a multiple of one F16 number ---- */

enum { GROUP = 16, GROUPS = 16, HALF = 32 };
static const float tiny = 1e-15f; /* groups of smaller values are zero */

static int nearest(float x) { return (int)rintf(x); }

static int code_of(float x) {
    int k = nearest(x);
    return k < -HALF ? -HALF : k > HALF - 1 ? HALF - 1 : k;
}

/* Sums of a group's codes by one scale, with the squares of the values as weights: the best scale of these
 * codes is xl / ll, and it takes xl^2 / ll off the error. */
typedef struct {
    float xl, ll;
} fit;

static fit fit_of(const float x[GROUP], float inverse_scale) {
    fit f = {0, 0};
    for (int i = 0; i < GROUP; i++) {
        float weight = x[i] * x[i], code = (float)code_of(inverse_scale * x[i]);
        f.xl += weight * x[i] * code;
        f.ll += weight * code * code;
    }
    return f;
}

/* The scale of a group, of 19 that are near the one by which the largest value has code -32; codes, which
 * begin at 0. */
static float scale_of(const float x[GROUP], uint8_t field[GROUP]) {
    float most = 0, v = 0;
    for (int i = 0; i < GROUP; i++)
        if (fabsf(x[i]) > most) most = fabsf(x[i]), v = x[i];
    memset(field, 0, GROUP);
    if (most < tiny) return 0;
    float used = -(float)HALF / v;
    fit best = fit_of(x, used);
    float scale = best.ll > 0 ? best.xl / best.ll : 0, gain = scale * best.xl;
    for (int step = -9; step <= 9; step++) {
        float other = -((float)HALF + 0.1f * (float)step) / v;
        fit f = fit_of(x, other);
        if (step == 0 || !(f.ll > 0) || f.xl * f.xl <= gain * f.ll) continue;
        scale = f.xl / f.ll, gain = scale * f.xl, used = other;
    }
    for (int i = 0; i < GROUP; i++) field[i] = (uint8_t)(code_of(used * x[i]) + HALF);
    return scale;
}

/* Of 128 codes: 64 bytes of low nibbles, 32 of pairs of high bits. */
static void put_sixes(const uint8_t field[128], uint8_t *low, uint8_t *high) {
    for (int i = 0; i < 32; i++) {
        const uint8_t *f = field + i;
        low[i] = (uint8_t)((f[0] & 15) | (f[64] & 15) << 4);
        low[i + 32] = (uint8_t)((f[32] & 15) | (f[96] & 15) << 4);
        high[i] = (uint8_t)(f[0] >> 4 | f[32] >> 4 << 2 | f[64] >> 4 << 4 | f[96] >> 4 << 6);
    }
}

static void q6_k(const float *x, uint8_t *to) {
    uint8_t field[GROUPS * GROUP];
    float scale[GROUPS], most = 0;
    for (int g = 0; g < GROUPS; g++) {
        scale[g] = scale_of(x + g * GROUP, field + g * GROUP);
        if (fabsf(scale[g]) > fabsf(most)) most = scale[g];
    }
    memset(to, 0, 210);
    if (fabsf(most) < tiny) return;
    float inverse_scale = -128.0f / most;
    uint16_t half = bq_to_f16(1 / inverse_scale);
    for (int g = 0; g < GROUPS; g++) {
        int multiple = nearest(inverse_scale * scale[g]);
        multiple = multiple > 127 ? 127 : multiple;
        to[192 + g] = (uint8_t)(int8_t)multiple;
        float d = bq_from_f16(half) * (float)multiple;
        for (int i = g * GROUP; i < (g + 1) * GROUP && d != 0; i++)
            field[i] = (uint8_t)(code_of(x[i] / d) + HALF);
    }
    put_sixes(field, to, to + 128);
    put_sixes(field + 128, to + 64, to + 160);
    bq_gguf_put_half(to + 208, half);
}

/* ---- all types ---- */

static void f32(const float *x, int64_t count, uint8_t *to) { memcpy(to, x, (size_t)count * 4); }

static void f16(const float *x, int64_t count, uint8_t *to) {
    for (int64_t i = 0; i < count; i++) to = bq_gguf_put_half(to, bq_to_f16(x[i]));
}

static void bf16(const float *x, int64_t count, uint8_t *to) {
    for (int64_t i = 0; i < count; i++) to = bq_gguf_put_half(to, bq_to_bf16(x[i]));
}

static void q4_0(const float *x, uint8_t *to) { symmetric(x, 8, to); }
static void q5_0(const float *x, uint8_t *to) { symmetric(x, 16, to); }
static void q4_1(const float *x, uint8_t *to) { with_minimum(x, 8, to); }
static void q5_1(const float *x, uint8_t *to) { with_minimum(x, 16, to); }

/* A block, or values without blocks. */
static const struct {
    const char *name;
    void (*block)(const float *x, uint8_t *to);
    void (*values)(const float *x, int64_t count, uint8_t *to);
} encoders[] = {{"F32", .values = f32},  {"F16", .values = f16},  {"BF16", .values = bf16},
                {"Q4_0", .block = q4_0}, {"Q4_1", .block = q4_1}, {"Q5_0", .block = q5_0},
                {"Q5_1", .block = q5_1}, {"Q8_0", .block = q8_0}, {"Q6_K", .block = q6_k}};

void bq_gguf_encode(const bq_gguf_type *type, const float *x, int64_t count, uint8_t *to,
                    bq_gguf_loss *loss) {
    enum { MOST = GROUPS * GROUP };
    float back[MOST];
    size_t e = 0;
    while (strcmp(encoders[e].name, type->name) != 0) e++;
    for (int64_t at = 0, n; at < count; at += n, to += n / type->elements * type->bytes) {
        n = encoders[e].block ? type->elements : count - at < MOST ? count - at : MOST;
        if (encoders[e].block)
            encoders[e].block(x + at, to);
        else
            encoders[e].values(x + at, n, to);
        type->decode(to, n / type->elements, back);
        for (int64_t k = 0; k < n; k++) {
            double value = (double)x[at + k], error = (double)back[k] - value;
            loss->error += error * error, loss->power += value * value;
        }
    }
}
