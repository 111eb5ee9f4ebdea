/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/score/score.h"

#include "base/die.h"
#include "base/log.h"
#include "base/shard.h"
#include "comm/heartbeat.h"
#include "driver/eval/perplexity.h"
#include "io/state/stream.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- evaluations, and what they take ---- */

/* Check the last evaluation of the set.  name: of the length of its longest sequence, for messages. */
static int check(const bq_evals *set, const bq_source *src, const char *name) {
    const bq_eval *e = &set->eval[set->count - 1];
    int code = bq_source_check_tokens(src, e->path, &e->tokens, e->first, e->used);
    if (!code) bq_source_check_length(src, name, e->ctx);
    return code;
}

int bq_score_open(bq_evals *set, bq_recipe *r, const bq_source *src, const char *ctx) {
    int code = BQ_OK;
    *set = (bq_evals){.object = r->eval.tokens[0] != 0};
    if (set->object) code = bq_evals_add(set, &bq_eval_kind_perplexity, &r->eval);
    if (set->object && !code) code = check(set, src, ctx);
    for (int i = 0; i < r->nevals && !code; i++) {
        char name[48];
        snprintf(name, sizeof name, "the longest sequence of evals.%d", i);
        code = bq_evals_add(set, bq_eval_kind_at(r->evals[i].kind), r->evals[i].options);
        if (!code) code = check(set, src, name);
    }
    return code;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t need_of(const bq_layouts *layouts, bool quantized, bool prescaled, const bq_eval *e) {
    const bq_arch *arch = layouts->at[0].arch;
    int64_t ctx = e->ctx;
    int64_t h = arch->model.hidden, v = arch->model.vocab;
    size_t blocks = bq_through_need(arch, ctx), factors = 0;
    if (quantized) blocks += bq_quantized_need_any(layouts, prescaled);
    for (int i = 0; i < layouts->count && prescaled; i++)
        factors = larger(factors, bq_block_pre_scratch(layouts->at[i].arch, ctx));
    size_t head = bq_arena_need(1, h, BQ_F32) + bq_arena_need(v, h, BQ_F32) + bq_arena_need(ctx, 1, BQ_I32) +
                  2 * bq_arena_need(ctx, h, BQ_F32) + (e->kind->pick ? bq_arena_need(1, v, BQ_F32) : 0);
    return larger(blocks + factors, head) + bq_op_scratch(ctx, arch->attention, v);
}

size_t bq_score_need(const bq_layouts *layouts, bool quantized, bool prescaled, const bq_evals *set) {
    size_t most = 0;
    for (int i = 0; i < set->count; i++)
        most = larger(most, need_of(layouts, quantized, prescaled, &set->eval[i]));
    return most;
}

size_t bq_score_host(const bq_arch *arch, const bq_evals *set, int ranks) {
    size_t most = 0, row = (size_t)(arch->model.hidden + arch->model.head_dim) * sizeof(float);
    for (int i = 0; i < set->count; i++) {
        const bq_eval *e = &set->eval[i];
        size_t ctx = (size_t)e->ctx, scores = (size_t)e->sequences;
        size_t logits = e->kind->pick ? (size_t)arch->model.vocab * sizeof(float) : 0;
        most =
            larger(most, ctx * (row + sizeof(int32_t) + sizeof(double)) + scores * sizeof(double) + logits +
                             bq_routed_host(arch, bq_shard_of(e->sequences, 0, ranks).count, e->ctx));
    }
    return most;
}

size_t bq_score_stream(const bq_arch *arch, const bq_evals *set, int ranks) {
    size_t most = 0;
    for (int i = 0; i < set->count; i++) {
        const bq_eval *e = &set->eval[i];
        size_t one = bq_stream_need(bq_shard_of(e->sequences, 0, ranks).count, e->ctx, arch->model.hidden);
        most = larger(most, (arch->experts ? 2 : 1) * one); /* with the inputs of experts */
    }
    return most;
}

/* ---- the walk ---- */

typedef struct {
    const bq_score *s;
    const bq_eval *e;
    bool rounded;        /* embedding and head, as the recipe says */
    bq_shard share;      /* my sequences */
    bq_stream stream;    /* their hidden states */
    bq_mat buffer;       /* host (ctx, H) */
    int32_t *ids;        /* of the current one, padded to ctx */
    int64_t *lengths;    /* of each of mine */
    int64_t count, from; /* its length; the first token that is scored */
    int block;
} walk;

/* Padding repeats the last id of the sequence, whose values are finite if those of the sequence are. */
static void take_ids(walk *w, int64_t i) {
    w->count = w->e->kind->sequence(w->e, w->share.first + i, w->ids, &w->from);
    for (int64_t t = w->count; t < w->e->ctx; t++) w->ids[t] = w->ids[w->count - 1];
}

static void embed(walk *w) {
    for (int64_t i = 0; i < w->share.count; i++) {
        take_ids(w, i);
        w->lengths[i] = w->count;
        bq_source_embed(w->s->src, w->ids, w->rounded, w->buffer);
        bq_stream_put(&w->stream, i, w->buffer);
    }
}

static void step(void *ctx, int unit, int64_t i) {
    walk *w = ctx;
    const bq_model *m = &w->s->src->arch.model;
    int64_t units = 1 + m->experts, all = w->share.count * units;
    char note[64];
    bq_heartbeat();
    snprintf(note, sizeof note, "eval %s  block %d/%d", w->s->label, w->block + 1, m->blocks);
    bq_progress(w->block * all + unit * w->share.count + i + 1, m->blocks * all, note);
}

/* All my sequences through all blocks.  False on all ranks: a stop came to one. */
static bool blocks(walk *w, const bq_layouts *layouts, bq_weights_of weights, void *ctx) {
    const bq_score *s = w->s;
    bq_dev *dev = s->dev;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_through t;
    bq_through_open(&t, s->src, s->angles, dev, w->share.count, w->e->ctx, s->home);
    t.buffer = w->buffer, t.step = step, t.step_ctx = w, t.real = w->lengths;
    t.layouts = layouts, t.weights = weights, t.ctx = ctx;
    if (weights) t.work.inputs = s->inputs, t.work.cache = s->cache, t.grids = s->grids, t.kv = s->kv;
    if (weights) bq_quantized_push_any(&t.q, layouts, s->prescaled, &dev->mem);
    bool stop = false;
    for (w->block = 0; w->block < s->src->arch.model.blocks && !stop; w->block++) {
        stop = s->stopped && bq_comm_agree(s->comm, s->stopped(s->stop_ctx));
        if (!stop) bq_through_block(&t, w->block, w->share.count, &w->stream, &w->stream);
    }
    bq_through_close(&t);
    bq_arena_reset(&dev->mem, mark);
    return !stop;
}

/* The losses of a sequence, to its score.  y: the normed hidden states; the matrices are on the device. */
static double judge(walk *w, int64_t k, bq_mat y, bq_mat table, bq_mat next, double *nll) {
    bq_dev *dev = w->s->dev;
    int64_t n = w->count - w->from;
    bq_mat wanted = bq_mat_rows(next, 0, n);
    dev->op->put(dev, bq_mat_host(w->ids + w->from, n, 1, BQ_I32), wanted);
    dev->op->xent(dev, bq_mat_rows(y, w->from - 1, n), table, (float)w->s->src->arch.model.logit_cap, wanted,
                  nll);
    dev->op->wait(dev);
    return w->e->kind->judge(w->e, k, nll, n);
}

/* The logits behind the last token of a sequence, to its score. */
static double pick(walk *w, int64_t k, bq_mat y, bq_mat table, bq_mat logits, float *there) {
    bq_dev *dev = w->s->dev;
    bq_mat to = bq_mat_host(there, 1, logits.cols, BQ_F32);
    dev->op->gemm(dev, false, true, 1, bq_mat_rows(y, w->count - 1, 1), table, 0, logits);
    dev->op->get(dev, logits, to);
    dev->op->wait(dev);
    const float cap = (float)w->s->src->arch.model.logit_cap;
    for (int64_t i = 0; cap > 0 && i < to.cols; i++) there[i] = cap * tanhf(there[i] / cap);
    return w->e->kind->pick(w->e, k, there, to.cols);
}

/* The final norm and the head: score[i] of my sequences. */
static void head(walk *w, double *score) {
    const bq_score *s = w->s;
    const bq_model *m = &s->src->arch.model;
    const bq_eval_kind *kind = w->e->kind;
    bq_dev *dev = s->dev;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat norm = bq_arena_push(&dev->mem, 1, m->hidden, BQ_F32);
    bq_mat table = bq_arena_push(&dev->mem, m->vocab, m->hidden, BQ_F32);
    bq_mat x = bq_arena_push(&dev->mem, w->e->ctx, m->hidden, BQ_F32);
    bq_mat y = bq_arena_push(&dev->mem, w->e->ctx, m->hidden, BQ_F32);
    bq_mat next = kind->pick ? bq_arena_push(&dev->mem, 1, m->vocab, BQ_F32)
                             : bq_arena_push(&dev->mem, w->e->ctx - 1, 1, BQ_I32);
    void *there =
        kind->pick ? malloc((size_t)m->vocab * sizeof(float)) : malloc((size_t)w->e->ctx * sizeof(double));
    BQ_CHECK(there, "no memory for the losses of %ld tokens", (long)w->e->ctx);
    bq_source_head(s->src, dev, w->rounded, norm, table);
    if (w->rounded && s->norm) dev->op->put(dev, bq_mat_host((float *)s->norm, 1, m->hidden, BQ_F32), norm);
    for (int64_t i = 0; i < w->share.count; i++) {
        int64_t k = w->share.first + i;
        take_ids(w, i);
        dev->op->put(dev, bq_stream_get(&w->stream, i, w->buffer), x);
        dev->op->rmsnorm(dev, x, norm, (float)m->eps, y);
        score[k] = kind->pick ? pick(w, k, y, table, next, there) : judge(w, k, y, table, next, there);
        bq_heartbeat();
        if (bq_fault("window_nan")) score[k] = NAN;
    }
    free(there);
    bq_arena_reset(&dev->mem, mark);
}

/* The number from all scores, which are the same on all ranks.  own: of the model's own weights. */
static int conclude(const bq_score *s, const bq_eval *e, const double *score, bool own, double *value) {
    char why[128];
    e->kind->number(e, score, value);
    *value = bq_eval_unsigned(*value);
    if (isfinite(*value)) return BQ_OK;
    e->kind->blame(e, score, why, sizeof why);
    if (!own)
        bq_log(BQ_WARN, "%s: the %s is %g: %s", s->label, e->kind->value, *value, why);
    else if (s->comm->rank == 0)
        bq_refuse(BQ_DATA, "%s: the %s of the model is %g: %s: its weights are damaged, or too large for f32",
                  s->src->dir, e->kind->value, *value, why);
    return own ? BQ_DATA : BQ_OK;
}

/* Inputs of experts are gathered without their places, so their padding cannot be told apart. */
static int check_padding(const walk *w, bool rounds) {
    const bq_score *s = w->s;
    bool shared = rounds && bq_rounding_given(s->inputs) && !s->grids && s->src->arch.experts, padded = false;
    for (int64_t i = 0; i < w->share.count; i++) padded |= w->lengths[i] < w->e->ctx;
    int worst = bq_comm_agree(s->comm, shared && padded ? s->comm->rank + 1 : 0);
    if (worst && worst == s->comm->rank + 1)
        bq_refuse(BQ_USAGE,
                  "%s: sequences of several lengths, a model with experts, and bits.activations with a "
                  "scale of all tokens: give them dynamic false, or a scale for each token",
                  s->label);
    return worst ? BQ_USAGE : BQ_OK;
}

int bq_score_each(const bq_score *s, const bq_eval *e, const bq_layouts *layouts, bq_weights_of weights,
                  void *ctx, double *score) {
    const int64_t hidden = s->src->arch.model.hidden;
    walk w = {.s = s, .e = e, .rounded = weights != NULL};
    w.share = bq_shard_of(e->sequences, s->comm->rank, s->comm->size);
    size_t mark = bq_arena_mark(&s->dev->mem);
    float *buffer = malloc((size_t)(e->ctx * hidden) * sizeof *buffer);
    w.ids = malloc((size_t)e->ctx * sizeof *w.ids);
    w.lengths = calloc((size_t)w.share.count + 1, sizeof *w.lengths);
    BQ_CHECK(buffer && w.ids && w.lengths, "no memory to evaluate sequences of %ld tokens", (long)e->ctx);
    w.buffer = bq_mat_host(buffer, e->ctx, hidden, BQ_F32);
    bq_stream_open(&w.stream, w.share.count, e->ctx, hidden, s->home);
    embed(&w);
    int code = check_padding(&w, weights != NULL);
    bool whole = !code && blocks(&w, layouts, weights, ctx);
    if (whole) head(&w, score);
    bq_progress_end();
    bq_stream_close(&w.stream);
    free(w.ids);
    free(w.lengths);
    free(buffer);
    bq_arena_reset(&s->dev->mem, mark);
    if (code) return code;
    if (whole) bq_comm_gather(s->comm, score, e->sequences);
    if (whole) bq_comm_bcast(s->comm, score, (size_t)e->sequences * sizeof *score);
    return whole ? BQ_OK : BQ_STOPPED;
}

int bq_score_run(const bq_score *s, const bq_eval *e, const bq_layouts *layouts, bq_weights_of weights,
                 void *ctx, double *value) {
    double *score = calloc((size_t)e->sequences, sizeof *score);
    BQ_CHECK(score, "no memory for the scores of %ld sequences", (long)e->sequences);
    int code = bq_score_each(s, e, layouts, weights, ctx, score);
    if (!code) code = conclude(s, e, score, weights == NULL, value);
    free(score);
    return code;
}
