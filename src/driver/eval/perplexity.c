#include "driver/eval/perplexity.h"

#include "base/die.h"
#include "base/log.h"
#include "base/shard.h"
#include "comm/heartbeat.h"
#include "io/state/stream.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int bq_perplexity_windows(const char *path, const bq_tokens *t, int64_t ctx, int64_t offset,
                          int64_t *windows) {
    int64_t have = offset < t->count ? (t->count - offset) / ctx : 0;
    if (have < 1 || *windows > have)
        return bq_refuse(BQ_DATA, "%s: %ld windows of %ld tokens from token %ld on are wanted, %ld are there",
                         path, (long)(*windows ? *windows : 1), (long)ctx, (long)offset, (long)have);
    if (*windows == 0) *windows = have;
    return BQ_OK;
}

size_t bq_perplexity_need(const bq_arch *arch, const bq_scheme *scheme, bool prescaled, int64_t ctx) {
    int64_t h = arch->model.hidden, v = arch->model.vocab;
    size_t blocks = bq_block_need(arch) + bq_work_need(arch, ctx, false);
    if (scheme) blocks += bq_quantized_need(arch, scheme);
    if (prescaled) blocks += bq_quantized_need_pre(arch) + bq_block_pre_scratch(arch, ctx);
    size_t head = bq_arena_need(1, h, BQ_F32) + bq_arena_need(v, h, BQ_F32) + bq_arena_need(ctx, 1, BQ_I32);
    return (blocks > head ? blocks : head) + 2 * bq_arena_need(ctx, h, BQ_F32) +
           bq_op_scratch(ctx, arch->attention, v);
}

size_t bq_perplexity_host(const bq_arch *arch, int64_t ctx, int64_t windows) {
    int64_t window = ctx * (arch->model.hidden + arch->model.head_dim), losses = ctx + windows;
    return (size_t)window * sizeof(float) + (size_t)losses * sizeof(double);
}

size_t bq_perplexity_stream(const bq_arch *arch, int64_t ctx, int64_t windows, int ranks) {
    return bq_stream_need(bq_shard_of(windows, 0, ranks).count, ctx, arch->model.hidden);
}

typedef struct {
    const bq_perplexity *e;
    bq_shard share;   /* my windows */
    bq_stream stream; /* their hidden states */
    bq_mat x, y;      /* device (ctx, H) */
    bq_mat buffer;    /* host (ctx, H) */
} walk;

static const int32_t *window_ids(const walk *w, int64_t i) {
    return w->e->tokens->ids + w->e->offset + (w->share.first + i) * w->e->ctx;
}

static void embed(walk *w) {
    for (int64_t i = 0; i < w->share.count; i++) {
        bq_source_embed(w->e->src, window_ids(w, i), w->buffer);
        bq_stream_put(&w->stream, i, w->buffer);
    }
}

/* False when a rank was told to stop. */
static bool blocks(walk *w, const bq_scheme *scheme, bq_weights_of weights, void *ctx) {
    const bq_perplexity *e = w->e;
    const bq_arch *arch = &e->src->arch;
    bq_dev *dev = e->dev;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_block_push(&blk, arch, &dev->mem);
    bq_work_push(&work, arch, e->ctx, false, &dev->mem);
    work.activations = weights ? e->activations : 0;
    if (weights) bq_quantized_push(&q, arch, scheme, &dev->mem);
    if (weights && e->prescaled) bq_quantized_push_pre(&q, &dev->mem);
    bq_source_rope(e->src, e->angles, dev, &work);
    bool stop = false;
    for (int b = 0; b < arch->model.blocks; b++) {
        stop = e->stopped && bq_comm_agree(e->comm, e->stopped(e->stop_ctx));
        if (stop) break;
        bq_source_block(e->src, dev, b, &blk);
        if (weights) weights(ctx, dev, &blk, &q);
        for (int64_t i = 0; i < w->share.count; i++) {
            char note[64];
            dev->op->put(dev, bq_stream_get(&w->stream, i, w->buffer), w->x);
            bq_block_forward(dev, &blk, weights ? q.w_hat : blk.w, &work, w->x, w->y);
            if (e->home.place != BQ_DEVICE) dev->op->get(dev, w->y, w->buffer);
            dev->op->wait(dev);
            bq_stream_put(&w->stream, i, e->home.place == BQ_DEVICE ? w->y : w->buffer);
            bq_heartbeat(e->comm);
            snprintf(note, sizeof note, "eval %s  block %d/%d", e->label, b + 1, arch->model.blocks);
            bq_progress(b * w->share.count + i + 1, arch->model.blocks * w->share.count, note);
        }
    }
    bq_arena_reset(&dev->mem, mark);
    return !stop;
}

