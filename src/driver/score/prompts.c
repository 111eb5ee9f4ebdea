/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/score/prompts.h"

#include "base/die.h"
#include "base/rng.h"
#include "driver/eval/perplexity.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Text i has its ids at tokens.ids + i * room: the prompt, then what was added. */
typedef struct {
    int64_t room, *given, *length; /* given: tokens of the prompt; length: with those that were added */
} texts;

static int64_t sequence(const bq_eval *e, int64_t i, int32_t *ids, int64_t *from) {
    const texts *t = e->data;
    memcpy(ids, e->tokens.ids + i * t->room, (size_t)t->length[i] * sizeof *ids);
    *from = 1;
    return t->length[i];
}

/* ---- the next token ---- */

typedef struct {
    float logit;
    int32_t id;
} candidate;

static int larger_first(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : x->id - y->id;
}

/* Draw one of the top_k largest (0: of all), with probability proportional to exp(logit / temperature). */
static double draw(const bq_args *a, int64_t text, int64_t at, const float *logits, int64_t n) {
    const int64_t top = a->top_k && a->top_k < n ? a->top_k : n;
    candidate *all = malloc((size_t)n * sizeof *all);
    uint32_t word[4];
    double sum = 0;
    int64_t i = 0;
    BQ_CHECK(all, "no memory for %ld logits", (long)n);
    for (int64_t k = 0; k < n; k++) all[k] = (candidate){logits[k], (int32_t)k};
    qsort(all, (size_t)n, sizeof *all, larger_first);
    for (int64_t k = 0; k < top; k++) sum += exp(((double)all[k].logit - all[0].logit) / a->temperature);
    bq_philox((bq_rng_key){.seed = (uint64_t)a->seed, .iteration = (uint32_t)at, .sample = (uint32_t)text}, 0,
              word);
    double left = sum * ((double)word[0] / 4294967296.0);
    for (; i + 1 < top; i++)
        if ((left -= exp(((double)all[i].logit - all[0].logit) / a->temperature)) < 0) break;
    int32_t id = all[i].id;
    free(all);
    return id;
}

/* Of equal logits the smaller id is taken. */
static double next(const bq_eval *e, int64_t i, const float *logits, int64_t n) {
    const bq_args *a = e->options;
    int64_t best = 0;
    for (int64_t k = 0; k < n; k++) {
        if (!isfinite(logits[k])) return NAN;
        if (logits[k] > logits[best]) best = k;
    }
    return a->temperature > 0 ? draw(a, i, ((const texts *)e->data)->length[i], logits, n) : (double)best;
}

static const bq_eval_kind kind = {.name = "prompts", .sequence = sequence, .pick = next};

/* ---- prompts ---- */

/* Memory for all texts: lengths of prompts are known after. */
static void make_room(bq_eval *e, int64_t prompts, int64_t longest) {
    const bq_args *a = e->options;
    size_t n = (size_t)prompts;
    texts *t = e->data = calloc(1, sizeof *t + 2 * n * sizeof *t->given);
    BQ_CHECK(t, "no memory for %zu prompts", n);
    *t = (texts){longest + a->count, (int64_t *)(t + 1), (int64_t *)(t + 1) + n};
    e->tokens.ids = calloc(n * (size_t)t->room, sizeof *e->tokens.ids);
    BQ_CHECK(e->tokens.ids, "no memory for %zu prompts of %ld tokens", n, (long)t->room);
    e->items = e->sequences = prompts;
    e->ctx = t->room > 2 ? t->room - 1 : 2; /* the last token is added, but not read */
}

/* "1,2,3" -> ids of prompt i. */
static int take_ids(bq_eval *e, int i, int64_t vocab) {
    const bq_args *a = e->options;
    texts *t = e->data;
    const char *text = a->prompt[i];
    for (char *end; *text; text = *end ? end + 1 : end) {
        errno = 0;
        long id = strtol(text, &end, 10);
        if (errno || end == text || (*end && *end != ',') || (*end && !end[1]))
            return bq_refuse(BQ_USAGE, "--prompt-tokens %.200s: must be token ids with commas between them",
                             a->prompt[i]);
        if (id < 0 || id >= vocab)
            return bq_refuse(BQ_USAGE, "--prompt-tokens: %ld is no token: the model's vocabulary has %ld", id,
                             (long)vocab);
        e->tokens.ids[i * t->room + t->given[i]++] = (int32_t)id;
    }
    return BQ_OK;
}

