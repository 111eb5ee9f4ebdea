/* SPDX-License-Identifier: Apache-2.0 */
/* perplexity.h - the options of perplexity, which a recipe has in its object `eval`, too. */
#ifndef BQ_PERPLEXITY_H
#define BQ_PERPLEXITY_H

#include "driver/eval/eval.h"

typedef struct {
    char tokens[BQ_PATH_MAX];     /* in the object "": nothing is evaluated */
    int64_t ctx, windows, offset; /* windows 0: all */
} bq_perplexity;

extern const bq_eval_kind bq_eval_kind_perplexity;
extern const bq_scope bq_perplexity_object; /* the keys of `eval` */

#endif
