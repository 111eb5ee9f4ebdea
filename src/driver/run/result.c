/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/result.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/traits.h"
#include "driver/run/known.h"
#include "driver/run/restore.h"
#include "driver/score/score.h"
#include "io/files.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bq_rtn_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q) {
    (void)ctx;
    bq_pass_context c = {.dev = dev, .blk = blk, .q = q};
    bq_pass_rtn(&c);
}

void bq_result_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q) {
    const bq_run *s = ctx;
    char path[BQ_PATH_MAX + 64];
    bq_run_checkpoint(s, blk->index, bq_arch_unit(blk->arch), path, sizeof path);
    bq_restore(s, dev, path, blk, q, false);
}

enum { FP, RTN, RESULT, WEIGHTS };

/* The numbers of an evaluation.  If the result is round to nearest, only `rtn` has a number. */
typedef struct {
    const char *name[WEIGHTS]; /* NULL: not evaluated */
    double *of[WEIGHTS];       /* bq_eval_values of each; one piece of malloc, at of[0] */
} numbers;

/* The end of a key or name: "_macro" of that value; "" of value 0. */
static void name_value(const bq_eval *e, int i, char text[BQ_EVAL_NAME]) {
    snprintf(text, BQ_EVAL_NAME, "%s%s", i ? "_" : "", i ? e->kind->stat[i - 1] : "");
}

static void put_number(FILE *to, const char *key, const char *end, double x) {
    fprintf(to, isfinite(x) ? ", \"%s%s\": %.9g" : ", \"%s%s\": null", key, end, x);
}

/* `, "parts": {"anatomy": {"items": 135, "fp": 0.5, ...}, ...}` */
static void put_parts(FILE *to, const bq_eval *e, const numbers *v) {
    if (e->parts) fputs(", \"parts\": {", to);
    for (int p = 0; p < e->parts; p++) {
        json_t *name = json_string(e->part[p].name);
        char *quoted = json_dumps(name, JSON_ENCODE_ANY);
        BQ_CHECK(quoted, "no memory for the name of a part");
        fprintf(to, "%s%s: {\"items\": %ld", p ? ", " : "", quoted, (long)e->part[p].items);
        for (int w = 0; w < WEIGHTS; w++)
            if (v->name[w]) put_number(to, v->name[w], "", v->of[w][1 + e->stats + p]);
        fputc('}', to);
        free(quoted);
        json_decref(name);
    }
    if (e->parts) fputc('}', to);
}

/* Write `, "text": "...", "fp": 12.3` and so on; JSON has no inf and NaN, so they are null. */
static void put_json(FILE *to, const bq_eval *e, const numbers *v) {
    json_t *text = json_string(e->tokens.text);
    char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    if (quoted && e->tokens.text[0]) fprintf(to, ", \"text\": %s", quoted);
    free(quoted);
    json_decref(text);
    for (int w = 0; w < WEIGHTS; w++) {
        if (!v->name[w]) continue;
        double value = *v->of[w];
        char end[BQ_EVAL_NAME];
        for (int i = 0; i <= e->stats; i++) {
            name_value(e, i, end);
            put_number(to, v->name[w], end, v->of[w][i]);
            if (!i && isfinite(value) && e->kind->share)
                fprintf(to, ", \"%s_%s\": %.0f", v->name[w], e->kind->unit, value * (double)e->items);
        }
    }
    put_parts(to, e, v);
}

/* The list `evals` of result.json: the recipe's elements, each with its numbers. */
static void put_list(FILE *to, const bq_run *s, const numbers *v) {
    json_t *recipe = bq_keys_json(&s->recipe, false), *list = json_object_get(recipe, "evals");
    for (int i = s->evals.object; i < s->evals.count; i++) {
        char *text = json_dumps(json_array_get(list, (size_t)(i - s->evals.object)), 0);
        BQ_CHECK(text, "no memory for '%s/result.json'", s->dir);
        fprintf(to, "%s%.*s", i > s->evals.object ? ", " : "", (int)strlen(text) - 1, text);
        put_json(to, &s->evals.eval[i], &v[i]);
        fputc('}', to);
        free(text);
    }
    json_decref(recipe);
}

