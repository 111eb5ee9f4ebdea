#include "driver/score/observed.h"

#include "base/die.h"
#include "base/shard.h"
#include "io/out/export.h"
#include "io/state/stream.h"

bool bq_observed_wanted(const bq_recipe *r) {
    bool any = r->bits.kv != 16;
    for (int i = 0; i < r->noutput; i++)
        any |= bq_format_wants_inputs(r->output[i].format, r->output[i].options);
    return any;
}

int bq_observed_check(const bq_recipe *r, const bq_model *m) {
    if (r->bits.kv != 16 && m->kv_rank)
        return bq_refuse(BQ_USAGE, "bits.kv: the model has latent attention, whose cache has no keys and "
                                   "values: leave it out");
    if (bq_observed_wanted(r) && !r->calibration.tokens[0])
        return bq_refuse(BQ_USAGE,
                         "calibration.tokens is missing, and %s is measured on samples: write it "
                         "into the recipe or give --set calibration.tokens=...",
                         r->bits.kv != 16 ? "bits.kv" : "an imatrix");
    return BQ_OK;
}

int64_t bq_observed_numbers(const bq_arch *arch) {
    int64_t sum = BQ_OBSERVED_SITES;
    for (int m = 0; m < arch->sites; m++) sum += 1 + arch->site[m].cols;
    return sum;
}

int64_t bq_observed_most(const bq_layouts *layouts) {
    int64_t most = 0;
    for (int i = 0; i < layouts->count; i++) {
        int64_t one = bq_observed_numbers(layouts->at[i].arch);
        most = one > most ? one : most;
    }
    return most;
}

size_t bq_observed_need(const bq_recipe *r, const bq_layouts *layouts) {
    return bq_observed_wanted(r) ? bq_arena_need(1, bq_observed_most(layouts), BQ_F32) : 0;
}

size_t bq_observed_stream(const bq_recipe *r, const bq_arch *arch, int ranks) {
    int64_t share = bq_shard_of(r->calibration.samples, 0, ranks).count;
    size_t one = bq_stream_need(share, r->calibration.length, arch->model.hidden);
    return !bq_observed_wanted(r) ? 0 : arch->experts ? 2 * one : one; /* with the inputs of experts */
}

size_t bq_observed_host(const bq_recipe *r, const bq_layouts *layouts, int ranks) {
    int64_t share = bq_shard_of(r->calibration.samples, 0, ranks).count;
    if (!bq_observed_wanted(r)) return 0;
    return (size_t)(bq_observed_most(layouts) * (share + 3)) * sizeof(float); /* with sums in double */
}