/* losses[i] of my windows: the mean over their predictions. */
static void head(walk *w, double *losses) {
    const bq_perplexity *e = w->e;
    const bq_model *m = &e->src->arch.model;
    bq_dev *dev = e->dev;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat norm = bq_arena_push(&dev->mem, 1, m->hidden, BQ_F32);
    bq_mat table = bq_arena_push(&dev->mem, m->vocab, m->hidden, BQ_F32);
    bq_mat next = bq_arena_push(&dev->mem, e->ctx - 1, 1, BQ_I32);
    double *nll = malloc((size_t)e->ctx * sizeof *nll);
    BQ_CHECK(nll, "no memory for the losses of %ld tokens", (long)e->ctx);
    bq_source_head(e->src, dev, norm, table);
    for (int64_t i = 0; i < w->share.count; i++) {
        int32_t *ids = (int32_t *)(uintptr_t)window_ids(w, i) + 1; /* only read */
        dev->op->put(dev, bq_stream_get(&w->stream, i, w->buffer), w->x);
        dev->op->put(dev, bq_mat_host(ids, e->ctx - 1, 1, BQ_I32), next);
        dev->op->rmsnorm(dev, w->x, norm, (float)m->eps, w->y);
        dev->op->xent(dev, bq_mat_rows(w->y, 0, e->ctx - 1), table, next, nll);
        dev->op->wait(dev);
        bq_heartbeat(e->comm);
        double sum = 0;
        for (int64_t t = 0; t < e->ctx - 1; t++) sum += nll[t];
        losses[w->share.first + i] = bq_fault("window_nan") ? NAN : sum / (double)(e->ctx - 1);
    }
    free(nll);
    bq_arena_reset(&dev->mem, mark);
}

/* The first window from which no perplexity can be told; its loss may be finite, and exp of that inf. */
static int64_t first_odd(const double *losses, int64_t windows) {
    for (int64_t i = 0; i < windows; i++)
        if (!isfinite(exp(losses[i]))) return i;
    return 0;
}

/* A NaN may have a sign, which would be printed. */
static double without_sign(double x) { return isnan(x) ? (double)NAN : x; }

/* The losses of all windows, the same on all ranks.  own: of the model's own weights. */
static int judge(const bq_perplexity *e, const double *losses, bool own, double *value) {
    double mean = 0;
    for (int64_t i = 0; i < e->windows; i++) mean += losses[i] / (double)e->windows;
    *value = without_sign(exp(mean));
    if (isfinite(*value)) return BQ_OK;
    int64_t odd = first_odd(losses, e->windows);
    double loss = without_sign(losses[odd]);
    if (!own)
        bq_log(BQ_WARN, "%s: the perplexity is %g: the loss of window %ld is %g", e->label, *value, (long)odd,
               loss);
    else if (e->comm->rank == 0)
        bq_refuse(BQ_DATA,
                  "%s: the perplexity of the model is %g: the loss of window %ld is %g: its weights are "
                  "damaged, or too large for f32",
                  e->src->dir, *value, (long)odd, loss);
    return own ? BQ_DATA : BQ_OK;
}

int bq_perplexity_run(const bq_perplexity *e, const bq_scheme *scheme, bq_weights_of weights, void *ctx,
                      double *value) {
    const int64_t hidden = e->src->arch.model.hidden;
    walk w = {.e = e, .share = bq_shard_of(e->windows, e->comm->rank, e->comm->size)};
    size_t mark = bq_arena_mark(&e->dev->mem);
    double *losses = calloc((size_t)e->windows, sizeof *losses);
    float *buffer = malloc((size_t)(e->ctx * hidden) * sizeof *buffer);
    BQ_CHECK(losses && buffer, "no memory to evaluate windows of %ld tokens", (long)e->ctx);
    w.buffer = bq_mat_host(buffer, e->ctx, hidden, BQ_F32);
    w.x = bq_arena_push(&e->dev->mem, e->ctx, hidden, BQ_F32);
    w.y = bq_arena_push(&e->dev->mem, e->ctx, hidden, BQ_F32);
    bq_stream_open(&w.stream, w.share.count, e->ctx, hidden, e->home);
    embed(&w);
    bool whole = blocks(&w, scheme, weights, ctx);
    if (whole) head(&w, losses);
    bq_progress_end();
    bq_stream_close(&w.stream);
    free(buffer);
    bq_arena_reset(&e->dev->mem, mark);

    if (whole) bq_comm_gather(e->comm, losses, e->windows);
    if (whole) bq_comm_bcast(e->comm, losses, (size_t)e->windows * sizeof *losses);
    int code = whole ? judge(e, losses, weights == NULL, value) : BQ_STOPPED;
    free(losses);
    return code;
}
