/* smooth.h - SmoothQuant: channels that are loud in activations give part of their range to the weights
 * (smoothquant.md 3).  A pass that prepares; the block's function stays. */
#ifndef BQ_SMOOTH_H
#define BQ_SMOOTH_H

#include "block/common/channels.h"

/* Which linears: those behind norms (q, k, v and gate, up), or o and down too. */
typedef enum { BQ_ENTRIES_NORMS, BQ_ENTRIES_ALL } bq_smooth_entries;

/* As in          MIT        llm-compressor    llm-compressor, log    Quark      torchao
 * statistic      absmax     range             range                  absmax     absmax
 * form.kind      ALPHA      ALPHA             LOG                    ALPHA      ALPHA
 * form.ratio     0.5        0.5               -                      1          0.5
 * weight_factor  1          2                 -                      1          1
 * weight_floor   1e-5       0                 -                      1e-5       1.2e-7
 * floor          1e-5       1e-5              1e-5                   1e-3       1.2e-7
 * entries        norms      norms             norms                  all        all
 * fuse           yes        yes               yes                    yes        no
 * (torchao adds 1.2e-7 to both statistics, which differs for channels without activations alone.) */
typedef struct {
    bq_channel_statistic statistic;
    bq_smooth_form form;
    bq_smooth_entries entries;
    bool fuse;
} bq_smooth_options;

/* With fuse one scale s for each input channel of each matrix, folded into what feeds it.  Without, one for
 * each input channel of each linear, which nothing absorbs: W = W diag(s), and 1 / s goes to c->q->pre, which
 * c->blk->pre then is; a linear left out has ones.  c->q must have room for it.  Passes that look at what
 * linears are fed must not follow: they would see it without the factors.  Collective over stage. */
void bq_pass_smoothquant(bq_pass_context *c, const bq_smooth_options *o);

size_t bq_smooth_need(const bq_arch *arch, int64_t tokens, int64_t samples, int replica, int nreplica);

#endif
