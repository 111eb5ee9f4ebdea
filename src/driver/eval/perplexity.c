/* SPDX-License-Identifier: Apache-2.0 */
/* Perplexity (protocol A of docs/results.md): consecutive windows of ctx tokens, the rest dropped.  A
 * window's loss is the mean over its ctx - 1 predictions; perplexity is exp of the mean over windows. */
#include "driver/eval/perplexity.h"

#include "base/die.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NUMBER(name, least, most, text, blurb)                                                               \
    { #name, BQ_KEY_I64, BQ_AT(bq_perplexity, name), text, .min = least, .max = most, .help = blurb }
#define NUMBERS                                                                                              \
    NUMBER(ctx, 2, 1 << 20, "2048", "Tokens of a window."),                                                  \
        NUMBER(windows, 0, 1e9, "0", "How many windows; 0: all."),                                           \
        NUMBER(offset, 0, 1e15, "0", "First token.")

static const bq_key object_keys[] = {
    {"tokens", BQ_KEY_PATH, BQ_AT(bq_perplexity, tokens), .value = "",
     .help = "Tokens file, or a text as in `calibration`; left out: no evaluation."},
    NUMBERS,
    {0}};
const bq_scope bq_perplexity_object = {"eval",
                                       "Perplexity of the original, of round to nearest and of the result.",
                                       object_keys, sizeof(bq_perplexity)};

static const bq_key keys[] = {{"tokens", BQ_KEY_PATH, BQ_AT(bq_perplexity, tokens),
                               .help = "Tokens file, or a text as in `calibration`."},
                              NUMBERS,
                              {0}};

static int read_windows(bq_eval *e) {
    bq_perplexity *o = e->options;
    e->path = o->tokens;
    int code = bq_tokens_read(o->tokens, &e->tokens);
    if (code) return code;
    int64_t have = o->offset < e->tokens.count ? (e->tokens.count - o->offset) / o->ctx : 0;
    if (have < 1 || o->windows > have)
        return bq_refuse(BQ_DATA, "%s: %ld windows of %ld tokens from token %ld on are wanted, %ld are there",
                         o->tokens, (long)(o->windows ? o->windows : 1), (long)o->ctx, (long)o->offset,
                         (long)have);
    if (o->windows == 0) o->windows = have;
    e->ctx = o->ctx, e->items = e->sequences = o->windows;
    e->first = o->offset, e->used = o->windows * o->ctx;
    return BQ_OK;
}

static int64_t window(const bq_eval *e, int64_t i, int32_t *ids, int64_t *from) {
    memcpy(ids, e->tokens.ids + e->first + i * e->ctx, (size_t)e->ctx * sizeof *ids);
    *from = 1;
    return e->ctx;
}

static double mean(const bq_eval *e, int64_t i, const double *nll, int64_t n) {
    double sum = 0;
    (void)e, (void)i;
    for (int64_t t = 0; t < n; t++) sum += nll[t];
    return sum / (double)n;
}

static void perplexity(const bq_eval *e, const double *loss, double *value) {
    double all = 0;
    for (int64_t i = 0; i < e->sequences; i++) all += loss[i] / (double)e->sequences;
    *value = exp(all);
}

/* The first window without a finite perplexity: exp of a finite loss may be inf. */
static void blame(const bq_eval *e, const double *loss, char *text, size_t size) {
    int64_t i = 0;
    while (i < e->sequences && isfinite(exp(loss[i]))) i++;
    if (i == e->sequences) i = 0;
    snprintf(text, size, "the loss of window %ld is %g", (long)i, bq_eval_unsigned(loss[i]));
}

const bq_eval_kind bq_eval_kind_perplexity = {
    .scope = {"evals.N, eval: perplexity", "Perplexity, as `eval` has it, of another text or other windows.",
              keys, BQ_EVAL_OPTIONS_OF(bq_perplexity)},
    .name = "perplexity",
    .value = "perplexity",
    .unit = "windows",
    .open = read_windows,
    .sequence = window,
    .judge = mean,
    .number = perplexity,
    .blame = blame,
};
