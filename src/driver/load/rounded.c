/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/load/rounded.h"

#include "base/die.h"

#include <stdlib.h>

static int64_t groups_of(bq_scheme s, int64_t cols) { return s.group > 0 ? cols / s.group : 1; }

static int take(const char *name, bq_scheme s, int64_t hidden, bq_scheme *to) {
    *to = (bq_scheme){0};
    if (!bq_code_bits(s)) return BQ_OK;
    if (s.group > 0 && hidden % s.group)
        return bq_refuse(BQ_USAGE, "bits.%s: group %ld does not divide the hidden size %ld", name,
                         (long)s.group, (long)hidden);
    *to = s;
    if (s.group == hidden) to->group = -1;
    return BQ_OK;
}

int bq_rounded_of(bq_rounded *r, const bq_recipe *recipe, int64_t hidden) {
    int code = take("embedding", recipe->bits.embedding, hidden, &r->embedding);
    return code ? code : take("lm_head", recipe->bits.lm_head, hidden, &r->head);
}

bq_linear_most bq_rounded_most(const bq_recipe *recipe, const bq_layouts *layouts) {
    const bq_model *m = &layouts->at[0].arch->model;
    const bq_scheme of[] = {recipe->bits.embedding, recipe->bits.lm_head};
    bq_linear_most most = bq_linear_most_of(layouts);
    for (int i = 0; i < 2; i++) {
        size_t codes = (size_t)(m->vocab * m->hidden),
               scales = (size_t)(m->vocab * groups_of(of[i], m->hidden));
        if (!bq_code_bits(of[i])) continue;
        if (codes > most.codes) most.codes = codes;
        if (scales > most.scales) most.scales = scales;
    }
    return most;
}

int64_t bq_round_rows(int64_t cols) { return ((int64_t)1 << 18) / cols + 1; }

/* The host as a device: these ops need no memory of it. */
static bq_dev host(void) { return (bq_dev){.op = &bq_ops_cpu}; }

void bq_round_codes(bq_mat w, bq_scheme s, bq_mat code, bq_mat scale, bq_mat zero) {
    int64_t cols = w.cols / groups_of(s, w.cols);
    bq_mat rows = bq_mat_reshape(w, cols), step = bq_mat_reshape(scale, 1);
    bq_dev dev = host();
    if (zero.data) zero = bq_mat_reshape(zero, 1);
    dev.op->range(&dev, rows, s, step, zero);
    dev.op->quantize(&dev, rows, step, zero, s, bq_mat_reshape(code, cols));
}

void bq_round_values(bq_mat w, bq_scheme s) {
    if (!bq_code_bits(s)) return;
    int64_t most = bq_round_rows(w.cols), groups = groups_of(s, w.cols), cols = w.cols / groups;
    bq_dev dev = host();
    int8_t *code = malloc((size_t)(most * w.cols));
    float *scale = malloc((size_t)(2 * most * groups) * sizeof *scale);
    BQ_CHECK(code && scale, "no memory to round %ld rows", (long)most);
    for (int64_t first = 0, n; first < w.rows; first += n) {
        n = w.rows - first < most ? w.rows - first : most;
        bq_mat part = bq_mat_rows(w, first, n), codes = bq_mat_host(code, n, w.cols, BQ_I8),
               steps = bq_mat_host(scale, n * groups, 1, BQ_F32), zeros = {0};
        if (!s.symmetric) zeros = bq_mat_host(scale + most * groups, n * groups, 1, BQ_F32);
        bq_round_codes(part, s, codes, steps, zeros);
        dev.op->dequantize(&dev, bq_mat_reshape(codes, cols), steps, zeros, s, bq_mat_reshape(part, cols));
    }
    free(code);
    free(scale);
}
