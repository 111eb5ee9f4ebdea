#include "driver/run/result.h"

#include "driver/eval/perplexity.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/recipe/traits.h"
#include "driver/run/restore.h"
#include "io/files.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void bq_rtn_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q) {
    (void)ctx;
    bq_pass_context c = {.dev = dev, .blk = blk, .q = q};
    bq_pass_rtn(&c);
}

static void result_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q) {
    const bq_run *s = ctx;
    char path[BQ_PATH_MAX + 64];
    bq_run_checkpoint(s, blk->index, path, sizeof path);
    bq_restore(s, dev, path, blk, q, false);
}

/* The result's name: the passes of the last phase, "gptq+adascale". */
static void name_result(const bq_recipe *r, char *out, size_t n) {
    const bq_phase *last = &r->phase[r->nphase - 1];
    out[0] = 0;
    for (int i = 0; i < last->npass; i++) {
        if (i) strncat(out, "+", n - strlen(out) - 1);
        const bq_pass_kind *kind = bq_pass_kind_at(last->pass[i].kind);
        const char *suffix = kind->suffix ? kind->suffix(last->pass[i].options) : NULL;
        strncat(out, kind->name, n - strlen(out) - 1);
        if (suffix) strncat(out, suffix, n - strlen(out) - 1);
    }
}

/* Add a perplexity to the text of result.json: null for inf and NaN, which JSON does not have. */
static void add_value(char *line, size_t size, const char *name, double value) {
    char text[32] = "null";
    size_t n = strlen(line);
    if (isfinite(value)) snprintf(text, sizeof text, "%.9g", value);
    snprintf(line + n, size - n, ", \"%s\": %s", name, text);
}

/* For people, for programs, and in result.json where all three are known. */
static void print_result(const bq_run *s, const bq_perplexity *e, const char *name, double fp, double rtn,
                         double result) {
    if (s->args->result_only) {
        printf("result: %s=%.4f out=%s\n", name, result, s->dir);
        return;
    }
    char line[512], path[BQ_PATH_MAX + 32];
    bq_log(BQ_INFO, "perplexity over %ld windows of %ld tokens", (long)e->windows, (long)e->ctx);
    snprintf(line, sizeof line, "{\"ctx\": %ld, \"windows\": %ld, \"offset\": %ld", (long)e->ctx,
             (long)e->windows, (long)e->offset);
    add_value(line, sizeof line, "fp", fp);
    add_value(line, sizeof line, "rtn", rtn);
    if (strcmp(name, "rtn") != 0) add_value(line, sizeof line, name, result);
    strcat(line, "}\n");
    snprintf(path, sizeof path, "%s/result.json", s->dir);
    int error = s->args->command == BQ_COMMAND_RUN ? bq_file_write_atomic(path, line, strlen(line)) : 0;
    BQ_CHECK(error == 0, "write of '%s' failed: %s", path, strerror(error));
    printf("result: fp=%.4f rtn=%.4f", fp, rtn);
    if (strcmp(name, "rtn") != 0) printf(" %s=%.4f", name, result);
    printf(" out=%s\n", s->dir);
}

static bool stopped(const void *ctx) { return bq_run_stopped(ctx); }

int bq_result_evaluate(bq_run *s) {
    const bq_recipe *r = &s->recipe;
    char name[96];
    bq_perplexity e = {.dev = &s->dev,
                       .comm = s->comm,
                       .src = &s->src,
                       .tokens = &s->eval,
                       .angles = r->rope,
                       .ctx = r->eval.ctx,
                       .windows = r->eval.windows,
                       .offset = r->eval.offset,
                       .home = bq_run_home(s),
                       .stopped = stopped,
                       .stop_ctx = s,
                       .label = "fp",
                       .activations = bq_recipe_activations(r),
                       .prescaled = bq_recipe_prescaled(r)};
    name_result(r, name, sizeof name);
    if (!s->eval.ids) {
        if (s->comm->rank == 0) printf("result: %s out=%s\n", name, s->dir);
        return BQ_OK;
    }
    bool all = !s->args->result_only;
    double fp = 0, rtn = 0, result = 0;
    int code = all ? bq_perplexity_run(&e, NULL, NULL, NULL, &fp) : BQ_OK;
    e.label = "rtn";
    if (all && !code) code = bq_perplexity_run(&e, s->scheme, bq_rtn_weights, NULL, &rtn);
    e.label = name;
    if (all && strcmp(name, "rtn") == 0)
        result = rtn;
    else if (!code)
        code = bq_perplexity_run(&e, s->scheme, result_weights, s, &result);
    if (!code && s->comm->rank == 0) print_result(s, &e, name, fp, rtn, result);
    return code;
}
