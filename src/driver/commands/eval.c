#include "driver/commands/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/eval/perplexity.h"
#include "driver/load/device.h"
#include "driver/run/result.h"
#include "driver/run/session.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    bq_source model;
    bq_tokens tokens;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    bq_dev dev;
    const bq_args *args;
    const bq_comm *comm;
    bq_home home;
    int64_t windows;
} evaluation;

static int look(void *ctx) {
    evaluation *e = ctx;
    const bq_args *a = e->args;
    e->windows = a->windows;
    int code = bq_source_open(&e->model, a->model);
    if (!code) code = bq_tokens_read(a->tokens, &e->tokens);
    if (!code) code = bq_perplexity_windows(a->tokens, &e->tokens, a->ctx, a->offset, &e->windows);
    if (!code)
        code = bq_source_check_tokens(&e->model, a->tokens, &e->tokens, a->offset, e->windows * a->ctx);
    if (!code) bq_source_check_length(&e->model, "--ctx", a->ctx);
    for (int i = 0; i < BQ_ARCH_LINEARS; i++)
        e->scheme[i] = (bq_scheme){a->rtn, -1, true, BQ_F32, BQ_GRID_AIMET};
    size_t arena = code ? 0 : bq_perplexity_need(&e->model.arch, a->rtn ? e->scheme : NULL, false, a->ctx);
    if (!code)
        code = bq_plan_evaluation(arena + bq_perplexity_host(&e->model.arch, a->ctx, e->windows),
                                  bq_perplexity_stream(&e->model.arch, a->ctx, e->windows, e->comm->size),
                                  a->memory, e->comm, a->scratch, &e->home.scratch);
    if (!code) code = bq_device_open(&e->dev, a, e->comm, arena);
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
    bq_perplexity p = {.dev = &e->dev,
                       .comm = comm,
                       .src = &e->model,
                       .tokens = &e->tokens,
                       .angles = BQ_ANGLES_HF,
                       .ctx = a->ctx,
                       .windows = windows,
                       .offset = a->offset,
                       .home = e->home,
                       .label = "model"};
    double plain, rounded;
    code = bq_perplexity_run(&p, NULL, NULL, NULL, &plain);
    p.label = "rtn";
    if (!code && a->rtn) code = bq_perplexity_run(&p, e->scheme, bq_rtn_weights, NULL, &rounded);
    if (code || comm->rank) return code;
    bq_log(BQ_INFO, "protocol A: %ld windows of %ld tokens, tokenizer %s, text joined %s, bos %d",
           (long)windows, (long)a->ctx, e->tokens.tokenizer, e->tokens.joiner, (int)e->tokens.bos);
    printf("perplexity: model=%.6f", plain);
    if (a->rtn) printf(" rtn%d=%.6f", a->rtn, rounded);
    printf(" windows=%ld ctx=%ld\n", (long)windows, (long)a->ctx);
    return BQ_OK;
}

static int evaluate_run(const bq_args *a, bq_comm *comm) {
    bq_run s;
    int code = bq_session_open_finished(&s, a, comm);
    if (code == BQ_OK) code = bq_result_evaluate(&s);
    bq_session_close(&s);
    return code;
}

int bq_cmd_eval(const bq_args *args, bq_comm *comm) {
    if (args->run) return evaluate_run(args, comm);
    evaluation e = {.args = args, .comm = comm};
    int code = evaluate(&e, comm);
    bq_dev_close(&e.dev);
    bq_tokens_close(&e.tokens);
    bq_source_close(&e.model);
    return code;
}
