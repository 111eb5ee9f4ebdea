/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/tensors.h"

#include "base/die.h"
#include "comm/heartbeat.h"
#include "driver/recipe/traits.h"
#include "driver/load/through.h"
#include "driver/run/observe.h"
#include "driver/score/observed.h"
#include "io/in/fp8.h"

#include <stdlib.h>
#include <string.h>

static void open_unit(bq_result_tensors *t, int block, int unit) {
    char path[BQ_PATH_MAX + 64], why[BQ_WHY];
    if (t->file && t->block == block && t->unit == unit) return;
    bq_ckpt_close(t->file);
    bq_run_checkpoint(t->s, block, unit, path, sizeof path);
    int found = bq_ckpt_open(&t->file, path, bq_run_tag(t->s), &t->head, why);
    BQ_CHECK(found == BQ_CKPT_OK, "%s: damaged since the run began: %s; `blockq run` makes it again", path,
             why);
    BQ_CHECK(t->folds || !bq_ckpt_folded(&t->head), "%s has norms of its own, which no pass makes", path);
    t->block = block, t->unit = unit;
}

/* For the largest tensor. */
static void take_room(bq_result_tensors *t) {
    bq_linear_most most = bq_rounded_most(&t->s->recipe, &t->s->layouts);
    t->code = malloc(most.codes);
    t->scale = malloc(most.scales * sizeof(float));
    t->zero = malloc(most.scales * sizeof(float));
    t->pre = malloc(most.cols * sizeof(float));
    BQ_CHECK(t->code && t->scale && t->zero && t->pre, "no memory for a tensor of %zu weights", most.codes);
}

/* Fill q with the codes of embedding or head.  No checkpoint has them: they are computed here. */
static void round_rows(bq_result_tensors *t, const char *name, bq_qtensor *q) {
    int64_t cols = q->code.cols, most = bq_round_rows(cols);
    float *room = malloc((size_t)(most * cols) * sizeof *room);
    BQ_CHECK(room, "no memory to round %ld rows", (long)most);
    for (int64_t first = 0, n; first < q->code.rows; first += n) {
        n = q->code.rows - first < most ? q->code.rows - first : most;
        bq_mat rows = bq_mat_host(room, n, cols, BQ_F32), zero = {0};
        if (q->zero.rows) zero = bq_mat_rows(q->zero, first, n);
        bq_source_rows(&t->s->src, name, first, rows);
        bq_round_codes(rows, q->scheme, bq_mat_rows(q->code, first, n), bq_mat_rows(q->scale, first, n),
                       zero);
        bq_heartbeat();
    }
    free(room);
}

/* The embedding, or a head that is a tensor of its own. */
static bool get_rounded(bq_result_tensors *t, bq_tensor_kind kind, bool want_data, bq_qtensor *q) {
    const bq_source *src = &t->s->src;
    const bq_model *m = &src->arch.model;
    bool head = kind == BQ_TENSOR_HEAD;
    bq_scheme s = head ? src->rounded.head : src->rounded.embedding;
    if (!bq_code_bits(s) || (head && bq_source_tied(src))) return false;
    int64_t groups = s.group > 0 ? m->hidden / s.group : 1;
    if (want_data && !t->code) take_room(t);
    *q = (bq_qtensor){.scheme = s,
                      .code = bq_mat_host(t->code, m->vocab, m->hidden, BQ_I8),
                      .scale = bq_mat_host(t->scale, m->vocab, groups, BQ_F32),
                      .zero = bq_mat_host(t->zero, s.symmetric ? 0 : m->vocab, groups, BQ_F32)};
    if (want_data && t->held != kind) round_rows(t, head ? bq_source_head_name(src) : src->arch.embed, q);
    if (want_data) t->held = kind;
    return true;
}

