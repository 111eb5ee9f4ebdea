#include "driver/methods.h"

#include <math.h>

static int64_t rtn(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    long count = lround(p->grid * p->shrink);
    bq_shrink ends = {p->grid, count < 1 ? 1 : (int)count, p->norm};
    if (p->clip == BQ_CLIP_MSE)
        bq_pass_rtn_mse(c, ends);
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

int64_t bq_pass_steps(const bq_pass *p, int sweep) {
    if (p->kind != BQ_PASS_ADASCALE) return 0;
    if (sweep == 0) return p->iterations;
    return p->sweep_iterations ? p->sweep_iterations : (p->iterations + 3) / 4;
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
                             .threshold = p->threshold};
    return bq_pass_adascale(c, &o);
}

static size_t adascale_need(const bq_pass *p, const bq_pass_size *of) {
    return bq_adascale_need(of->arch, of->scheme, of->tokens, of->samples, p->batch, of->replica,
                            of->nreplica);
}

static int64_t gptq(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    bq_pass_gptq(c, &p->gptq);
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
    bq_pass_autosmooth(c, &p->autosmooth, NULL);
    return 0;
}

static int64_t awq(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)sweep;
    bq_pass_awq(c, &p->awq, NULL);
    return 0;
}

static size_t smoothquant_need(const bq_pass *p, const bq_pass_size *of) {
    (void)p;
    return bq_smooth_need(of->arch, of->tokens, of->samples, of->replica, of->nreplica);
}

static size_t autosmooth_need(const bq_pass *p, const bq_pass_size *of) {
    (void)p;
    return bq_scales_need(of->arch, of->tokens, of->samples, of->replica, of->nreplica);
}

static size_t awq_need(const bq_pass *p, const bq_pass_size *of) {
    (void)p;
    return bq_awq_need(of->arch, of->scheme, of->tokens, of->samples, of->replica, of->nreplica);
}

const bq_method bq_methods[BQ_PASS_KINDS] = {
    [BQ_PASS_RTN] = {.name = "rtn", .quantizes = true, .asymmetric = true, .run = rtn},
    [BQ_PASS_ADASCALE] = {.name = "adascale",
                          .calibrated = true,
                          .quantizes = true,
                          .trains = true,
                          .backward = true,
                          .remedy = "start more ranks a stage, or take a smaller batch",
                          .need = adascale_need,
                          .run = adascale},
    [BQ_PASS_SEQMSE] = {.name = "seqmse",
                        .asymmetric = true,
                        .calibrated = true,
                        .quantizes = true,
                        .remedy = "start more ranks a stage",
                        .need = seqmse_need,
                        .run = seqmse},
    [BQ_PASS_LPBQ] = {.name = "lpbq", .quantizes = true, .run = lpbq},
    [BQ_PASS_GPTQ] = {.name = "gptq",
                      .calibrated = true,
                      .quantizes = true,
                      .asymmetric = true,
                      .remedy = "set sequential, which takes one matrix at a time",
                      .need = gptq_need,
                      .run = gptq},
    [BQ_PASS_SMOOTHQUANT] = {.name = "smoothquant",
                             .calibrated = true,
                             .asymmetric = true,
                             .remedy = "take shorter samples",
                             .need = smoothquant_need,
                             .run = smoothquant},
    [BQ_PASS_AUTOSMOOTH] = {.name = "autosmoothquant",
                            .calibrated = true,
                            .asymmetric = true,
                            .remedy = "take shorter samples",
                            .need = autosmooth_need,
                            .run = autosmooth},
    [BQ_PASS_AWQ] = {.name = "awq",
                     .calibrated = true,
                     .asymmetric = true,
                     .remedy = "take shorter samples",
                     .need = awq_need,
                     .run = awq},
};

bool bq_phase_calibrated(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].calibrated;
    return any;
}

bool bq_phase_trains(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].trains;
    return any;
}

bool bq_phase_backward(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].backward;
    return any;
}
