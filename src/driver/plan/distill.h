/* SPDX-License-Identifier: Apache-2.0 */
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

/* Does each row of the site have one scale, whose gradient needs no gradient of weights (block.h)? */
bool bq_distill_by_rows(const bq_arch *arch, const bq_scheme *scheme, int site);

/* Tokens of a sample that count in a step; samples of a share that go through a stage's original blocks at
 * once: so each block is read twice for each stage. */
static inline int64_t bq_distill_positions(const bq_recipe *r) {
    const int64_t some = r->distill.positions, all = r->calibration.length;
    return some > 0 && some < all ? some : all;
}
static inline int64_t bq_distill_piece(int64_t share, int nstage) {
    return (share + 2 * nstage - 1) / (2 * nstage);
}

#endif