json_t *bq_result_bits(const bq_run *s) {
    json_t *recipe = bq_keys_json(&s->recipe, false), *bits = json_object_get(recipe, "bits");
    json_t *said = json_object();
    if (bq_recipe_inputs(&s->recipe).element)
        json_object_set(said, "activations", json_object_get(bits, "activations"));
    if (bq_recipe_cache(&s->recipe, &s->src.arch.model).element)
        json_object_set(said, "kv", json_object_get(bits, "kv"));
    if (bq_code_bits(s->src.rounded.embedding))
        json_object_set(said, "embedding", json_object_get(bits, "embedding"));
    if (bq_code_bits(s->src.rounded.head)) json_object_set(said, "lm_head", json_object_get(bits, "lm_head"));
    json_decref(recipe);
    return said;
}

/* {"ctx": 32, ..., "fp": 12.3, "evals": [...], "bits": {"activations": 8}}; the list is left out where it is
 * empty, and the last key where nothing is rounded so. */
static void write_result(const bq_run *s, const numbers *v) {
    char *text = NULL, path[BQ_PATH_MAX + 32];
    size_t bytes = 0;
    bool more = s->evals.count > s->evals.object;
    const bq_perplexity *p = &s->recipe.eval;
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(to, "no memory for '%s/result.json'", s->dir);
    fputc('{', to);
    if (s->evals.object) {
        fprintf(to, "\"ctx\": %ld, \"windows\": %ld, \"offset\": %ld", (long)p->ctx, (long)p->windows,
                (long)p->offset);
        put_json(to, s->evals.eval, v);
    }
    if (more) fprintf(to, "%s\"evals\": [", s->evals.object ? ", " : "");
    if (more) put_list(to, s, v);
    if (more) fputc(']', to);
    json_t *said = bq_result_bits(s);
    char *bits = json_dumps(said, 0);
    BQ_CHECK(bits, "no memory for '%s/result.json'", s->dir);
    if (json_object_size(said)) fprintf(to, ", \"bits\": %s", bits);
    fputs("}\n", to);
    json_decref(said);
    free(bits);
    fclose(to);
    snprintf(path, sizeof path, "%s/result.json", s->dir);
    int error = bq_file_write_atomic(path, text, bytes);
    BQ_CHECK(error == 0, "write of '%s' failed: %s", path, strerror(error));
    free(text);
}

/* " fp=12.3 rtn=13.4 adascale=12.5": the values [first, last] of each. */
static void name_values(const bq_eval *e, const numbers *v, int first, int last, char *text, size_t size) {
    size_t n = 0;
    char end[BQ_EVAL_NAME];
    text[0] = 0;
    for (int i = first; i <= last; i++) {
        name_value(e, i > e->stats ? 0 : i, end);
        for (int w = 0; w < WEIGHTS && n < size; w++)
            if (v->name[w])
                n += (size_t)snprintf(text + n, size - n, " %s%s=%.4f", v->name[w], end, v->of[w][i]);
    }
}

static void print_parts(const bq_run *s, const bq_eval *e, const numbers *v) {
    char text[1280];
    for (int p = 0; p < e->parts; p++) {
        const bq_eval_part *part = &e->part[p];
        name_values(e, v, 1 + e->stats + p, 1 + e->stats + p, text, sizeof text);
        if (s->args->command == BQ_COMMAND_EVAL)
            printf("%s, %s:%s %s=%ld\n", e->kind->name, part->name, text, e->kind->unit, (long)part->items);
        else
            bq_log(BQ_INFO, "%s: %s, %ld %s:%s", e->path, part->name, (long)part->items, e->kind->unit, text);
    }
}

/* Log the numbers, print the result line, and write result.json where all three are known.  eval --run writes
 * no file, so it prints the lines that a run logs. */
