/* Codes in GGUF's blocks of 32.  The codes are kept.
 *
 *   symmetric    Q4_0, Q5_0, Q8_0   d q           of codes of up to 4, 5, 8 bits
 *   asymmetric   Q4_1, Q5_1         d (q - z) = d q + m
 *
 * d is the scale, which must be an F16 value.  A scale of more than 32 columns stands in each of their
 * blocks.  The minimum m = -d z is rounded to F16, by at most 2^-11 of itself: that is 0.8 % of a step with 4
 * bits, 1.6 % with 5.  This is the only loss, and the log says what it was. */
#include "base/die.h"
#include "base/num.h"
#include "io/out/gguf.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

const bq_gguf_type *bq_gguf_type_for(const bq_qtensor *q, const char **why) {
    const bq_scheme s = q->scheme;
    int bits = bq_code_bits(s);
    *why = s.element < BQ_INT2 || s.element > BQ_INT8 ? "codes that are no integers"
           : s.scale != BQ_F16 ? "scales of another type than f16: set bits.decoder.scale=f16"
           : q->code.cols % BLOCK || (s.group > 0 && s.group % BLOCK)
               ? "rows or groups that are no multiples of 32 columns"
           : !s.symmetric && bits > 5 ? "zero points with more than 5 bits"
           : q->pre.rows              ? "factors of its inputs (smoothquant without fuse)"
           : q->activations           ? "rounded inputs"
                                      : NULL;
    if (*why) return NULL;
    if (s.symmetric) return bq_gguf_type_named(bits <= 4 ? "Q4_0" : bits == 5 ? "Q5_0" : "Q8_0");
    return bq_gguf_type_named(bits <= 4 ? "Q4_1" : "Q5_1");
}

static uint8_t *put_half(uint8_t *to, uint16_t x) {
    to[0] = (uint8_t)x, to[1] = (uint8_t)(x >> 8);
    return to + 2;
}

/* The minimum, and what rounding it costs. */
static uint16_t minimum(bq_gguf_job *own, float scale, float zero) {
    float exact = -zero * scale;
    uint16_t m = bq_to_f16(exact);
    float error = fabsf(bq_from_f16(m) - exact) / scale;
    BQ_CHECK(isfinite(error), "export: a minimum of %g is beyond F16", (double)exact);
    own->blocks++, own->rounded += error > 0;
    own->worst = fmaxf(own->worst, error);
    return m;
}

/* A block of unsigned codes: in byte j the low nibble is of code j, the high one of code j + 16; the fifth
 * bits stand before. */
static void put_nibbles(uint8_t *to, const uint8_t field[BLOCK], bool fifth) {
    uint32_t high = 0;
    for (int i = 0; i < BLOCK && fifth; i++) high |= (uint32_t)(field[i] >> 4) << i;
    for (int i = 0; i < 4 && fifth; i++) *to++ = (uint8_t)(high >> 8 * i);
    for (int j = 0; j < BLOCK / 2; j++) to[j] = (uint8_t)((field[j] & 15) | (field[j + 16] & 15) << 4);
}

void bq_gguf_pack(bq_gguf_job *own, const bq_qtensor *q, const bq_gguf_type *type, int64_t r, uint8_t *to) {
    const int8_t *code = bq_mat_at(q->code, r, 0);
    int64_t group = q->scheme.group > 0 ? q->scheme.group : q->code.cols;
    bool fifth = type->name[1] == '5', bytes = type->name[1] == '8';
    int half = fifth ? 16 : 8;
    for (int64_t c = 0; c < q->code.cols; c += BLOCK, to += type->bytes) {
        float scale = *(const float *)bq_mat_at(q->scale, r, c / group);
        uint8_t field[BLOCK], *at = put_half(to, bq_to_f16(scale));
        BQ_CHECK(bq_from_f16(bq_to_f16(scale)) == scale, "export: the scale %.9g is no f16 value",
                 (double)scale);
        if (q->zero.rows)
            at = put_half(
                at, minimum(own, scale, *(const float *)bq_mat_at(q->zero, r, c / group) + (float)half));
        if (bytes) memcpy(at, code + c, BLOCK);
        for (int i = 0; i < BLOCK && !bytes; i++) {
            BQ_CHECK(code[c + i] >= -half && code[c + i] < half, "code %d does not fit %s", code[c + i],
                     type->name);
            field[i] = (uint8_t)(code[c + i] + half);
        }
        if (!bytes) put_nibbles(at, field, fifth);
    }
}
