#include "driver/commands/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/load/device.h"
#include "driver/run/result.h"
#include "driver/run/session.h"
#include "driver/score/score.h"

#include <stdio.h>

typedef struct {
    bq_source model;
    bq_recipe recipe; /* only its evaluations are used */
    bq_evals evals;
    bq_layouts layouts;
    bq_dev dev;
    const bq_args *args;
    const bq_comm *comm;
    bq_home home;
} evaluation;

static int look(void *ctx) {
    evaluation *e = ctx;
    const bq_args *a = e->args;
    int code = bq_recipe_evaluate(&e->recipe, a);
    if (!code) code = bq_source_open(&e->model, a->model);
    if (!code) code = bq_score_open(&e->evals, &e->recipe, &e->model, "--ctx");
    if (code) return code;
    const bq_arch *arch = bq_source_first(&e->model);
    bq_source_layouts(&e->model, &e->layouts);
    for (int k = 0; k < e->layouts.count; k++)
        for (int i = 0; i < BQ_ARCH_LINEARS; i++)
            e->layouts.at[k].scheme[i] = (bq_scheme){a->rtn, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
    size_t arena = bq_score_need(&e->layouts, a->rtn, false, &e->evals);
    code = bq_plan_evaluation(arena + bq_score_host(arch, &e->evals, e->comm->size),
                              bq_score_stream(arch, &e->evals, e->comm->size), a->memory, e->comm, a->scratch,
                              &e->home.scratch);
    return code ? code : bq_device_open(&e->dev, a, e->comm, arena);
}

/* Rank 0 reads all weights once, to find NaN and Inf. */
static int read_all(void *ctx) {
    evaluation *e = ctx;
    uint64_t hash;
    return bq_log_rank() == 0 ? bq_source_fingerprint(&e->model, NULL, &hash) : BQ_OK;
}

/* "perplexity: model=12.3 rtn4=13.4 windows=5 ctx=32" */
static void print_line(const evaluation *e, const bq_eval *eval, double plain, double rounded) {
    const bq_tokens *t = &eval->tokens;
    if (t->joiner[0])
        bq_log(BQ_INFO, "%ld %s of %ld tokens, tokenizer %s, text joined %s, bos %d", (long)eval->items,
               eval->kind->unit, (long)eval->ctx, t->tokenizer, t->joiner, (int)t->bos);
    printf("%s: model=%.6f", eval->kind->name, plain);
    if (e->args->rtn) printf(" rtn%d=%.6f", e->args->rtn, rounded);
    printf(" %s=%ld ctx=%ld\n", eval->kind->unit, (long)eval->items, (long)eval->ctx);
}

static int evaluate_one(const evaluation *e, bq_score *s, const bq_eval *eval) {
    double plain, rounded = 0;
    s->label = "model";
    int code = bq_score_run(s, eval, NULL, NULL, NULL, &plain);
    s->label = "rtn";
    if (!code && e->args->rtn) code = bq_score_run(s, eval, &e->layouts, bq_rtn_weights, NULL, &rounded);
    if (!code && s->comm->rank == 0) print_line(e, eval, plain, rounded);
    return code;
}

static int evaluate_run(const bq_args *a, bq_comm *comm) {
    bq_run s;
    int code = bq_session_open_finished(&s, a, comm);
    if (code == BQ_OK) code = bq_result_evaluate(&s);
    bq_session_close(&s);
    return code;
}

static int open_model(evaluation *e) {
    int code = bq_root_first(e->comm, look, e);
    return code ? code : bq_root_first(e->comm, read_all, e);
}

static bq_score score_of(evaluation *e) {
    return (bq_score){
        .dev = &e->dev, .comm = e->comm, .src = &e->model, .angles = BQ_ANGLES_HF, .home = e->home};
}

static void close_model(evaluation *e) {
    bq_dev_close(&e->dev);
    bq_evals_close(&e->evals);
    bq_source_close(&e->model);
}

int bq_eval_perplexity(const bq_args *args, bq_comm *comm, double *value, int64_t *windows) {
    evaluation e = {.args = args, .comm = comm};
    bq_run s = {0};
    int code = args->run ? bq_session_open_finished(&s, args, comm) : open_model(&e);
    bq_score score = score_of(&e);
    score.label = "model";
    const bq_eval *eval = args->run ? &s.evals.eval[0] : &e.evals.eval[0];
    if (!code)
        code = args->run ? bq_result_value(&s, eval, value)
                         : bq_score_run(&score, eval, NULL, NULL, NULL, value);
    *windows = eval->items;
    if (args->run) bq_session_close(&s);
    close_model(&e);
    return code;
}

int bq_cmd_eval(const bq_args *args, bq_comm *comm) {
    if (args->run) return evaluate_run(args, comm);
    evaluation e = {.args = args, .comm = comm};
    int code = open_model(&e);
    bq_score s = score_of(&e);
    for (int i = 0; i < e.evals.count && !code; i++) code = evaluate_one(&e, &s, &e.evals.eval[i]);
    close_model(&e);
    return code;
}