static bool get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    bq_result_tensors *t = ctx;
    bq_heartbeat();
    bq_tensor_id id = bq_source_id(&t->s->src, name);
    if (id.kind == BQ_TENSOR_EMBED || id.kind == BQ_TENSOR_HEAD) return get_rounded(t, id.kind, want_data, q);
    if (id.kind != BQ_TENSOR_WEIGHT) return false;
    int i, unit = bq_arch_unit_of(bq_source_arch(&t->s->src, id.block), id.at, &i);
    const bq_layout *layout = bq_run_layout(t->s, id.block, unit);
    const bq_linear *l = &layout->arch->linear[i];
    bq_scheme scheme = layout->scheme[i];
    if (scheme.group == l->cols && bq_element_whole(scheme.element)) scheme.group = -1;
    int64_t groups = bq_linear_groups(layout->arch, layout->scheme, i);
    *q = (bq_qtensor){.scheme = scheme,
                      .inputs = bq_recipe_inputs(&t->s->recipe),
                      .fixed = bq_recipe_inputs_measured(&t->s->recipe),
                      .code = bq_mat_host(NULL, l->rows, l->cols, BQ_I8),
                      .scale = bq_mat_host(NULL, l->rows, groups, BQ_F32),
                      .zero = bq_mat_host(NULL, scheme.symmetric ? 0 : l->rows, groups, BQ_F32),
                      .pre = bq_mat_host(NULL, bq_recipe_prescaled(&t->s->recipe), l->cols, BQ_F32)};
    if (!want_data) return true;
    open_unit(t, id.block, unit);
    if (!t->code) take_room(t);
    t->held = id.kind;
    q->code.data = t->code, q->scale.data = t->scale;
    bq_ckpt_read(t->file, i, BQ_CKPT_CODE, q->code);
    bq_ckpt_read(t->file, i, BQ_CKPT_SCALE, q->scale);
    if (scheme.scale == BQ_F8_E4M3)
        bq_ckpt_read(t->file, i, BQ_CKPT_OUTER, bq_mat_host(&q->scheme.outer, 1, 1, BQ_F32));
    if (q->pre.rows) q->pre.data = t->pre, bq_ckpt_read(t->file, i, BQ_CKPT_PRE, q->pre);
    if (q->zero.rows) q->zero.data = t->zero, bq_ckpt_read(t->file, i, BQ_CKPT_ZERO, q->zero);
    return true;
}

/* A tensor that transforms have changed; a head that was the embedding, and now keeps the values that the
 * embedding had; or a tensor that is FP8 in the model, which no output has.  False: it is as in the model. */
static bool of_source(const bq_source *src, const char *name, int64_t first, bq_mat to) {
    const bq_tensor *t = bq_weights_find(src->weights, name);
    if (bq_rotated_read(src->rotated, name, first, to)) return true;
    if (bq_source_id(src, name).kind == BQ_TENSOR_HEAD && src->arch.model.tied && !bq_source_tied(src)) {
        if (to.data) bq_source_rows(src, src->arch.embed, first, to);
        return true;
    }
    if (!t || !bq_fp8_tensor(src->weights, t)) return false;
    if (to.data) bq_weights_read(src->weights, t, first, to.rows, to);
    return true;
}

/* Which of the norms that a checkpoint keeps (bq_block_kept_norm) this one is; -1: none. */
static int kept(const bq_arch *arch, int at) {
    for (int i = 0; i < BQ_NORMS_FOLDED; i++)
        if (at == (arch->gains[i] ? i : BQ_NORM_O + i)) return i;
    return -1;
}

/* The same, or changed by passes.  The exporter must know which tensors are floats before it knows which
 * blocks the passes have changed.  So where passes may change norms and biases, those of all blocks are
 * written as floats. */
static bool dense(void *ctx, const char *name, int64_t first, bq_mat to) {
    bq_result_tensors *t = ctx;
    bq_heartbeat();
    const bq_source *src = &t->s->src;
    bq_tensor_id id = bq_source_id(src, name);
    if (id.kind == BQ_TENSOR_NORM && t->s->final_norm) {
        for (int64_t i = 0; i < to.cols && to.data; i++)
            bq_f32(to)[i] = t->s->final_norm[i] - src->arch.gain_of_zero;
        return true;
    }
    const int norm = id.kind == BQ_TENSOR_BLOCK_NORM ? kept(bq_source_arch(src, id.block), id.at) : -1;
    const bool gain = norm >= 0;
    if (!t->folds || (!gain && id.kind != BQ_TENSOR_BIAS)) return of_source(src, name, first, to);
    if (!to.data) return true;
    int at = id.at, unit = gain ? 0 : bq_arch_unit_of(bq_source_arch(src, id.block), id.at, &at);
    open_unit(t, id.block, unit);
    if (!bq_ckpt_folded(&t->head))
        bq_source_rows(src, name, first, to);
    else if (gain)
        bq_ckpt_read_norm(t->file, norm, to);
    else
        bq_ckpt_read(t->file, at, BQ_CKPT_BIAS, to);
    for (int64_t i = 0; i < to.cols && gain; i++) bq_f32(to)[i] -= src->arch.gain_of_zero;
    return true;
}

