/* perplexity.h - the evaluation (models.md 8.1, protocol A): windows of ctx tokens side by side, the tail
 * dropped; a window's loss is the mean over its ctx - 1 predictions, the perplexity exp of the mean over
 * windows.
 *
 * Windows are walked block by block, so one block of weights is in memory whatever the depth.  They are
 * shared out over the ranks of the world; the sum runs in window order on rank 0. */
#ifndef BQ_PERPLEXITY_H
#define BQ_PERPLEXITY_H

#include "comm/comm.h"
#include "driver/load/source.h"
#include "io/state/stream.h"

typedef struct {
    bq_dev *dev;
    const bq_comm *comm;
    const bq_source *src;
    const bq_tokens *tokens;
    bq_angles angles;
    int64_t ctx, windows, offset;     /* windows > 0, all of them there (bq_perplexity_windows) */
    bq_home home;                     /* of streams */
    bool (*stopped)(const void *ctx); /* asked on every rank at each block; NULL: never */
    const void *stop_ctx;
    const char *label; /* for the progress line: "fp", "rtn", ... */
    int activations;   /* bits of the inputs of quantized linears; 0: as they are */
    bool prescaled;    /* the quantized form has room for factors of these inputs */
} bq_perplexity;

/* Which weights: fills `what` (pushed) for block blk; NULL means the block's own. */
typedef void (*bq_weights_of)(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q);

/* How many windows there are for windows = 0 (all) or a number; BQ_DATA when there is not one, or not so
 * many. */
int bq_perplexity_windows(const char *path, const bq_tokens *t, int64_t ctx, int64_t offset,
                          int64_t *windows);

/* Walk all windows; *value is the same on all ranks.  scheme: of the quantized form, used when weights is not
 * NULL.  BQ_OK; BQ_STOPPED on all ranks when one was stopped; BQ_DATA when the model's own weights give no
 * finite perplexity, after one message that names the window.  Other weights may: *value is then inf or NaN
 * (without a sign), after a warning.  Fault point window_nan.  Collective over world. */
int bq_perplexity_run(const bq_perplexity *e, const bq_scheme *scheme, bq_weights_of weights, void *ctx,
                      double *value);

/* Device bytes of a run, and those of its stream on the rank with the largest share, wherever it lives. */
size_t bq_perplexity_need(const bq_arch *arch, const bq_scheme *scheme, bool prescaled, int64_t ctx);
/* Host bytes beside both: a window, its rotary table, losses. */
size_t bq_perplexity_host(const bq_arch *arch, int64_t ctx, int64_t windows);
size_t bq_perplexity_stream(const bq_arch *arch, int64_t ctx, int64_t windows, int ranks);

#endif
