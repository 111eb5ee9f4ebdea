/* distill.h - what end-to-end distillation (run/distill.h) cannot do, and what it takes.  Local. */
#ifndef BQ_DISTILL_PLAN_H
#define BQ_DISTILL_PLAN_H

#include "comm/comm.h"
#include "driver/recipe/recipe.h"

/* BQ_USAGE after one message: the model has experts; scales that are not numbers of their own. */
int bq_distill_check(const bq_recipe *r, const bq_layouts *layouts);

/* 0 without distillation.  need: bytes on the device beside block, result and a workspace with the backward;
 * host: scales, moments, messages; stream: hidden states.  Of the rank of comm. */
size_t bq_distill_need(const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm);
size_t bq_distill_host(const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm);
size_t bq_distill_stream(const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm);

#endif
