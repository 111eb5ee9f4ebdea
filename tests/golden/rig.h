/* SPDX-License-Identifier: Apache-2.0 */
/* rig.h - a golden model opened by the loader of a run: where the tests touch a model's structs. */
#ifndef BQ_GOLDEN_RIG_H
#define BQ_GOLDEN_RIG_H

#include "golden/golden.h"

#include "driver/load/source.h"

typedef struct {
    bq_source src;
    bq_dev dev;
    bq_block blk;
    bq_work work;
    bq_mat x, y, dw[BQ_LAYOUT_SITES];
    int64_t tokens;
} golden_rig;

/* From g->dir (golden_model), for `tokens` tokens; ends the process when the loader refuses it. */
void golden_rig_open(golden_rig *m, const golden *g, int64_t tokens);
void golden_rig_close(golden_rig *m);

/* Device memory for a model of these sizes, and for what ops take beside it. */
size_t golden_rig_need(const bq_arch *arch, int64_t tokens);

#endif
