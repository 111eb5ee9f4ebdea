#include "driver/methods.h"

static int64_t rtn(bq_pass_context *c, const bq_pass *p, int sweep) {
    (void)p, (void)sweep;
    bq_pass_rtn(c);
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
};

bool bq_phase_calibrated(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].calibrated;
    return any;
}

bool bq_phase_backward(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].backward;
    return any;
}
