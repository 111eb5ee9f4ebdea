/* SPDX-License-Identifier: Apache-2.0 */
/* All kinds of evaluations.  To add one: its file, and its row here. */
#include "driver/eval/eval.h"

#include <math.h>
#include <stdlib.h>

#define EVALS(ROW) ROW(perplexity) ROW(choice)

#define DECLARE(name) extern const bq_eval_kind bq_eval_kind_##name;
#define ADDRESS(name) &bq_eval_kind_##name,
EVALS(DECLARE)
static const bq_eval_kind *const kinds[] = {EVALS(ADDRESS) NULL};

const bq_eval_kind *bq_eval_kind_at(int i) { return kinds[i]; }
bq_choice bq_eval_choice(int i) { return (bq_choice){.name = kinds[i] ? kinds[i]->name : NULL, .value = i}; }
const bq_scope *bq_eval_scope(int i) { return &kinds[i]->scope; }

int bq_evals_add(bq_evals *set, const bq_eval_kind *kind, void *options) {
    bq_eval *e = &set->eval[set->count++];
    *e = (bq_eval){.kind = kind, .options = options};
    return kind->open(e);
}

void bq_evals_close(bq_evals *set) {
    for (int i = 0; i < set->count; i++) {
        bq_tokens_close(&set->eval[i].tokens);
        free(set->eval[i].data);
        free(set->eval[i].part);
    }
    *set = (bq_evals){0};
}

double bq_eval_unsigned(double x) { return isnan(x) ? (double)NAN : x; }
