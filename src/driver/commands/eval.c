/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/commands/plain.h"
#include "driver/run/result.h"
#include "driver/run/session.h"

#include <stdio.h>
#include <stdlib.h>

/* " model_macro=0.41 rtn4_macro=0.38" */
static void print_value(const bq_args *a, const char *stat, double plain, double rounded) {
    const char *line = stat ? "_" : "", *name = stat ? stat : "";
    printf(" model%s%s=%.6f", line, name, plain);
    if (a->rtn) printf(" rtn%d%s%s=%.6f", a->rtn, line, name, rounded);
}

/* "perplexity: model=12.3 rtn4=13.4 windows=5 ctx=32" */
static void print_line(const bq_args *a, const bq_eval *eval, const double *plain, const double *rounded) {
    const int stats = eval->stats;
    const bq_tokens *t = &eval->tokens;
    if (t->joiner[0])
        bq_log(BQ_INFO, "%ld %s of %ld tokens, tokenizer %s, text joined %s, bos %d", (long)eval->items,
               eval->kind->unit, (long)eval->ctx, t->tokenizer, t->joiner, (int)t->bos);
    printf("%s:", eval->kind->name);
    for (int i = 0; i <= stats; i++) print_value(a, i ? eval->kind->stat[i - 1] : NULL, plain[i], rounded[i]);
    printf(" %s=%ld ctx=%ld\n", eval->kind->unit, (long)eval->items, (long)eval->ctx);
    for (int p = 0; p < eval->parts; p++) {
        printf("%s, %s:", eval->kind->name, eval->part[p].name);
        print_value(a, NULL, plain[1 + stats + p], rounded[1 + stats + p]);
        printf(" %s=%ld\n", eval->kind->unit, (long)eval->part[p].items);
    }
}

static int evaluate_one(const bq_plain *p, bq_score *s, const bq_eval *eval) {
    const int n = bq_eval_values(eval);
    double *plain = calloc(2 * (size_t)n, sizeof *plain), *rounded = plain + n;
    BQ_CHECK(plain, "no memory for the numbers of %s", eval->path);
    s->label = "model";
    int code = bq_score_run(s, eval, NULL, NULL, NULL, plain);
    s->label = "rtn";
    if (!code && p->args->rtn) code = bq_score_run(s, eval, &p->layouts, bq_rtn_weights, NULL, rounded);
    if (!code && s->comm->rank == 0) print_line(p->args, eval, plain, rounded);
    free(plain);
    return code;
}

static int evaluate_run(const bq_args *a, bq_comm *comm) {
    bq_run s;
    int code = bq_session_open_finished(&s, a, comm);
    if (code == BQ_OK) code = bq_result_evaluate(&s);
    bq_session_close(&s);
    return code;
}

int bq_eval_perplexity(const bq_args *args, bq_comm *comm, double *value, int64_t *windows) {
    bq_plain p = {.args = args, .comm = comm};
    bq_run s = {0};
    int code = args->run ? bq_session_open_finished(&s, args, comm) : bq_plain_open(&p);
    bq_score score = bq_plain_score(&p);
    const bq_eval *eval = args->run ? &s.evals.eval[0] : &p.evals.eval[0];
    if (!code)
        code = args->run ? bq_result_value(&s, eval, value)
                         : bq_score_run(&score, eval, NULL, NULL, NULL, value);
    *windows = eval->items;
    if (args->run) bq_session_close(&s);
    bq_plain_close(&p);
    return code;
}

int bq_cmd_eval(const bq_args *args, bq_comm *comm) {
    if (args->run) return evaluate_run(args, comm);
    bq_plain p = {.args = args, .comm = comm};
    int code = bq_plain_open(&p);
    bq_score s = bq_plain_score(&p);
    for (int i = 0; i < p.evals.count && !code; i++) code = evaluate_one(&p, &s, &p.evals.eval[i]);
    bq_plain_close(&p);
    return code;
}
