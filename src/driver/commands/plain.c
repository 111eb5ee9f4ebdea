/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/plain.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/load/device.h"
#include "driver/run/session.h"
#include "driver/score/prompts.h"

static int look(void *ctx) {
    bq_plain *p = ctx;
    const bq_args *a = p->args;
    int code = bq_recipe_evaluate(&p->recipe, a);
    if (!code) code = bq_source_open(&p->model, a->model);
    if (!code) code = bq_prompts_or_evals(&p->evals, &p->recipe, a, &p->model);
    if (code) return code;
    const bq_arch *arch = bq_source_first(&p->model);
    bq_source_layouts(&p->model, &p->layouts);
    for (int k = 0; k < p->layouts.count; k++)
        for (int i = 0; i < BQ_ARCH_LINEARS; i++)
            p->layouts.at[k].scheme[i] = (bq_scheme){a->rtn, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
    size_t arena = bq_score_need(&p->layouts, a->rtn, false, &p->evals);
    code = bq_plan_evaluation(arena + bq_score_host(arch, &p->evals, p->comm->size),
                              bq_score_stream(arch, &p->evals, p->comm->size), a->memory, p->comm, a->scratch,
                              &p->home.scratch);
    return code ? code : bq_device_open(&p->dev, a, p->comm, arena);
}

static int read_all(void *ctx) {
    bq_plain *p = ctx;
    uint64_t hash;
    return bq_log_rank() == 0 ? bq_source_fingerprint(&p->model, NULL, &hash) : BQ_OK;
}

int bq_plain_open(bq_plain *p) {
    int code = bq_root_first(p->comm, look, p);
    return code ? code : bq_root_first(p->comm, read_all, p);
}

void bq_plain_close(bq_plain *p) {
    bq_dev_close(&p->dev);
    bq_evals_close(&p->evals);
    bq_source_close(&p->model);
}

bq_score bq_plain_score(bq_plain *p) {
    return (bq_score){.dev = &p->dev,
                      .comm = p->comm,
                      .src = &p->model,
                      .angles = BQ_ANGLES_HF,
                      .home = p->home,
                      .label = "model"};
}
