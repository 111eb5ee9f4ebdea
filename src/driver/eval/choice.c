/* SPDX-License-Identifier: Apache-2.0 */
/* Multiple choice by log-likelihood: the answer is the choice that is most likely after the context.  Each
 * choice is a sequence of context and choice; only the choice's tokens are scored. */
#include "driver/eval/eval.h"

#include "base/die.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES ((size_t)64 << 20) /* seven times as much as JSON in memory */
enum { CHOICES_LEAST = 2, CHOICES_MOST = 26 };

static const char *const stats[] = {"standard_error", "macro", "macro_standard_error"};
enum { STATS = sizeof stats / sizeof *stats }; /* without subjects only the first one */

typedef enum { NONE, BY_TOKENS, BY_CHARACTERS, BY_BYTES } normalization;

typedef struct {
    char items[BQ_PATH_MAX];
    int64_t ctx, limit;
    normalization normalize;
} options;

/* A choice; its tokens and those of its context are ranges of e->tokens.ids. */
typedef struct {
    int64_t context, given, first, count;
    int64_t choice; /* its number in the item, from 0 */
    bool answer;
    int subject;   /* e->part; 0 where there are none */
    double length; /* what its log-likelihood is divided by */
} candidate;

static const bq_choice normalizations[] = {
    {"none", NONE}, {"tokens", BY_TOKENS}, {"characters", BY_CHARACTERS}, {"bytes", BY_BYTES}, {0}};
static const bq_key keys[] = {
    {"items", BQ_KEY_PATH, BQ_AT(options, items),
     .help = "File of questions, as tools/choices.py writes it (docs/files.md)."},
    {"ctx", BQ_KEY_I64, BQ_AT(options, ctx), .value = "512", .min = 2, .max = 1 << 20,
     .help = "Tokens that a context with a choice may have; a longer one is refused, not cut. Memory is "
             "taken for the longest there is."},
    {"limit", BQ_KEY_I64, BQ_AT(options, limit), .value = "0", .max = 1e9,
     .help = "Take the first so many items; 0: all."},
    {"normalize", BQ_KEY_CHOICE, BQ_AT(options, normalize), .value = "none", .choice = normalizations,
     .help = "The score of a choice is the sum of the log-likelihoods of its tokens, each given the context "
             "and the tokens before it (`none`), or that sum divided by the number of these tokens "
             "(`tokens`), or of the characters or bytes of its text in UTF-8. In lm-evaluation-harness "
             "`none` is called `acc`, `characters` `acc_norm`, and `bytes` `acc_bytes`."},
    {0}};

/* Append the ids of a list; returns how many. */
static int64_t take_ids(bq_eval *e, bq_json *from, const char *key, const json_t *list) {
    const json_t *value;
    size_t i;
    char at[64];
    if (!json_array_size(list)) bq_json_refuse(from, key, "is not a list of token ids, or an empty one");
    json_array_foreach(list, i, value) {
        json_int_t id = json_integer_value(value);
        snprintf(at, sizeof at, "%s.%zu", key, i);
        if (!json_is_integer(value))
            bq_json_refuse(from, at, "is not an integer: write the file by tools/choices.py");
        else if (id < 0 || id >= e->tokens.vocab)
            bq_json_refuse(from, at,
                           "is %lld, not a token id from 0 to %lld: write the file by tools/choices.py",
                           (long long)id, (long long)e->tokens.vocab - 1);
        if (from->status) return 0;
        e->tokens.ids[e->tokens.count++] = (int32_t)id;
    }
    return (int64_t)json_array_size(list);
}

/* The subject of an item, as its number in e->part; all items have one, or none. */
static int take_subject(bq_eval *e, bq_json *from, bool first) {
    const char *name = "";
    int i = 0;
    bq_json_text(from, "subject", &name);
    if (strlen(name) >= BQ_EVAL_NAME)
        bq_json_refuse(from, "subject", "has more than %d bytes", BQ_EVAL_NAME - 1);
    if (!first && !*name != !e->parts) bq_json_refuse(from, "subject", "all items must have one, or none");
    if (from->status || !*name) return 0;
    while (i < e->parts && strcmp(e->part[i].name, name)) i++;
    if (i == BQ_EVAL_PARTS) bq_json_refuse(from, "subject", "is one of more than %d", BQ_EVAL_PARTS);
    if (from->status) return 0;
    if (i == e->parts) snprintf(e->part[e->parts++].name, BQ_EVAL_NAME, "%s", name);
    return i;
}

