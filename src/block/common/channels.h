/* SPDX-License-Identifier: Apache-2.0 */
/* channels.h - statistics of the input channels of the sites, over all samples of the stream that
 * preparing passes read (capture.h), and of the columns of their weights.
 *
 * Maxima do not depend on an order.  Means are summed over the tokens of a sample in f64, and over samples by
 * the fixed tree of comm/treesum.h.  So no bit depends on the number of replicas. */
#ifndef BQ_CHANNELS_H
#define BQ_CHANNELS_H

#include "block/common/capture.h"

typedef enum {
    BQ_CHANNEL_ABSMAX,
    BQ_CHANNEL_RANGE,
    BQ_CHANNEL_MEAN,
    BQ_CHANNEL_SQUARES
} bq_channel_statistic;

/* Who else sees each sample of this replica during the walk, so that no second forward is needed. */
typedef struct {
    bool output;    /* visit needs the block's output */
    bq_visit visit; /* NULL: nobody */
    void *ctx;
} bq_onlooker;

/* push: room for a statistic of each site, act[m] (1, columns of m); the caller's mark and reset take it
 * back.  Then compute it: max |x|, max x - min x, mean |x|, or mean x^2 of each input channel, on all
 * replicas.  The walk calls `also`, and c->target (pass.h) with the outputs if it reads the FP stream.
 * Collective over stage. */
void bq_channels_push(bq_dev *dev, const bq_arch *arch, bq_mat *act);
void bq_channels(bq_pass_context *c, bq_channel_statistic what, const bq_mat *act, bq_onlooker also);

/* A statistic of each column of a site of c->blk, into out (1, columns): the largest |w|; with `relative`
 * the mean over the rows of |w| / (largest |w| of its row and group + 1e-6), which is w_mean in
 * llm-compressor's AWQModifier.  Local. */
void bq_channels_weight(bq_pass_context *c, int site, bool relative, bq_mat out);

/* Arena bytes: of bq_channels_push; and the most that one of the two others takes. */
size_t bq_channels_size(const bq_arch *arch);
size_t bq_channels_need(const bq_arch *arch, int64_t samples, int replica, int nreplica);

#endif
