/* channels.h - how loud each input channel of the four matrices is, over all samples of the stream that
 * preparing passes see (capture.h).
 *
 * Maxima are exact in any order; means are summed over a sample's tokens in f64, over samples in a fixed
 * tree.  So no bit depends on the number of replicas. */
#ifndef BQ_CHANNELS_H
#define BQ_CHANNELS_H

#include "block/common/capture.h"

typedef enum { BQ_CHANNEL_ABSMAX, BQ_CHANNEL_RANGE, BQ_CHANNEL_MEAN } bq_channel_statistic;

/* The statistic of every input: max |x|, max x - min x, or mean |x|.  act[m] (1, cols of matrix m) are pushed
 * by bq_channels_push and live as long as the caller keeps the arena.  `also` (its visit may be NULL) is
 * shown every sample of this replica, so that nobody needs a second forward; nor does c->target, which gets
 * the outputs, of the FP stream.  Collective over stage. */
typedef struct {
    bool output; /* of the block, wanted by visit */
    bq_visit visit;
    void *ctx;
} bq_onlooker;
void bq_channels_push(bq_dev *dev, const bq_arch *arch, bq_mat act[BQ_MATS]);
void bq_channels(bq_pass_context *c, bq_channel_statistic what, const bq_mat act[BQ_MATS], bq_onlooker also);

/* The largest |w| of each column of a matrix; or, relative, the mean over its rows of |w| over its group's
 * largest (smoothquant.md 5.1, wbar).  out (1, cols). */
void bq_channels_weight(bq_pass_context *c, int mat, bool relative, bq_mat out);

/* Arena bytes: of bq_channels_push, and of the two others at most. */
size_t bq_channels_size(const bq_arch *arch);
size_t bq_channels_need(const bq_arch *arch, int64_t tokens, int64_t samples, int replica, int nreplica);

#endif
