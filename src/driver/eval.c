#include "driver/session.h"

#include "base/die.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    bq_source model;
    bq_tokens tokens;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    bq_dev dev;
    const bq_args *args;
    int64_t windows;
} evaluation;

static void rtn(void *ctx, bq_dev *dev, const bq_block *blk, bq_quantized *q) {
    (void)ctx;
    bq_pass_context c = {.dev = dev, .blk = blk, .q = q};
    bq_pass_rtn(&c);
}

static int look(void *ctx) {
    evaluation *e = ctx;
    const bq_args *a = e->args;
    e->windows = a->windows;
    int code = bq_source_open(&e->model, a->model);
    if (!code) code = bq_tokens_read(a->tokens, &e->tokens);
    if (!code) code = bq_perplexity_windows(a->tokens, &e->tokens, a->ctx, a->offset, &e->windows);
    if (!code)
        code = bq_source_check_tokens(&e->model, a->tokens, &e->tokens, a->offset, e->windows * a->ctx);
    for (int i = 0; i < BQ_ARCH_LINEARS; i++) e->scheme[i] = (bq_scheme){a->rtn, -1, true, BQ_F32};
    if (!code)
        code = bq_dev_open(&e->dev, a->device, a->threads,
                           bq_perplexity_need(&e->model.arch, a->rtn ? e->scheme : NULL, a->ctx));
    return code;
}

/* Every byte is read once, for numbers that are none: on rank 0 alone. */
static int read_all(void *ctx) {
    evaluation *e = ctx;
    uint64_t hash;
    return bq_log_rank() == 0 ? bq_source_fingerprint(&e->model, NULL, &hash) : BQ_OK;
}

static int evaluate(evaluation *e, bq_comm *comm) {
    const bq_args *a = e->args;
    int code = bq_root_first(comm, look, e);
    if (!code) code = bq_root_first(comm, read_all, e);
    if (code) return code;
    int64_t windows = e->windows;
    bq_perplexity p = {&e->dev, comm,    &e->model, &e->tokens, BQ_ANGLES_HF,
                       a->ctx,  windows, a->offset, NULL,       "model"};
    double plain = bq_perplexity_run(&p, NULL, NULL, NULL), rounded = 0;
    if (a->rtn) rounded = bq_perplexity_run(&p, e->scheme, rtn, NULL);
    if (comm->rank) return BQ_OK;
    bq_log(BQ_INFO, "protocol A: %ld windows of %ld tokens, tokenizer %s, text joined %s, bos %d",
           (long)windows, (long)a->ctx, e->tokens.tokenizer, e->tokens.joiner, (int)e->tokens.bos);
    printf("perplexity: model=%.6f", plain);
    if (a->rtn) printf(" rtn%d=%.6f", a->rtn, rounded);
    printf(" windows=%ld ctx=%ld\n", (long)windows, (long)a->ctx);
    return BQ_OK;
}

/* A finished run again, with other tokens or windows than its recipe's. */
static int evaluate_run(const bq_args *a, bq_comm *comm) {
    char recipe[BQ_PATH_MAX + 16], set[4][BQ_PATH_MAX + 32], *file[] = {recipe};
    bq_session s;
    bq_args of_run = *a;
    snprintf(recipe, sizeof recipe, "%s/recipe.json", a->run);
    snprintf(set[0], sizeof set[0], "eval.tokens=%s", a->tokens);
    snprintf(set[1], sizeof set[1], "eval.ctx=%ld", (long)a->ctx);
    snprintf(set[2], sizeof set[2], "eval.windows=%ld", (long)a->windows);
    snprintf(set[3], sizeof set[3], "eval.offset=%ld", (long)a->offset);
    of_run.nfile = 1, of_run.file = file, of_run.nset = 4;
    for (int i = 0; i < 4; i++) of_run.set[i] = set[i];
    snprintf(of_run.out, sizeof of_run.out, "%s", a->run);
    int code = bq_session_open(&s, &of_run, comm);
    if (code == BQ_OK) code = bq_session_enter(&s);
    if (code == BQ_OK && bq_state_count(s.state) < (int64_t)s.recipe.nphase * s.src.arch.model.blocks)
        code = bq_refuse(BQ_DATA, "%s is not finished: `blockq run` it to the end first", a->run);
    if (code == BQ_OK) bq_session_evaluate(&s);
    bq_session_close(&s);
    return code;
}

int bq_cmd_eval(const bq_args *args, bq_comm *comm) {
    if (args->run) return evaluate_run(args, comm);
    evaluation e = {.args = args};
    int code = evaluate(&e, comm);
    bq_dev_close(&e.dev);
    bq_tokens_close(&e.tokens);
    bq_source_close(&e.model);
    return code;
}
