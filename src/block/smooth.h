/* smooth.h - SmoothQuant: channels that are loud in activations give part of their range to the weights
 * (smoothquant.md 3).  A pass that prepares; the block's function stays. */
#ifndef BQ_SMOOTH_H
#define BQ_SMOOTH_H

#include "block/channels.h"

typedef enum { BQ_ENTRIES_NORMS, BQ_ENTRIES_ALL } bq_smooth_entries;

/* As in          MIT        llm-compressor    llm-compressor, log    Quark
 * statistic      absmax     range             range                  absmax
 * form.kind      ALPHA      ALPHA             LOG                    ALPHA
 * form.ratio     0.5        0.5               -                      1
 * weight_factor  1          2                 -                      1
 * weight_floor   1e-5       0                 -                      1e-5
 * floor          1e-5       1e-5              1e-5                   1e-3
 * entries        norms      norms             norms                  all */
typedef struct {
    bq_channel_statistic statistic;
    bq_smooth_form form;
    bq_smooth_entries entries;
} bq_smooth_options;

/* One scale for each input channel of each matrix.  Collective over stage. */
void bq_pass_smoothquant(bq_pass_context *c, const bq_smooth_options *o);

size_t bq_smooth_need(const bq_arch *arch, int64_t tokens, int64_t samples, int replica, int nreplica);

#endif
