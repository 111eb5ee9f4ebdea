/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/rotate.h"

#include "base/die.h"

#include <math.h>

enum { LANES = BQ_ROTATE_LANES };

bool bq_rotation_exists(bq_rotate_kind kind, int64_t n, int64_t block) {
    bq_hadamard h;
    if (kind == BQ_ROTATE_NONE || kind == BQ_ROTATE_ORTHOGONAL) return true;
    if (kind == BQ_ROTATE_BLOCK) return block > 0 && n % block == 0 && bq_hadamard_of(block, &h);
    return bq_hadamard_of(n, &h);
}

size_t bq_rotation_need(bq_rotate_kind kind, int64_t n, int64_t block) {
    bq_hadamard h;
    if (kind == BQ_ROTATE_NONE) return 0;
    if (kind == BQ_ROTATE_ORTHOGONAL) return (size_t)(n + n * (n + 1) / 2);
    bool there = bq_hadamard_of(kind == BQ_ROTATE_BLOCK ? block : n, &h);
    BQ_CHECK(there, "no Hadamard matrix of size %ld", (long)n);
    size_t sum = kind == BQ_ROTATE_RANDOMIZED ? (size_t)n : 0;
    for (int f = 0; f < h.factors; f++) sum += (size_t)(h.order[f] * h.order[f]);
    return sum;
}

/* ---- making ---- */

static void draw_signs(bq_rng_key at, int64_t n, double *sign) {
    uint32_t word[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 128 == 0) bq_philox(at, (uint32_t)(i / 128), word);
        sign[i] = word[i % 128 / 32] >> (i % 32) & 1 ? -1 : 1;
    }
}

/* A number in (0, 1): 53 random bits, and half of the last one, so never 0 or 1. */
static double uniform(uint32_t high, uint32_t low) {
    return ((double)(((uint64_t)high << 32 | low) >> 11) + 0.5) / 9007199254740992.0;
}

/* By Box and Muller: four words give two values. */
static void draw_gaussian(bq_rng_key at, int64_t n, double *x) {
    uint32_t word[4];
    for (int64_t i = 0; i < n; i += 2) {
        bq_philox(at, (uint32_t)(i / 2), word);
        double radius = sqrt(-2 * log(uniform(word[0], word[1])));
        double angle = 6.283185307179586 * uniform(word[2], word[3]);
        x[i] = radius * cos(angle);
        if (i + 1 < n) x[i + 1] = radius * sin(angle);
    }
}

/* Make of a vector of length m, which is not 0, the reflection that maps it onto the first axis, and the sign
 * of what it becomes there. */
static double reflection(int64_t m, double *v) {
    double norm = 0;
    for (int64_t i = 0; i < m; i++) norm += v[i] * v[i];
    norm = sqrt(norm);
    double sign = v[0] < 0 ? 1 : -1, factor = sqrt(1 / (norm * (norm + fabs(v[0]))));
    v[0] -= sign * norm;
    for (int64_t i = 0; i < m; i++) v[i] *= factor;
    return sign;
}

/* Reflection k is of a Gaussian vector of length n - k.  The signs make the distribution of Q uniform
 * (Stewart, 1980). */
static void draw_reflections(bq_rng_key at, int64_t n, double *sign, double *v) {
    for (int64_t k = 0; k < n; k++) {
        int64_t m = n - k;
        at.sample = (uint32_t)k;
        draw_gaussian(at, m, v);
        sign[k] = reflection(m, v);
        if (m > 1) v += m;
    }
}

void bq_rotation_of(bq_rotation *r, int64_t n, double *columns, double *memory) {
    double *v = memory + n;
    *r = (bq_rotation){.kind = BQ_ROTATE_ORTHOGONAL, .n = n, .sign = memory, .reflect = v};
    for (int64_t k = 0, m = n; m > 1; k++, v += m--) {
        for (int64_t i = 0; i < m; i++) v[i] = columns[k * n + k + i];
        memory[k] = reflection(m, v);
#pragma omp parallel for schedule(static)
        for (int64_t j = k + 1; j < n; j++) {
            double *at = columns + j * n + k, dot = 0;
            for (int64_t i = 0; i < m; i++) dot += v[i] * at[i];
            for (int64_t i = 0; i < m; i++) at[i] -= dot * v[i];
        }
    }
    memory[n - 1] = columns[n * n - 1] < 0 ? -1 : 1;
}

void bq_rotation_make(bq_rotation *r, bq_rotate_kind kind, int64_t n, int64_t block, bq_rng_key at,
                      double *memory) {
    int8_t m[BQ_HADAMARD_ORDER * BQ_HADAMARD_ORDER];
    *r = (bq_rotation){.kind = kind, .n = n};
    at.sample = 0;
    if (kind == BQ_ROTATE_RANDOMIZED) {
        draw_signs(at, n, memory);
        r->sign = memory;
        memory += n;
    }
    if (kind == BQ_ROTATE_ORTHOGONAL) {
        draw_reflections(at, n, memory, memory + n);
        r->sign = memory, r->reflect = memory + n;
        return;
    }
    bool there = bq_hadamard_of(kind == BQ_ROTATE_BLOCK ? block : n, &r->h);
    BQ_CHECK(there, "no Hadamard matrix of size %ld", (long)n);
    r->scale = 1 / sqrt((double)r->h.n);
    for (int f = 0; f < r->h.factors; f++) {
        int order = r->h.order[f];
        bq_hadamard_factor(order, m);
        for (int i = 0; i < order * order; i++) memory[i] = m[i];
        r->factor[f] = memory;
        memory += order * order;
    }
}