/* Of the weight of a linear: its unit, and its number there.  NULL: it is none. */
static const bq_linear *linear_of(const bq_run *s, const char *name, int *block, int *unit) {
    bq_tensor_id id = bq_source_id(&s->src, name);
    int i;
    if (id.kind != BQ_TENSOR_WEIGHT) return NULL;
    *block = id.block, *unit = bq_arch_unit_of(bq_source_arch(&s->src, id.block), id.at, &i);
    return &bq_run_layout(s, *block, *unit)->arch->linear[i];
}

static bool cache(void *ctx, const char *name, const float **scale) {
    const bq_run *s = ((bq_result_tensors *)ctx)->s;
    int block, unit;
    const bq_linear *l = linear_of(s, name, &block, &unit);
    if (!l || (strcmp(l->name, "k_proj") && strcmp(l->name, "qkv_proj"))) return false;
    if (scale && s->kv) *scale = s->kv + 2 * block * bq_observed_heads(&s->recipe, &s->src.arch);
    return true;
}

static bq_ends_grid grid(void *ctx, const char *name) {
    const bq_run *s = ((bq_result_tensors *)ctx)->s;
    int block, unit;
    const bq_linear *l = linear_of(s, name, &block, &unit);
    BQ_CHECK(l && s->grids, "export: nothing was measured for the inputs of '%s'", name);
    const float *at = s->grids + 2 * (bq_through_sites(&s->src, block, unit) + l->site);
    return (bq_ends_grid){at[0] > 0 ? at[0] : 1, at[1]};
}

static bool inputs(void *ctx, const char *name, float *tokens, float *square) {
    const bq_run *s = ((bq_result_tensors *)ctx)->s;
    int block, unit;
    const bq_linear *l = linear_of(s, name, &block, &unit);
    if (!l || !tokens) return l;
    float *numbers = malloc((size_t)(1 + l->cols) * sizeof *numbers);
    BQ_CHECK(numbers, "no memory for %ld inputs", (long)l->cols);
    bq_observe_site(s, block, unit, l->site, numbers);
    *tokens = numbers[0];
    memcpy(square, numbers + 1, (size_t)l->cols * sizeof *square);
    free(numbers);
    return true;
}

/* Passes that prepare may change norms and biases, and so does distillation. */
static bool folds(const bq_recipe *r) {
    bool any = r->distill.steps && r->distill.norms;
    for (int i = 0; i < r->nphase; i++) any |= bq_phase_prepares(&r->phase[i]);
    return any;
}

bq_qsource bq_result_tensors_of(bq_result_tensors *t, const bq_run *s) {
    const bq_rounding cached = bq_recipe_cache(&s->recipe, &s->src.arch.model);
    *t = (bq_result_tensors){.s = s, .folds = folds(&s->recipe)};
    return (bq_qsource){
        .ctx = t,
        .get = get,
        .dense = dense,
        .cache = cached.element ? cache : NULL,
        .cached = cached,
        .heads = bq_recipe_cache_measured(&s->recipe) ? bq_observed_heads(&s->recipe, &s->src.arch) : 0,
        .grid = grid,
        .inputs = inputs,
        .samples = s->recipe.calibration.samples,
        .length = s->recipe.calibration.length};
}

void bq_result_tensors_close(bq_result_tensors *t) {
    bq_ckpt_close(t->file);
    free(t->code);
    free(t->scale);
    free(t->zero);
    free(t->pre);
}
