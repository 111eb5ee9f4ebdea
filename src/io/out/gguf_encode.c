/* How the types of GGUF quantize values by their own rule: that of ggml, in float, the scale rounded to F16
 * after the codes are made. */
#include "base/num.h"
#include "io/out/gguf.h"

#include <math.h>

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

static void bytes_of(const float x[BLOCK], uint8_t *to) {
    float most = 0;
    for (int i = 0; i < BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    float d = most / 127, id = inverse(d);
    to = bq_gguf_put_half(to, bq_to_f16(d));
    for (int i = 0; i < BLOCK; i++) to[i] = (uint8_t)(int8_t)roundf(x[i] * id); /* half away from zero */
}

/* The value of the largest magnitude becomes code 0. */
static void symmetric(const float x[BLOCK], int half, uint8_t *to) {
    uint8_t field[BLOCK];
    float v = x[0];
    for (int i = 1; i < BLOCK; i++)
        if (fabsf(x[i]) > fabsf(v)) v = x[i];
    float d = v / (float)-half, id = inverse(d);
    for (int i = 0; i < BLOCK; i++)
        field[i] = (uint8_t)fminf(truncf(x[i] * id + ((float)half + 0.5f)), (float)(2 * half - 1));
    bq_gguf_put_nibbles(bq_gguf_put_half(to, bq_to_f16(d)), field, half == 16);
}

static void with_minimum(const float x[BLOCK], int half, uint8_t *to) {
    uint8_t field[BLOCK];
    float low = x[0], high = x[0], levels = (float)(2 * half - 1);
    for (int i = 1; i < BLOCK; i++) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    float d = (high - low) / levels, id = inverse(d);
    for (int i = 0; i < BLOCK; i++) field[i] = (uint8_t)fminf(truncf((x[i] - low) * id + 0.5f), levels);
    to = bq_gguf_put_half(bq_gguf_put_half(to, bq_to_f16(d)), bq_to_f16(low));
    bq_gguf_put_nibbles(to, field, half == 16);
}

void bq_gguf_encode(const bq_gguf_type *type, const float x[32], uint8_t *to) {
    int half = type->name[1] == '5' ? 16 : 8;
    if (type->name[1] == '8')
        bytes_of(x, to);
    else if (type->name[3] == '0')
        symmetric(x, half, to);
    else
        with_minimum(x, half, to);
}