static void print_result(const bq_run *s, const numbers *v, const char *name) {
    char text[1280]; /* a finite number may have 309 digits */
    for (int i = 0; i < s->evals.count; i++) {
        const bq_eval *e = &s->evals.eval[i];
        name_values(e, &v[i], 0, e->stats, text, sizeof text);
        if (i >= s->evals.object && s->args->command == BQ_COMMAND_EVAL)
            printf("%s:%s %s=%ld ctx=%ld\n", e->kind->name, text, e->kind->unit, (long)e->items,
                   (long)e->ctx);
        else if (i >= s->evals.object)
            bq_log(BQ_INFO, "%s: %s over %ld %s:%s", e->path, e->kind->value, (long)e->items, e->kind->unit,
                   text);
        else if (!s->args->result_only)
            bq_log(BQ_INFO, "%s over %ld %s of %ld tokens", e->kind->value, (long)e->items, e->kind->unit,
                   (long)e->ctx);
        print_parts(s, e, &v[i]);
    }
    if (s->args->command == BQ_COMMAND_RUN && !s->args->result_only && s->evals.count) write_result(s, v);
    snprintf(text, sizeof text, " %s", name);
    if (s->evals.object) name_values(s->evals.eval, v, 0, 0, text, sizeof text);
    printf("result:%s out=%s\n", text, s->dir);
}

static bool stopped(const void *ctx) {
    (void)ctx;
    return bq_run_stopped();
}

bq_score bq_result_score(bq_run *s) {
    const bq_recipe *r = &s->recipe;
    return (bq_score){.dev = &s->dev,
                      .comm = s->comm,
                      .src = &s->src,
                      .angles = r->rope,
                      .home = bq_run_home(s),
                      .stopped = stopped,
                      .stop_ctx = s,
                      .inputs = bq_recipe_inputs(r),
                      .cache = bq_recipe_cache(r, &s->src.arch.model),
                      .prescaled = bq_recipe_prescaled(r),
                      .norm = s->final_norm,
                      .grids = s->grids,
                      .kv = s->kv};
}

int bq_result_value(bq_run *s, const bq_eval *e, double *value) {
    bq_score with = bq_result_score(s);
    with.label = "result";
    return bq_score_run(&with, e, &s->layouts, bq_result_weights, s, value);
}

/* Evaluation i: of the model, of round to nearest and of the result, or of the result alone. */
static int evaluate(bq_run *s, bq_score *with, int i, const char *name, numbers *v) {
    const bq_eval *e = &s->evals.eval[i];
    bool all = !s->args->result_only, rtn = strcmp(name, "rtn") == 0;
    int code = BQ_OK;
    *v = (numbers){.name = {all ? "fp" : NULL, all ? "rtn" : NULL, all && rtn ? NULL : name}};
    double *values = calloc((size_t)(WEIGHTS * bq_eval_values(e)), sizeof *values);
    BQ_CHECK(values, "no memory for the numbers of %s", e->path);
    for (int w = 0; w < WEIGHTS; w++) v->of[w] = values + w * bq_eval_values(e);
    for (int w = 0; w < WEIGHTS && !code; w++) {
        static const bq_known kind[WEIGHTS] = {BQ_KNOWN_MODEL, BQ_KNOWN_RTN, BQ_KNOWN_RESULT};
        if (!(with->label = v->name[w]) || bq_known_get(s, i, kind[w], v->of[w])) continue;
        const bq_weights_of of[WEIGHTS] = {NULL, bq_rtn_weights, bq_result_weights};
        with->norm = w == RESULT ? s->final_norm : NULL;
        code = bq_score_run(with, e, &s->layouts, of[w], s, v->of[w]);
        if (!code) bq_known_put(s, i, kind[w], v->of[w]);
    }
    return code;
}

int bq_result_evaluate(bq_run *s) {
    const bq_recipe *r = &s->recipe;
    char name[96];
    numbers v[1 + BQ_EVALS] = {0};
    bq_score with = bq_result_score(s);
    int code = BQ_OK;
    bq_recipe_title(r, name, sizeof name);
    for (int i = 0; i < s->evals.count && !code; i++) code = evaluate(s, &with, i, name, &v[i]);
    for (int w = 0; w < WEIGHTS && !code && s->evals.count; w++) {
        const int from = w == RESULT && !v[0].name[w] ? RTN : w;
        if (v[0].name[from]) s->first[w] = *v[0].of[from];
    }
    if (!code && s->comm->rank == 0) print_result(s, v, name);
    for (int i = 0; i < s->evals.count; i++) free(v[i].of[0]);
    return code;
}
