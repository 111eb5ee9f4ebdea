/* SPDX-License-Identifier: Apache-2.0 */
/* smooth.h - the pass smoothquant (Xiao et al., 2023): input channels with large values are divided by
 * scales, and the weights are multiplied by them, so that the inputs are easier to round.  A pass that
 * prepares; the block still computes the same function. */
#ifndef BQ_SMOOTH_H
#define BQ_SMOOTH_H

#include "block/common/channels.h"

/* Which matrices are scaled: those that read norms (qkv and gate_up), or o and down, too. */
typedef enum { BQ_ENTRIES_NORMS, BQ_ENTRIES_ALL } bq_smooth_entries;

/* Options that repeat what others do:
 *                MIT        llm-compressor    llm-compressor, log    Quark      torchao
 * statistic      absmax     range             range                  absmax     absmax
 * form.kind      ALPHA      ALPHA             LOG                    ALPHA      ALPHA
 * form.ratio     0.5        0.5               -                      1          0.5
 * weight_factor  1          2                 -                      1          1
 * weight_floor   1e-5       0                 -                      1e-5       1.2e-7
 * floor          1e-5       1e-5              1e-5                   1e-3       1.2e-7
 * entries        norms      norms             norms                  all        all
 * fuse           yes        yes               yes                    yes        no
 * (torchao adds 1.2e-7 to both statistics instead, which differs only for channels that are always 0.) */
typedef struct {
    bq_channel_statistic statistic;
    bq_smooth_form form;
    bq_smooth_entries entries;
    bool fuse;
} bq_smooth_options;

/* With `fuse` each matrix has one scale s for each input channel, folded into the block (fold.h).  Without,
 * each linear has its own: W = W diag(s), and 1 / s is written to c->q->pre, which must have been pushed and
 * becomes c->blk->pre; linears that are not scaled get ones.  Then no pass may follow that reads the inputs
 * of linears, since the factors are not in them (capture.h).  Collective over stage. */
void bq_pass_smoothquant(bq_pass_context *c, const bq_smooth_options *o);

/* Device bytes that the pass takes beside block, result and workspace. */
size_t bq_smooth_need(const bq_arch *arch, int64_t samples, int replica, int nreplica);

#endif
