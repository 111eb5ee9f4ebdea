/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/cost.h"

#include <math.h>

void bq_effort_add(bq_effort *to, double times, bq_effort e) {
    for (int k = 0; k < BQ_RATES; k++) to->flop[k] += times * e.flop[k];
    to->memory += times * e.memory, to->sent += times * e.sent, to->passed += times * e.passed;
    to->messages += times * e.messages, to->idle += times * e.idle, to->files += times * e.files;
    to->written += times * e.written, to->saves += times * e.saves;
}

double bq_effort_flop(const bq_effort *e) {
    double sum = 0;
    for (int k = 0; k < BQ_RATES; k++) sum += e->flop[k];
    return sum;
}

bq_effort bq_effort_as(bq_effort e, bq_compute compute) {
    double products = e.flop[BQ_RATE_PRODUCTS];
    e.flop[BQ_RATE_PRODUCTS] = 0;
    e.flop[BQ_RATE_PRODUCTS + compute] += products;
    return e;
}

/* Bytes (f32) for one sample in one block: what ops other than GEMMs read and write (norms, rope, attention,
 * gating, residuals), and the weights that GEMMs read. */
static double traffic(const bq_arch *arch, double tokens) {
    const bq_model *m = &arch->model;
    return 4 * tokens *
               (double)(12 * m->hidden + 3 * bq_arch_inter(arch) +
                        3 * (m->heads + 2 * m->kv_heads) * m->head_dim) +
           4 * (double)bq_arch_weights(arch);
}

/* Multiplications of causal attention: scores and outputs. */
static double attention(const bq_arch *arch, double tokens) {
    const bq_model *m = &arch->model;
    int64_t values = m->kv_rank ? m->value_dim : m->head_dim;
    return tokens * tokens * (double)(m->heads * (m->head_dim + values)) / 2;
}

bq_effort bq_effort_forward(const bq_arch *arch, double tokens) {
    return (bq_effort){.flop = {[BQ_RATE_PRODUCTS] = 2 * tokens * (double)bq_arch_weights(arch),
                                [BQ_RATE_ATTENTION] = 2 * attention(arch, tokens)},
                       .memory = traffic(arch, tokens)};
}

bq_effort bq_effort_forward_to(const bq_arch *arch, double tokens, int to) {
    bq_effort f = bq_effort_forward(arch, tokens);
    double all = bq_effort_flop(&f);
    for (int m = to; m < arch->sites; m++)
        f.flop[BQ_RATE_PRODUCTS] -= 2 * tokens * (double)(arch->site[m].rows * arch->site[m].cols);
    if (to < bq_arch_mlp(arch) - 1 || to == 0) f.flop[BQ_RATE_ATTENTION] = 0;
    if (to == 0) f.flop[BQ_RATE_PRODUCTS] = 0;
    f.memory *= bq_effort_flop(&f) / all;
    return f;
}

bq_effort bq_effort_midway(const bq_cost *c, int to) {
    bq_effort e = {0};
    bq_effort_add(&e, c->samples, bq_effort_forward_to(c->arch, c->tokens, to));
    if (to >= bq_arch_mlp(c->arch) && to > 0)
        bq_effort_add(&e, -fmin(c->kept, c->samples), bq_effort_forward_to(c->arch, c->tokens, to - 1));
    return e;
}

bq_effort bq_effort_backward(const bq_arch *arch, double tokens) {
    double p = (double)bq_arch_weights(arch), first = (double)(arch->site[0].rows * arch->site[0].cols);
    return (bq_effort){.flop = {[BQ_RATE_PRODUCTS] = 2 * tokens * (2 * p - first),
                                [BQ_RATE_ATTENTION_BACK] = 5 * attention(arch, tokens)},
                       .memory = 3 * traffic(arch, tokens)};
}

double bq_effort_powers(const bq_arch *arch, double a, double b) {
    double sum = 0;
    for (int m = 0; m < arch->sites; m++)
        sum += pow((double)arch->site[m].rows, a) * pow((double)arch->site[m].cols, b);
    return sum;
}

/* About how many nodes of the tree of a sum a range of that many leaves ends as: the ones in its binary form.
 * Exact for a range that starts at leaf 0. */
static double nodes(double leaves) { return __builtin_popcountl((unsigned long)leaves); }

bq_effort bq_effort_grams(const bq_cost *c) {
    double squares = bq_effort_powers(c->arch, 0, 2), others = (c->replicas - 1) / c->replicas;
    return (bq_effort){.flop = {[BQ_RATE_GRAM] = c->samples * c->tokens * squares},
                       .memory = c->samples * 12 * squares,
                       .sent = 4 * squares * others * (nodes(c->samples) + 1),
                       .messages = c->replicas > 1 ? 2 * c->arch->sites : 0};
}

/* Different replicas factor different matrices, but one matrix is factored by one replica. */
double bq_effort_factors(const bq_cost *c) {
    double largest = 0;
    for (int m = 0; m < c->arch->sites; m++) largest = fmax(largest, pow((double)c->arch->site[m].cols, 3));
    return 2.0 / 3 * fmax(largest, bq_effort_powers(c->arch, 0, 3) / c->replicas);
}

bq_effort bq_effort_rows(const bq_cost *c) {
    return (bq_effort){.sent = 4 * c->weights * (c->replicas - 1) / c->replicas,
                       .messages = c->replicas > 1 ? c->arch->sites : 0};
}
