#include "block/autosmooth.h"

static bq_scales_options search_of(const bq_autosmooth_options *o) {
    bq_scales_options s = {.statistic = BQ_CHANNEL_ABSMAX, .loss = o->loss, .gqa = o->gqa, .candidates = 10};
    s.activations = o->activations, s.search = o->search;
    for (int m = 0; m < BQ_MATS; m++) s.inspect[m] = o->inspect[m];
    for (int k = 0; k < s.candidates; k++)
        s.form[k] = (bq_smooth_form){.kind = BQ_SMOOTH_POWER, .ratio = k / 10.0, .floor = 1e-4};
    return s;
}

int64_t bq_pass_autosmooth(bq_pass_context *c, const bq_autosmooth_options *o, bq_scales_result *result) {
    bq_scales_result own;
    bq_scales_options s = search_of(o);
    return bq_scales_search(c, &s, result ? result : &own);
}

size_t bq_autosmooth_need(const bq_arch *arch, const bq_autosmooth_options *o, int64_t tokens,
                          int64_t samples, int replica, int nreplica) {
    bq_scales_options s = search_of(o);
    return bq_scales_need(arch, &s, tokens, samples, replica, nreplica);
}