/* ---- applying ---- */

static void scale(const double *sign, double factor, int64_t n, double *x) {
    for (int64_t i = 0; i < n; i++)
        for (int l = 0; l < LANES; l++) x[i * LANES + l] *= sign ? sign[i] * factor : factor;
}

/* Products of the vectors v with two columns of m, the first at m: the sums stay in registers. */
static void two_columns(const double *m, int order, const double (*v)[LANES], double *to, double *next) {
    double a[LANES] = {0}, b[LANES] = {0};
    for (int i = 0; i < order; i++) {
        for (int l = 0; l < LANES; l++) a[l] += v[i][l] * m[i * order];
        for (int l = 0; l < LANES; l++) b[l] += v[i][l] * m[i * order + 1];
    }
    for (int l = 0; l < LANES; l++) to[l] = a[l], next[l] = b[l];
}

/* x has indices (outer, order, inner): multiply by the dense factor m along the middle one.  order is
 * even. */
static void apply_factor(const double *m, int order, int64_t outer, int64_t inner, double *x) {
    double v[BQ_HADAMARD_ORDER][LANES];
    for (int64_t k = 0; k < outer * inner; k++) {
        double *at = x + (k / inner * order * inner + k % inner) * LANES;
        for (int i = 0; i < order; i++)
            for (int l = 0; l < LANES; l++) v[i][l] = at[i * inner * LANES + l];
        for (int j = 0; j < order; j += 2)
            two_columns(m + j, order, v, at + j * inner * LANES, at + (j + 1) * inner * LANES);
    }
}

/* The fast Walsh-Hadamard transform of each run of `power` elements. */
static void apply_power(int64_t n, int64_t power, double *x) {
    for (int64_t h = 1; h < power; h *= 2) {
        for (int64_t start = 0; start < n; start += 2 * h) {
            for (int64_t i = start; i < start + h; i++) {
                double *a = x + i * LANES, *b = x + (i + h) * LANES;
                for (int l = 0; l < LANES; l++) {
                    double sum = a[l] + b[l], difference = a[l] - b[l];
                    a[l] = sum, b[l] = difference;
                }
            }
        }
    }
}

static void apply_reflections(const double *v, int64_t n, double *x) {
    for (int64_t m = n; m > 1; v += m, m--) {
        double *at = x + (n - m) * LANES, dot[LANES] = {0};
        for (int64_t i = 0; i < m; i++)
            for (int l = 0; l < LANES; l++) dot[l] += v[i] * at[i * LANES + l];
        for (int64_t i = 0; i < m; i++)
            for (int l = 0; l < LANES; l++) at[i * LANES + l] -= v[i] * dot[l];
    }
}

void bq_rotation_apply(const bq_rotation *r, double *x) {
    if (r->kind == BQ_ROTATE_NONE) return;
    if (r->reflect) {
        apply_reflections(r->reflect, r->n, x);
        scale(r->sign, 1, r->n, x);
        return;
    }
    scale(r->sign, r->scale, r->n, x);
    int64_t outer = r->n / r->h.n, inner = r->h.n;
    for (int f = 0; f < r->h.factors; f++) {
        inner /= r->h.order[f];
        apply_factor(r->factor[f], r->h.order[f], outer, inner, x);
        outer *= r->h.order[f];
    }
    apply_power(r->n, r->h.power, x);
}

/* ---- panels ---- */

size_t bq_rotate_room(int64_t n) { return (size_t)(n * BQ_ROTATE_PANEL); }

/* Read columns [first, first + LANES), times gamma, into tile, and rotate them by r1.  Columns beyond m are
 * 0. */
static void take(bq_panel p, const float *gamma, const bq_rotation *r1, int64_t first, double *tile) {
    for (int64_t i = 0; i < p.n; i++) {
        double g = gamma ? (double)gamma[i] : 1;
        for (int64_t j = first, l = 0; l < LANES; j++, l++)
            tile[i * LANES + l] = j < p.m ? (double)p.w[i * p.outer + j * p.inner] * g : 0;
    }
    if (r1) bq_rotation_apply(r1, tile);
}

/* Rotate rows [first, first + LANES) of the tiles of columns by r2, and write them to the matrix. */
static void give(bq_panel p, const bq_rotation *r2, int64_t first, const double *room) {
    double tile[BQ_ROTATE_PANEL * LANES];
    int64_t rows = p.n - first < LANES ? p.n - first : LANES;
    for (int64_t j = 0; j < p.m; j++) {
        const double *from = room + (j / LANES * p.n + first) * LANES + j % LANES;
        for (int64_t l = 0; l < LANES; l++) tile[j * LANES + l] = l < rows ? from[l * LANES] : 0;
    }
    if (r2) bq_rotation_apply(r2, tile);
    for (int64_t j = 0; j < p.m; j++)
        for (int64_t l = 0; l < rows; l++)
            p.w[(first + l) * p.outer + j * p.inner] = (float)tile[j * LANES + l];
}

void bq_rotate_panel(bq_panel p, const float *gamma, const bq_rotation *r1, const bq_rotation *r2,
                     double *room) {
    BQ_CHECK(p.m <= BQ_ROTATE_PANEL && (!r1 || r1->n == p.n) && (!r2 || r2->n == p.m),
             "a panel of %ld x %ld does not fit its rotation", (long)p.n, (long)p.m);
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < p.m; j += LANES) take(p, gamma, r1, j, room + j * p.n);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < p.n; i += LANES) give(p, r2, i, room);
}