/* What the choices' log-likelihoods are divided by. */
static void take_lengths(const bq_eval *e, bq_json *from, candidate *to, int64_t n) {
    const normalization by = ((const options *)e->options)->normalize;
    const char *key = by == BY_BYTES ? "bytes" : "characters";
    double length[CHOICES_MOST];
    if (by > BY_TOKENS && !bq_json_has(from, key))
        bq_json_refuse(from, key, "is missing: write the file by tools/choices.py");
    if (by > BY_TOKENS) bq_json_reals(from, key, 1, 1e9, n, length);
    for (int64_t c = 0; c < n && !from->status; c++)
        to[c].length = by == NONE ? 1 : by == BY_TOKENS ? (double)to[c].count : length[c];
}

/* Append an item's choices to the `have` candidates; returns how many. */
static int64_t take_item(bq_eval *e, bq_json *from, int64_t have) {
    const options *o = e->options;
    const json_t *choices = json_object_get(from->object, "choices");
    candidate *to = (candidate *)e->data + have;
    int64_t n = (int64_t)json_array_size(choices), answer = 0, context = e->tokens.count;
    char key[32];
    if (n < CHOICES_LEAST || n > CHOICES_MOST)
        bq_json_refuse(from, "choices", "is not a list of %d to %d choices", CHOICES_LEAST, CHOICES_MOST);
    bq_json_need(from, "answer");
    bq_json_int(from, "answer", 0, n - 1, &answer);
    int subject = take_subject(e, from, !have);
    int64_t given = from->status ? 0 : take_ids(e, from, "context", json_object_get(from->object, "context"));
    for (int64_t c = 0; c < n && !from->status; c++) {
        to[c] = (candidate){context, given, e->tokens.count, 0, c, c == answer, subject, 1};
        snprintf(key, sizeof key, "choices.%d", (int)c);
        to[c].count = take_ids(e, from, key, json_array_get(choices, (size_t)c));
        if (!from->status && given + to[c].count > o->ctx)
            bq_json_refuse(from, key,
                           "has %lld tokens with its context, ctx is %lld: give a larger ctx, or "
                           "leave the item out",
                           (long long)(given + to[c].count), (long long)o->ctx);
    }
    if (!from->status) take_lengths(e, from, to, n);
    return n;
}

static void take_tokenizer(bq_eval *e, bq_json *from) {
    const char *name = "";
    bq_json_text(from, "tokenizer", &name);
    bool sha256 = strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
    if (*name && !sha256 && strcmp(name, "bytes"))
        bq_json_refuse(from, "tokenizer", "is not \"\", \"bytes\" or the SHA-256 of a tokenizer.json");
    if (!from->status) snprintf(e->tokens.tokenizer, sizeof e->tokens.tokenizer, "%s", name);
}

/* Memory for all ids and candidates; what is not a list counts as empty. */
static void make_room(bq_eval *e, const json_t *items) {
    size_t ids = 1, candidates = 1, i, c;
    const json_t *item, *choice;
    json_array_foreach(items, i, item) {
        const json_t *choices = json_object_get(item, "choices");
        ids += json_array_size(json_object_get(item, "context"));
        candidates += json_array_size(choices);
        json_array_foreach(choices, c, choice) ids += json_array_size(choice);
    }
    e->tokens.ids = malloc(ids * sizeof *e->tokens.ids);
    e->data = malloc(candidates * sizeof(candidate));
    e->part = calloc(BQ_EVAL_PARTS, sizeof *e->part);
    BQ_CHECK(e->tokens.ids && e->data && e->part, "no memory for %zu tokens of questions", ids);
}

/* Subjects without items, which `limit` leaves, have come last. */
static void count_subjects(bq_eval *e) {
    const candidate *all = e->data;
    for (int64_t i = 0; i < e->sequences && e->parts; i++)
        e->part[all[i].subject].items += all[i].choice == 0;
    while (e->parts && !e->part[e->parts - 1].items) e->parts--;
    e->stats = e->parts ? STATS : 1;
}

static void take_items(bq_eval *e, bq_json *from) {
    const options *o = e->options;
    const json_t *items = json_object_get(from->object, "items"), *item;
    int64_t have = (int64_t)json_array_size(items), candidates = 0;
    size_t i;
    e->items = o->limit ? o->limit : have;
    if (!have) bq_json_refuse(from, "items", "is not a list of questions, or an empty one");
    if (e->items > have)
        bq_json_refuse(from, "items", "has %lld items, limit is %lld: give at most that many, or 0 for all",
                       (long long)have, (long long)e->items);
    if (from->status) return;
    make_room(e, items);
    json_array_foreach(items, i, item) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "items.%zu.", i);
        bq_json inner = {item, from->file, prefix, 0, 0};
        int64_t n = take_item(e, &inner, candidates);
        bq_json_join(from, &inner);
        if (from->status) return;
        candidates += n;
        if ((int64_t)i < e->items) e->sequences = candidates;
    }
    count_subjects(e);
}

