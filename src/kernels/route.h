/* SPDX-License-Identifier: Apache-2.0 */
/* route.h - which experts a token takes, and their weights.  The same source for all backends. */
#ifndef BQ_KERNELS_ROUTE_H
#define BQ_KERNELS_ROUTE_H

#include <math.h>
#include <stdbool.h>

#include "base/num.h"

/* A router takes `chosen` of a token's experts by their logits l.
 *   SOFTMAX  those with the largest l; a = exp(l - the largest l); n = the sum of a over all experts or, with
 *            `normalize`, over those taken (Qwen-MoE; with it Mixtral, gpt-oss)
 *   SIGMOID  those with the largest s + bias, s = sigmoid(l), in the `kept` best of `groups` runs of experts;
 *            a run counts by the sum of its two largest s + bias.  a = s; n = 1 or, with `normalize`, the sum
 *            of a over those taken, + 1e-20 (DeepSeek-V3, GLM-4)
 * The weight of an expert is factor * a / n.  Of equal ones the smaller number is taken; NaN comes last. */
typedef enum { BQ_ROUTE_SOFTMAX, BQ_ROUTE_SIGMOID } bq_route_kind;
typedef struct {
    bq_route_kind kind;
    int chosen, groups, kept; /* groups: at most 64; 1, and kept 1: no groups */
    bool normalize;
    float factor;
} bq_router;

/* One token. */
typedef struct {
    bq_router r;
    const float *logits, *bias; /* bias: NULL where there is none */
    int experts;
} bq_routing;

static inline float bq_route_score(bq_routing t, int e) {
    if (t.r.kind == BQ_ROUTE_SOFTMAX) return t.logits[e];
    const float s = 1.0f / (1.0f + bq_exp(-t.logits[e]));
    return t.bias ? s + t.bias[e] : s;
}

/* A number that is larger for what is taken first; never 0. */
static inline uint64_t bq_route_key(float score, int number) {
    const uint32_t bits = bq_bits(score == score ? score + 0.0f : -INFINITY); /* -0 becomes 0 */
    return (uint64_t)(bits >> 31 ? ~bits : bits | 0x80000000u) << 32 | (0xffffffffu - (uint32_t)number);
}
static inline int bq_route_number(uint64_t key) { return (int)(0xffffffffu - (uint32_t)key); }

static inline float bq_route_group_score(bq_routing t, int group) {
    const int size = t.experts / t.r.groups;
    float first = -INFINITY, second = -INFINITY;
    for (int e = group * size; e < (group + 1) * size; e++) {
        const float s = bq_route_score(t, e);
        if (s > first)
            second = first, first = s;
        else if (s > second)
            second = s;
    }
    return size > 1 ? first + second : first;
}

/* The largest key below `below` among the groups, or the experts, first, first + step, ...; 0: there is none.
 * groups: bit g says that the experts of group g can be taken. */
static inline uint64_t bq_route_next_group(bq_routing t, int first, int step, uint64_t below) {
    uint64_t best = 0;
    for (int g = first; g < t.r.groups; g += step) {
        const uint64_t key = bq_route_key(bq_route_group_score(t, g), g);
        if (key < below && key > best) best = key;
    }
    return best;
}
static inline uint64_t bq_route_next(bq_routing t, uint64_t groups, int first, int step, uint64_t below) {
    uint64_t best = 0;
    for (int e = first; e < t.experts; e += step) {
        const uint64_t key = bq_route_key(bq_route_score(t, e), e);
        if (key < below && key > best && groups >> e / (t.experts / t.r.groups) & 1) best = key;
    }
    return best;
}

/* The largest logit, which a of SOFTMAX needs. */
static inline float bq_route_top(bq_routing t) {
    float top = -INFINITY;
    for (int e = 0; e < t.experts && t.r.kind == BQ_ROUTE_SOFTMAX; e++)
        top = t.logits[e] > top ? t.logits[e] : top;
    return top;
}

static inline double bq_route_a(bq_routing t, float top, int e) {
    const float l = t.logits[e];
    return (double)(t.r.kind == BQ_ROUTE_SOFTMAX ? bq_exp(l - top) : 1.0f / (1.0f + bq_exp(-l)));
}

/* n; index: the experts that are taken. */
static inline double bq_route_sum(bq_routing t, float top, const int32_t *index) {
    const bool all = !t.r.normalize, sigmoid = t.r.kind == BQ_ROUTE_SIGMOID;
    double sum = 0;
    if (all && sigmoid) return 1;
    for (int i = 0; i < (all ? t.experts : t.r.chosen); i++) sum += bq_route_a(t, top, all ? i : index[i]);
    return sigmoid ? sum + 1e-20 : sum;
}

/* The experts with a key of `least` or more, in ascending order, and their weights. */
static inline void bq_route_write(bq_routing t, uint64_t groups, uint64_t least, int32_t *index,
                                  float *weight) {
    const float top = bq_route_top(t);
    for (int e = 0, i = 0; e < t.experts && i < t.r.chosen; e++)
        if (groups >> e / (t.experts / t.r.groups) & 1 && bq_route_key(bq_route_score(t, e), e) >= least)
            index[i++] = e;
    const double n = bq_route_sum(t, top, index);
    for (int i = 0; i < t.r.chosen; i++)
        weight[i] = (float)((double)t.r.factor * bq_route_a(t, top, index[i]) / n);
}

/* The gradients of all logits from those of the weights. */
static inline void bq_route_back(bq_routing t, const int32_t *index, const float *dweight, float *dlogits) {
    const bool all = t.r.kind == BQ_ROUTE_SOFTMAX && !t.r.normalize;
    const float top = bq_route_top(t);
    const double f = (double)t.r.factor, n = bq_route_sum(t, top, index);
    double dot = 0;
    for (int i = 0; i < t.r.chosen; i++) dot += bq_route_a(t, top, index[i]) / n * (double)dweight[i];
    for (int e = 0; e < t.experts; e++) dlogits[e] = all ? (float)(-f * bq_route_a(t, top, e) / n * dot) : 0;
    for (int i = 0; i < t.r.chosen; i++) {
        const double a = bq_route_a(t, top, index[i]), d = (double)dweight[i],
                     slope = t.r.kind == BQ_ROUTE_SIGMOID ? a * (1 - a) : a; /* da / dl */
        dlogits[index[i]] = (float)(f * (all || t.r.normalize ? d - dot : d) * slope / n);
    }
}

#endif