static int from_line(bq_eval *e, const bq_source *src) {
    const bq_args *a = e->options;
    int64_t longest = 0;
    int code = BQ_OK;
    for (int i = 0; i < a->nprompt; i++) {
        int64_t n = 1;
        for (const char *p = a->prompt[i]; *p; p++) n += *p == ',';
        longest = n > longest ? n : longest;
    }
    make_room(e, a->nprompt, longest);
    for (int i = 0; i < a->nprompt && !code; i++) code = take_ids(e, i, src->arch.model.vocab);
    return code;
}

/* Windows of a tokens file, as the perplexity reads them. */
static int from_file(bq_eval *e, const bq_source *src) {
    const bq_args *a = e->options;
    bq_perplexity o = {.ctx = a->ctx, .windows = a->windows, .offset = a->offset};
    bq_eval file = {.kind = &bq_eval_kind_perplexity, .options = &o};
    int64_t from;
    snprintf(o.tokens, sizeof o.tokens, "%s", a->tokens);
    int code = file.kind->open(&file);
    if (!code) code = bq_source_check_tokens(src, file.path, &file.tokens, file.first, file.used);
    if (!code) make_room(e, file.sequences, file.ctx);
    texts *t = e->data;
    for (int64_t i = 0; i < e->sequences; i++)
        t->given[i] = file.kind->sequence(&file, i, e->tokens.ids + i * t->room, &from);
    bq_tokens_close(&file.tokens);
    return code;
}

int bq_prompts_open(bq_evals *set, const bq_args *args, const bq_source *src) {
    bq_eval *e = set->eval;
    *set = (bq_evals){.count = 1};
    *e = (bq_eval){.kind = &kind, .options = (void *)args};
    int code = args->tokens ? from_file(e, src) : from_line(e, src);
    if (!code) bq_source_check_length(src, "a prompt with the tokens to add", e->ctx);
    return code;
}

int bq_prompts_or_evals(bq_evals *set, bq_recipe *recipe, const bq_args *args, const bq_source *src) {
    if (args->command == BQ_COMMAND_GENERATE) return bq_prompts_open(set, args, src);
    return args->command == BQ_COMMAND_EVAL ? bq_score_open(set, recipe, src, "--ctx") : BQ_OK;
}

/* ---- generation ---- */

static int add_one(const bq_score *s, bq_eval *e, const bq_layouts *layouts, bq_weights_of weights, void *ctx,
                   double *score) {
    texts *t = e->data;
    for (int64_t i = e->ctx = 0; i < e->sequences; i++)
        if (t->length[i] > e->ctx) e->ctx = t->length[i];
    if (e->ctx < 2) e->ctx = 2;
    int code = bq_score_each(s, e, layouts, weights, ctx, score);
    for (int64_t i = 0; i < e->sequences && !code; i++) {
        if (isfinite(score[i]))
            e->tokens.ids[i * t->room + t->length[i]++] = (int32_t)score[i];
        else if (s->comm->rank)
            code = BQ_DATA;
        else
            code = bq_refuse(BQ_DATA,
                             "%s: %s: a logit after token %ld of prompt %ld is not finite: the weights are "
                             "damaged, or too large for f32",
                             s->src->dir, s->label, (long)t->length[i], (long)i);
    }
    return code;
}

int bq_prompts_run(const bq_score *s, bq_eval *e, const bq_layouts *layouts, bq_weights_of weights,
                   void *ctx) {
    const bq_args *a = e->options;
    texts *t = e->data;
    double *score = calloc((size_t)e->sequences, sizeof *score);
    BQ_CHECK(score, "no memory for %ld prompts", (long)e->sequences);
    memcpy(t->length, t->given, (size_t)e->sequences * sizeof *t->length);
    int code = BQ_OK;
    for (int64_t n = 0; n < a->count && !code; n++) code = add_one(s, e, layouts, weights, ctx, score);
    free(score);
    return code;
}

const int32_t *bq_prompts_added(const bq_eval *e, int64_t i) {
    const texts *t = e->data;
    return e->tokens.ids + i * t->room + t->given[i];
}