static int read_items(bq_eval *e) {
    const options *o = e->options;
    json_t *root;
    e->path = o->items;
    int code = bq_json_read(o->items, FILE_BYTES, &root);
    if (code) return code;
    bq_json from = bq_json_of(root, o->items);
    bq_json_need(&from, "vocab");
    bq_json_int(&from, "vocab", 1, INT32_MAX, &e->tokens.vocab);
    take_tokenizer(e, &from);
    take_items(e, &from);
    json_decref(root);
    const candidate *all = e->data;
    for (int64_t i = 0; i < e->sequences && !from.status; i++)
        if (all[i].given + all[i].count > e->ctx) e->ctx = all[i].given + all[i].count;
    e->used = e->tokens.count;
    return from.status;
}

static int64_t sequence(const bq_eval *e, int64_t i, int32_t *ids, int64_t *from) {
    const candidate *c = (const candidate *)e->data + i;
    memcpy(ids, e->tokens.ids + c->context, (size_t)c->given * sizeof *ids);
    memcpy(ids + c->given, e->tokens.ids + c->first, (size_t)c->count * sizeof *ids);
    *from = c->given;
    return c->given + c->count;
}

static double likelihood(const bq_eval *e, int64_t i, const double *nll, int64_t n) {
    double sum = 0;
    for (int64_t t = 0; t < n; t++) sum -= nll[t];
    return sum / ((const candidate *)e->data)[i].length;
}

/* The standard error of a share p of n items: the deviation of a sample over sqrt(n).  NaN for one item. */
static double error_of(double p, int64_t n) { return sqrt(p * (1 - p) / (double)(n - 1)); }

/* The right answers of all items, and of each subject.  Of choices that are equally likely the first one is
 * taken.  False: a score is not finite. */
static bool count_right(const bq_eval *e, const double *score, double *all_right, double *right) {
    const candidate *all = e->data;
    int64_t best = 0;
    for (int64_t i = 0; i < e->sequences; i++) {
        if (!isfinite(score[i])) return false;
        if (all[i].choice == 0 || score[i] > score[best]) best = i;
        bool last = i + 1 == e->sequences || all[i + 1].choice == 0;
        if (!last || !all[best].answer) continue;
        *all_right += 1;
        if (e->parts) right[all[best].subject] += 1;
    }
    return true;
}

/* The share of right answers and its standard error; with subjects the mean of their shares, its standard
 * error, and each share. */
static void accuracy(const bq_eval *e, const double *score, double *value) {
    double *part = value + 1 + e->stats, macro = 0, error = 0;
    for (int i = 0; i < bq_eval_values(e); i++) value[i] = 0;
    if (!count_right(e, score, value, part)) {
        for (int i = 0; i < bq_eval_values(e); i++) value[i] = NAN;
        return;
    }
    value[0] /= (double)e->items;
    value[1] = error_of(value[0], e->items);
    for (int i = 0; i < e->parts; i++) {
        part[i] /= (double)e->part[i].items;
        macro += part[i];
        error += pow(error_of(part[i], e->part[i].items), 2);
    }
    if (e->parts) value[2] = macro / e->parts, value[3] = sqrt(error) / e->parts;
}

static void blame(const bq_eval *e, const double *score, char *text, size_t size) {
    const candidate *all = e->data;
    int64_t i = 0, item = 0;
    while (isfinite(score[i])) item += all[++i].choice == 0;
    snprintf(text, size, "the log-likelihood of choice %ld of item %ld is %g", (long)all[i].choice,
             (long)item, bq_eval_unsigned(score[i]));
}

const bq_eval_kind bq_eval_kind_choice = {
    .scope = {"evals.N, eval: choice",
              "Multiple choice by log-likelihood: the share of items whose right answer has the highest "
              "score. Of equal scores the first one counts. With its standard error, sqrt(p (1 - p) / (n - "
              "1)). Where the items have subjects, also the share of each, and the mean of these shares "
              "(`macro`).",
              keys, BQ_EVAL_OPTIONS_OF(options)},
    .name = "choice",
    .value = "accuracy",
    .unit = "items",
    .share = true,
    .stat = stats,
    .open = read_items,
    .sequence = sequence,
    .judge = likelihood,
    .number = accuracy,
    .blame = blame,
};
