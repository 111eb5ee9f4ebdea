/* What each kind of pass does, and the memory it takes. */
#include "driver/methods.h"

#include "block/midway.h"

#include <math.h>

static bq_shrink ends_of(const bq_pass *p) {
    long count = lround(p->grid * p->shrink);
    return (bq_shrink){p->grid, count < 1 ? 1 : (int)count, p->norm};
}

static int64_t rtn(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    if (p->clip == BQ_CLIP_MSE)
        bq_pass_rtn_mse(c, ends_of(p));
    else
        bq_pass_rtn(c);
    return 0;
}

static int64_t seqmse(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    bq_pass_seqmse(c, &p->seqmse);
    return 0;
}

static size_t seqmse_need(const bq_pass *p, const bq_pass_size *of) {
    (void)p;
    return bq_seqmse_need(of->arch, of->scheme, of->tokens, of->samples, of->replica, of->nreplica);
}

static int64_t lpbq(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    bq_pass_lpbq(c, p->decompressed);
    return 0;
}

static int64_t adascale(bq_pass_context *c, const bq_pass *p, int sweep) {
    bq_adascale_options o = {.iterations = bq_pass_steps(p, sweep),
                             .batch = p->batch,
                             .lr_clip = p->lr_clip,
                             .lr_weight = p->lr_weight,
                             .loss = p->loss,
                             .early_stop = p->early_stop,
                             .check_interval = p->check_interval,
                             .window = p->window,
                             .threshold = p->threshold,
                             .anneal = p->anneal};
    return bq_pass_adascale(c, &o);
}

static size_t adascale_need(const bq_pass *p, const bq_pass_size *of) {
    return bq_adascale_need(of->arch, of->scheme, of->tokens, of->samples, p->batch, of->replica,
                            of->nreplica);
}

static int64_t gptq(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    bq_gptq_options o = p->gptq;
    o.ends = ends_of(p);
    bq_pass_gptq(c, &o);
    return 0;
}

static size_t gptq_need(const bq_pass *p, const bq_pass_size *of) {
    return bq_gptq_need(of->arch, of->scheme, of->tokens, of->samples, &p->gptq, of->replica, of->nreplica);
}

static int64_t smoothquant(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    bq_pass_smoothquant(c, &p->smooth);
    return 0;
}

static int64_t autosmooth(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    return bq_pass_autosmooth(c, &p->autosmooth, NULL);
}

static int64_t awq(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    return bq_pass_awq(c, &p->awq, NULL);
}

static size_t smoothquant_need(const bq_pass *p, const bq_pass_size *of) {
    (void)p;
    return bq_smooth_need(of->arch, of->tokens, of->samples, of->replica, of->nreplica);
}

static size_t autosmooth_need(const bq_pass *p, const bq_pass_size *of) {
    return bq_autosmooth_need(of->arch, &p->autosmooth, of->tokens, of->samples, of->replica, of->nreplica);
}

static size_t awq_need(const bq_pass *p, const bq_pass_size *of) {
    return bq_awq_need(of->arch, of->scheme, &p->awq, of->tokens, of->samples, of->replica, of->nreplica);
}

static const struct {
    int64_t (*run)(bq_pass_context *c, const bq_pass *p, int sweep);
    size_t (*need)(const bq_pass *p, const bq_pass_size *of); /* NULL: nothing */
} kinds[BQ_PASS_KINDS] = {
    [BQ_PASS_RTN] = {rtn, NULL},
    [BQ_PASS_ADASCALE] = {adascale, adascale_need},
    [BQ_PASS_SEQMSE] = {seqmse, seqmse_need},
    [BQ_PASS_LPBQ] = {lpbq, NULL},
    [BQ_PASS_GPTQ] = {gptq, gptq_need},
    [BQ_PASS_SMOOTHQUANT] = {smoothquant, smoothquant_need},
    [BQ_PASS_AUTOSMOOTH] = {autosmooth, autosmooth_need},
    [BQ_PASS_AWQ] = {awq, awq_need},
};

int64_t bq_pass_run(bq_pass_context *c, const bq_pass *p, int sweep) {
    return kinds[p->kind].run(c, p, sweep);
}

size_t bq_pass_need(const bq_pass *p, const bq_pass_size *of) {
    size_t kept = bq_pass_keeps(p) ? bq_midway_need(of->arch, of->tokens, of->keeps) : 0;
    return kept + (kinds[p->kind].need ? kinds[p->kind].need(p, of) : 0);
}
