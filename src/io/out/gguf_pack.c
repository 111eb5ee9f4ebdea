/* SPDX-License-Identifier: Apache-2.0 */
/* Codes in GGUF's blocks of 32.  They are kept where a type has the grid:
 *
 *   symmetric    Q4_0, Q5_0, Q8_0   d q           of codes of up to 4, 5, 8 bits
 *   asymmetric   Q4_1, Q5_1         d (q - z) = d q + m
 *
 *   e2m1         MXFP4              d q           d of type e8m0
 *
 * d is the scale, of integers an F16 value.  A scale of more than 32 columns stands in each of their
 * blocks.  The minimum m = -d z is rounded to F16, by at most 2^-11 of itself: that is 0.8 % of a step with 4
 * bits, 1.6 % with 5.  Of zero points that are floats it is the value of the lowest code.
 *
 * Groups that are no multiples of 32 columns, and zero points with more bits, have no such type: values are
 * quantized again, by the rule of the type (gguf_encode.c).  Rows that are no multiples of 32 columns become
 * F32, which has every value.  The log says what was lost. */
#include "base/die.h"
#include "base/num.h"
#include "io/out/gguf.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

/* Is it the grid of MXFP4? */
static bool is_mxfp4(const bq_scheme s) {
    return s.element == BQ_E2M1 && s.scale == BQ_F8_E8M0 && (s.group <= 0 || s.group % BLOCK == 0);
}

/* Has the type the grid? */
static bool kept(const bq_qtensor *q) {
    const bq_scheme s = q->scheme;
    return is_mxfp4(s) || ((s.group <= 0 || s.group % BLOCK == 0) && (s.symmetric || bq_code_bits(s) <= 5));
}

const bq_gguf_type *bq_gguf_type_for(const bq_qtensor *q, const char **why) {
    const bq_scheme s = q->scheme;
    int bits = bq_code_bits(s);
    bool whole = q->code.cols % BLOCK == 0, mx = is_mxfp4(s);
    *why = !bq_element_whole(s.element) && !mx
               ? "floats other than e2m1 in groups of 32 with e8m0 scales (MXFP4); write safetensors"
           : whole && kept(q) && s.scale != BQ_F16 && !mx
               ? "scales of another type than f16; set scale=f16 where the recipe's bits has it"
           : q->pre.rows       ? "factors of its inputs (smoothquant without fuse)"
           : q->inputs.element ? "rounded inputs"
                               : NULL;
    if (*why) return NULL;
    return bq_gguf_type_named(!whole     ? "F32"
                              : mx       ? "MXFP4"
                              : bits > 5 ? "Q8_0"
                              : bits > 4 ? (s.symmetric ? "Q5_0" : "Q5_1")
                                         : (s.symmetric ? "Q4_0" : "Q4_1"));
}

/* The minimum, and what rounding it costs. */
static uint16_t minimum(bq_gguf_job *own, float scale, float exact) {
    uint16_t m = bq_to_f16(exact);
    float error = fabsf(bq_from_f16(m) - exact) / scale;
    BQ_CHECK(isfinite(error), "export: a minimum of %g is beyond F16", (double)exact);
    own->blocks++, own->rounded += error > 0;
    own->worst = fmaxf(own->worst, error);
    return m;
}

static int64_t group_of(const bq_qtensor *q) { return q->scheme.group > 0 ? q->scheme.group : q->code.cols; }

static void pack(bq_gguf_job *own, const bq_qtensor *q, const bq_gguf_type *type, int64_t r, uint8_t *to) {
    const int8_t *code = bq_mat_at(q->code, r, 0);
    int64_t group = group_of(q);
    bool fifth = type->name[1] == '5', bytes = type->name[1] == '8';
    int half = fifth ? 16 : 8;
    for (int64_t c = 0; c < q->code.cols; c += BLOCK, to += type->bytes) {
        float scale = *(const float *)bq_mat_at(q->scale, r, c / group);
        uint8_t field[BLOCK], *at = bq_gguf_put_half(to, bq_to_f16(scale));
        BQ_CHECK(bq_from_f16(bq_to_f16(scale)) == scale, "export: the scale %.9g is no f16 value",
                 (double)scale);
        if (q->zero.rows) {
            const float zero = *(const float *)bq_mat_at(q->zero, r, c / group);
            const bool offset = bq_scheme_offset(q->scheme);
            const float least = offset ? zero - (float)half * scale : -(zero + (float)half) * scale;
            at = bq_gguf_put_half(at, minimum(own, scale, least));
        }
        if (bytes) memcpy(at, code + c, BLOCK);
        for (int i = 0; i < BLOCK && !bytes; i++) {
            BQ_CHECK(code[c + i] >= -half && code[c + i] < half, "code %d does not fit %s", code[c + i],
                     type->name);
            field[i] = (uint8_t)(code[c + i] + half);
        }
        if (!bytes) bq_gguf_put_nibbles(at, field, fifth);
    }
}

static void pack_mxfp4(const bq_qtensor *q, int64_t r, uint8_t *to) {
    const int8_t *code = bq_mat_at(q->code, r, 0);
    int64_t group = group_of(q);
    for (int64_t c = 0; c < q->code.cols; c += BLOCK, to += BLOCK / 2 + 1) {
        uint32_t bits = bq_bits(*(const float *)bq_mat_at(q->scale, r, c / group));
        uint8_t field[BLOCK];
        BQ_CHECK(bits == 0x400000u || (bits << 9 == 0 && bits), "export: a scale is no power of two");
        *to = (uint8_t)(bits >> 23); /* 2^-127, which is no normal number, is 0 */
        for (int i = 0; i < BLOCK; i++) field[i] = (uint8_t)(code[c + i] & 15);
        bq_gguf_put_nibbles(to + 1, field, false);
    }
}

static float value(const bq_qtensor *q, int64_t r, int64_t c) {
    int64_t g = c / group_of(q);
    float zero = q->zero.rows ? *(const float *)bq_mat_at(q->zero, r, g) : 0;
    float code =
        bq_element_value(bq_element_of(q->scheme.element), *(const int8_t *)bq_mat_at(q->code, r, c));
    const float scale = *(const float *)bq_mat_at(q->scale, r, g);
    return bq_scheme_offset(q->scheme) ? code * scale + zero : (code - zero) * scale;
}

/* Values quantized again. */
static void encode(bq_gguf_job *own, const bq_qtensor *q, const bq_gguf_type *type, int64_t r, uint8_t *to) {
    float x[BLOCK];
    own->again++;
    for (int64_t c = 0; c < q->code.cols; c += BLOCK, to += type->bytes) {
        for (int i = 0; i < BLOCK; i++) x[i] = value(q, r, c + i);
        bq_gguf_encode(type, x, BLOCK, to, &own->loss);
    }
}

void bq_gguf_pack(bq_gguf_job *own, const bq_qtensor *q, const bq_gguf_type *type, int64_t r, uint8_t *to) {
    if (type->elements == BLOCK && is_mxfp4(q->scheme)) {
        pack_mxfp4(q, r, to);
    } else if (type->elements == BLOCK && kept(q)) {
        pack(own, q, type, r, to);
    } else if (type->elements == BLOCK) {
        encode(own, q, type, r, to);
    } else {
        for (int64_t c = 0; c < q->code.cols; c++) memcpy(to + 4 * c, &(float){value(q, r, c)}, 4);
    }
}
