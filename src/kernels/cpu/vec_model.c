/* SPDX-License-Identifier: Apache-2.0 */
/* The vector functions of the model ops.  vec_model.h says what each does; vec.h how they are compiled. */
#include "kernels/cpu/vec.h"

#include "base/num.h"

#include <math.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed between inlined functions only */

#define LANES 16
typedef float v16 __attribute__((vector_size(64)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef int32_t i16 __attribute__((vector_size(64)));
typedef double d16 __attribute__((vector_size(128)));
#define INLINE static inline __attribute__((always_inline))

INLINE v16 all(float x) { return (v16){} + x; }
INLINE v16 pick(i16 mask, v16 yes, v16 no) { return (v16)((mask & (i16)yes) | (~mask & (i16)no)); }
INLINE v16 larger(v16 a, v16 b) { return pick(a > b, a, b); }

/* load_or: n numbers from p; the other lanes are `rest`.  store: n numbers to p; the other
 * lanes are not written. */
INLINE v16 load_or(const float *p, int64_t n, float rest) {
    v16 v = all(rest);
    if (n >= LANES)
        memcpy(&v, p, sizeof v);
    else
        for (int64_t l = 0; l < n; l++) v[l] = p[l];
    return v;
}
INLINE v16 load(const float *p, int64_t n) { return load_or(p, n, 0); }
INLINE void store(float *p, int64_t n, v16 v) {
    if (n >= LANES)
        memcpy(p, &v, sizeof v);
    else
        for (int64_t l = 0; l < n; l++) p[l] = v[l];
}

/* Run the statements for i = first, first + 16, ... below end, with m numbers to do at i.  They
 * are in the code twice: with m = 16, where the compiler removes the tests in load and store, and
 * for the end of the row. */
#define EACH(i, m, first, end, ...)                                                                          \
    do {                                                                                                     \
        int64_t i = first;                                                                                   \
        for (; i + LANES <= (end); i += LANES) {                                                             \
            const int64_t m = LANES;                                                                         \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
        if (i < (end)) {                                                                                     \
            const int64_t m = (end)-i;                                                                       \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    } while (0)

/* Lanes are added as l and l + 8, then l and l + 4, l + 2, l + 1. */
#define LOWER(v)  __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#define UPPER(v)  __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
#define LOWER4(v) __builtin_shufflevector(v, v, 0, 1, 2, 3)
#define UPPER4(v) __builtin_shufflevector(v, v, 4, 5, 6, 7)

INLINE float total(v16 v) {
    v8 a = LOWER(v) + UPPER(v);
    v4 b = LOWER4(a) + UPPER4(a);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

INLINE double total_double(d16 v) {
    for (int w = LANES / 2; w; w /= 2)
        for (int l = 0; l < w; l++) v[l] += v[l + w];
    return v[0];
}

INLINE float larger_of(float a, float b) { return a > b ? a : b; }

INLINE float largest(v16 v) {
    v8 low = LOWER(v), high = UPPER(v);
    i8 upper = high > low;
    v8 a = (v8)((upper & (i8)high) | (~upper & (i8)low));
    v4 b = LOWER4(a), c = UPPER4(a);
    return larger_of(larger_of(larger_of(b[0], c[0]), larger_of(b[1], c[1])),
                     larger_of(larger_of(b[2], c[2]), larger_of(b[3], c[3])));
}

/* bq_exp in every lane: the same operations in the same order. */
INLINE v16 vexp(v16 x) {
    i16 low = x < -87.33f;
    x = pick(low, all(-87.33f), x);
    x = pick(x > 88.0f, all(88.0f), x);
    v16 k = x * 1.44269504f + 12582912.0f;
    i16 n = (i16)k - 0x4b400000;
    k -= 12582912.0f;
    v16 r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    v16 p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    v16 y = p * (v16)((n + 127) << 23);
    return (v16)(~low & (i16)y);
}

/* bq_tanh in every lane. */
INLINE v16 vtanh(v16 x) {
    v16 z = x * x, a = pick(x < 0, -x, x), p = all(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    p = p * z * x + x;
    v16 far = 1.0f - 2.0f / (vexp(2 * a) + 1.0f);
    far = pick(x < 0, -far, far);
    return pick(a < 0.625f, p, far);
}

void BQ_V(add)(int64_t n, const float *x, float *y) {
    EACH(i, m, 0, n, store(y + i, m, load(y + i, m) + load(x + i, m)););
}

void BQ_V(times)(int64_t n, float factor, const float *x, float *y) {
    EACH(i, m, 0, n, store(y + i, m, load(x + i, m) * factor););
}

void BQ_V(add_times)(int64_t n, float factor, const float *x, float *y) {
    EACH(i, m, 0, n, store(y + i, m, load(y + i, m) + load(x + i, m) * factor););
}

float BQ_V(dot)(int64_t n, const float *a, const float *b) {
    v16 sum = {};
    EACH(i, m, 0, n, sum += load(a + i, m) * load(b + i, m););
    return total(sum);
}

static float inverse_rms(int64_t n, const float *x, float eps) {
    return 1.0f / sqrtf(BQ_V(dot)(n, x, x) / (float)n + eps);
}

void BQ_V(rmsnorm)(int64_t n, const float *x, const float *weight, float eps, float *y) {
    float r = inverse_rms(n, x, eps);
    EACH(i, m, 0, n, { store(y + i, m, load(x + i, m) * r * load(weight + i, m)); });
}

void BQ_V(rmsnorm_bwd)(int64_t n, const float *x, const float *weight, float eps, const float *dy,
                       float *dx) {
    float r = inverse_rms(n, x, eps);
    v16 sum = {};
    EACH(i, m, 0, n, { sum += load(weight + i, m) * load(dy + i, m) * load(x + i, m); });
    float back = r * r * r / (float)n * total(sum);
    EACH(i, m, 0, n, {
        v16 grad = load(weight + i, m) * load(dy + i, m) * r - load(x + i, m) * back;
        store(dx + i, m, load(dx + i, m) + grad);
    });
}

void BQ_V(rope)(int64_t heads, int64_t hd, int64_t half, const float *cos, const float *sin, unsigned how,
                float *x) {
    float sign = how & BQ_TURN_INVERSE ? -1.0f : 1.0f; /* exact; the transpose turns back */
    for (int64_t h = 0; h < heads && how & BQ_TURN_PAIRS; h++)
        for (int64_t i = 0; i < half; i++) {
            float *at = x + h * hd + 2 * i, c = cos[i], s = sin[i] * sign, a = at[0], b = at[1];
            at[0] = a * c - b * s;
            at[1] = b * c + a * s;
        }
    for (int64_t h = 0; h < heads && !(how & BQ_TURN_PAIRS); h++, x += hd)
        EACH(i, m, 0, half, {
            v16 c = load(cos + i, m), s = load(sin + i, m) * sign;
            v16 a = load(x + i, m), b = load(x + half + i, m);
            store(x + i, m, a * c - b * s);
            store(x + half + i, m, b * c + a * s);
        });
}

INLINE v16 sigmoid(v16 x) { return 1.0f / (1.0f + vexp(-x)); }

INLINE v16 gate(bq_act act, v16 g) {
    return act == BQ_SILU           ? g
           : act == BQ_SILU_CLAMPED ? g * BQ_SILU_FACTOR
                                    : g * (BQ_GELU_1 + BQ_GELU_3 * (g * g));
}
INLINE v16 gate_slope(bq_act act, v16 g) {
    return act == BQ_SILU           ? all(1)
           : act == BQ_SILU_CLAMPED ? all(BQ_SILU_FACTOR)
                                    : BQ_GELU_1 + 3 * BQ_GELU_3 * (g * g);
}
INLINE v16 gate_of(bq_act act, float limit, v16 g) {
    return act == BQ_SILU_CLAMPED ? pick(g > limit, all(limit), g) : g;
}
INLINE v16 up_of(bq_act act, float limit, v16 u) {
    return act == BQ_SILU_CLAMPED ? pick(u < -limit, all(-limit), pick(u > limit, all(limit), u)) + 1.0f : u;
}

INLINE void glu_row(bq_act act, float limit, int64_t n, const float *g, const float *u, float *z) {
    EACH(i, m, 0, n, {
        v16 x = gate_of(act, limit, load(g + i, m));
        store(z + i, m, x * sigmoid(gate(act, x)) * up_of(act, limit, load(u + i, m)));
    });
}

void BQ_V(glu)(int64_t n, bq_act act, float limit, const float *g, const float *u, float *z) {
    if (act == BQ_SILU)
        glu_row(BQ_SILU, limit, n, g, u, z);
    else if (act == BQ_GELU_TANH)
        glu_row(BQ_GELU_TANH, limit, n, g, u, z);
    else
        glu_row(BQ_SILU_CLAMPED, limit, n, g, u, z);
}

INLINE void glu_bwd_row(bq_act act, float limit, int64_t n, const float *g, const float *u, const float *dz,
                        float *dg, float *du) {
    EACH(i, m, 0, n, {
        v16 g0 = load(g + i, m), u0 = load(u + i, m), d = load(dz + i, m), x = gate_of(act, limit, g0),
            s = sigmoid(gate(act, x)), to_u = d * (x * s),
            to_g = d * up_of(act, limit, u0) * (s * (1.0f + x * (1.0f - s) * gate_slope(act, x)));
        if (act == BQ_SILU_CLAMPED) {
            to_u = pick((u0 >= -limit) & (u0 <= limit), to_u, all(0));
            to_g = pick(g0 <= limit, to_g, all(0));
        }
        store(du + i, m, to_u);
        store(dg + i, m, to_g);
    });
}

void BQ_V(glu_bwd)(int64_t n, bq_act act, float limit, const float *g, const float *u, const float *dz,
                   float *dg, float *du) {
    if (act == BQ_SILU)
        glu_bwd_row(BQ_SILU, limit, n, g, u, dz, dg, du);
    else if (act == BQ_GELU_TANH)
        glu_bwd_row(BQ_GELU_TANH, limit, n, g, u, dz, dg, du);
    else
        glu_bwd_row(BQ_SILU_CLAMPED, limit, n, g, u, dz, dg, du);
}

double BQ_V(mse)(int64_t n, const float *y, const float *target, float slope, float *dy) {
    d16 sum = {};
    EACH(i, m, 0, n, {
        v16 e = load(y + i, m) - load(target + i, m);
        d16 wide = __builtin_convertvector(e, d16);
        sum += wide * wide;
        if (dy) store(dy + i, m, e * slope);
    });
    return total_double(sum);
}

double BQ_V(squares)(int64_t n, const float *x) {
    d16 sum = {};
    EACH(i, m, 0, n, {
        d16 wide = __builtin_convertvector(load(x + i, m), d16);
        sum += wide * wide;
    });
    return total_double(sum);
}

double BQ_V(sum_exp)(int64_t n, const float *x, float *max) {
    v16 tops = all(-INFINITY);
    EACH(i, m, 0, n, tops = larger(load_or(x + i, m, -INFINITY), tops););
    float top = *max = largest(tops);
    d16 sum = {};
    EACH(i, m, 0, n, sum += __builtin_convertvector(vexp(load_or(x + i, m, -INFINITY) - top), d16););
    return total_double(sum);
}

void BQ_V(cap)(int64_t n, float cap, float *x) {
    EACH(i, m, 0, n, store(x + i, m, cap * vtanh(load(x + i, m) / cap)););
}

double BQ_V(distill)(int64_t n, float cap, float slope, float *x, const float *y) {
    float topx, topy;
    const double sumx = BQ_V(sum_exp)(n, x, &topx), sumy = BQ_V(sum_exp)(n, y, &topy);
    const float overx = (float)(1 / sumx), overy = (float)(1 / sumy), bend = cap != 0 ? 1 / cap : 0;
    d16 sum = {};
    EACH(i, m, 0, n, v16 a = load_or(x + i, m, -INFINITY), b = load_or(y + i, m, -INFINITY);
         v16 q = vexp(a - topx) * overx, p = vexp(b - topy) * overy, lean = a * bend;
         v16 apart = pick(p > 0, p * ((b - topy) - (a - topx)), all(0));
         sum += __builtin_convertvector(apart, d16); store(x + i, m, slope * (q - p) * (1 - lean * lean)););
    return total_double(sum) + (log(sumx) - log(sumy));
}

/* The columns that row r of a tile sees: [from, end); none where from >= end. */
INLINE void see(bq_tile t, int64_t r, int64_t *from, int64_t *end) {
    int64_t last = t.shift + r;
    *from = t.window > 0 && last - t.window + 1 > 0 ? last - t.window + 1 : 0;
    *end = last + 1 < t.cols ? last + 1 : t.cols;
}

INLINE void hide(float *row, int64_t from, int64_t end, int64_t cols) {
    if (from >= end) from = end = cols;
    if (from > 0) memset(row, 0, (size_t)from * sizeof *row);
    if (end < cols) memset(row + end, 0, (size_t)(cols - end) * sizeof *row);
}

/* Up to 16 rows from row r.  All new maxima come first, so that their exponentials are one vector. */
static void softmax_rows(bq_tile t, int64_t r, float *s, float *max, float *sum, int64_t hd, int64_t ldo,
                         float *out) {
    int64_t rows = t.rows - r < LANES ? t.rows - r : LANES, from[LANES], end[LANES];
    float top[LANES] = {0}, shrink[LANES];
    for (int64_t l = 0; l < rows; l++) {
        see(t, r + l, &from[l], &end[l]);
        v16 tops = all(max[l]);
        float *row = s + l * t.ld;
        if (t.cap != 0) BQ_V(cap)(end[l] - from[l], t.cap, row + from[l]);
        EACH(i, m, from[l], end[l], tops = larger(load_or(row + i, m, -INFINITY), tops););
        top[l] = largest(tops);
    }
    store(shrink, LANES, vexp(load(max, rows) - load(top, rows)));
    for (int64_t l = 0; l < rows; l++) {
        float *row = s + l * t.ld;
        hide(row, from[l], end[l], t.cols);
        if (from[l] >= end[l]) continue;
        v16 adds = {};
        EACH(i, m, from[l], end[l], {
            v16 p = vexp(load_or(row + i, m, -INFINITY) - top[l]);
            store(row + i, m, p);
            adds += p;
        });
        max[l] = top[l], sum[l] = sum[l] * shrink[l] + total(adds);
        if (shrink[l] != 1) BQ_V(times)(hd, shrink[l], out + l * ldo, out + l * ldo);
    }
}

void BQ_V(softmax_tile)(bq_tile t, float *s, float *max, float *sum, int64_t hd, int64_t ldo, float *out) {
    for (int64_t r = 0; r < t.rows; r += LANES)
        softmax_rows(t, r, s + r * t.ld, max + r, sum + r, hd, ldo, out + r * ldo);
}

INLINE void softmax_bwd_rows(bq_tile t, bool capped, const float *lse, const float *d, float *s, float *dp) {
    for (int64_t r = 0; r < t.rows; r++, s += t.ld, dp += t.ld) {
        int64_t from, end;
        see(t, r, &from, &end);
        hide(s, from, end, t.cols);
        hide(dp, from, end, t.cols);
        EACH(i, m, from, end, {
            v16 x = load(s + i, m), h = capped ? vtanh(x / t.cap) : x,
                p = vexp((capped ? t.cap * h : x) - lse[r]), ds = p * (load(dp + i, m) - d[r]);
            store(s + i, m, p);
            store(dp + i, m, capped ? ds * (1.0f - h * h) : ds);
        });
    }
}

void BQ_V(softmax_bwd)(bq_tile t, const float *lse, const float *d, float *s, float *dp) {
    if (t.cap != 0)
        softmax_bwd_rows(t, true, lse, d, s, dp);
    else
        softmax_bwd_rows(t, false, lse, d, s, dp);
}
