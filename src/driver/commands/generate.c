/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/commands.h"

#include "base/die.h"
#include "driver/commands/plain.h"
#include "driver/recipe/traits.h"
#include "driver/run/result.h"
#include "driver/run/session.h"
#include "driver/score/prompts.h"
#include "io/rundir.h"

#include <inttypes.h>
#include <stdio.h>

/* Generate with some weights, and print a line for each prompt: "adascale 0: 12,34,5". */
static int generate(bq_score *s, bq_eval *e, const char *name, const bq_layouts *layouts,
                    bq_weights_of weights, void *ctx) {
    s->label = name;
    int code = bq_prompts_run(s, e, layouts, weights, ctx);
    const bq_args *a = e->options;
    for (int64_t i = 0; i < e->sequences && !code && s->comm->rank == 0; i++) {
        const int32_t *id = bq_prompts_added(e, i);
        printf("%s %" PRId64 ": ", name, i);
        for (int64_t k = 0; k < a->count; k++) printf("%s%d", k ? "," : "", (int)id[k]);
        putchar('\n');
    }
    fflush(stdout);
    return code;
}

static int of_run(const bq_args *a, bq_comm *comm) {
    bq_run s;
    char name[96];
    int code = bq_session_open_finished(&s, a, comm);
    bq_score with = bq_result_score(&s);
    bq_eval *e = s.evals.eval;
    if (!code) bq_recipe_title(&s.recipe, name, sizeof name);
    if (!code && !a->result_only) code = generate(&with, e, "fp", NULL, NULL, NULL);
    if (!code) code = generate(&with, e, name, &s.layouts, bq_result_weights, &s);
    bq_session_close(&s);
    return code;
}

int bq_cmd_generate(const bq_args *args, bq_comm *comm) {
    bq_args a = *args;
    if (bq_rundir_is(a.file[0])) {
        a.run = a.file[0];
        return of_run(&a, comm);
    }
    a.model = a.file[0];
    bq_plain p = {.args = &a, .comm = comm};
    int code = bq_plain_open(&p);
    bq_score s = bq_plain_score(&p);
    if (!code) code = generate(&s, p.evals.eval, "model", NULL, NULL, NULL);
    bq_plain_close(&p);
    return code;
}
