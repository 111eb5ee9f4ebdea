/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/score/observed.h"

#include "base/die.h"
#include "base/shard.h"
#include "io/out/export.h"
#include "io/state/stream.h"

bool bq_observed_wanted(const bq_recipe *r) {
    bool any = bq_recipe_cache_measured(r) || bq_recipe_inputs_measured(r);
    for (int i = 0; i < r->noutput; i++)
        any |= bq_format_wants_inputs(r->output[i].format, r->output[i].options);
    return any;
}

int bq_observed_check(const bq_recipe *r, const bq_model *m) {
    if (bq_recipe_cache(r, m).element && m->kv_rank)
        return bq_refuse(BQ_USAGE, "bits.kv: the model has latent attention, whose cache has no keys and "
                                   "values: leave it out");
    if (bq_observed_wanted(r) && !r->calibration.tokens[0])
        return bq_refuse(BQ_USAGE,
                         "calibration.tokens is missing, and %s is measured on samples: write it "
                         "into the recipe or give --set calibration.tokens=...",
                         bq_recipe_cache_measured(r)    ? "bits.kv"
                         : bq_recipe_inputs_measured(r) ? "bits.activations"
                                                        : "an imatrix");
    return BQ_OK;
}

bool bq_observed_counts(const bq_recipe *r) {
    return bq_recipe_inputs_measured(r) && r->bits.activations.range != BQ_RANGE_MINMAX;
}

int64_t bq_observed_heads(const bq_recipe *r, const bq_arch *arch) {
    return bq_recipe_cache_measured(r) && r->bits.kv.per == BQ_PER_HEAD ? arch->model.kv_heads : 1;
}

int64_t bq_observed_maxima(const bq_recipe *r, const bq_arch *arch) {
    return 2 * bq_observed_heads(r, arch) + (bq_recipe_inputs_measured(r) ? 2 * arch->sites : 0);
}

int64_t bq_observed_numbers(const bq_recipe *r, const bq_arch *arch) {
    int64_t sum = bq_observed_maxima(r, arch);
    for (int m = 0; m < arch->sites; m++) sum += 1 + arch->site[m].cols;
    return sum;
}

int64_t bq_observed_most(const bq_recipe *r, const bq_layouts *layouts) {
    int64_t most = 0;
    for (int i = 0; i < layouts->count; i++) {
        int64_t one = bq_observed_numbers(r, layouts->at[i].arch);
        most = one > most ? one : most;
    }
    return most;
}

size_t bq_observed_need(const bq_recipe *r, const bq_layouts *layouts) {
    size_t bins = bq_observed_counts(r) ? bq_arena_need(1, BQ_BINS, BQ_I32) : 0;
    return bq_observed_wanted(r) ? bq_arena_need(1, bq_observed_most(r, layouts), BQ_F32) + bins : 0;
}

size_t bq_observed_stream(const bq_recipe *r, const bq_arch *arch, int ranks) {
    int64_t share = bq_shard_of(r->calibration.samples, 0, ranks).count;
    size_t one = bq_stream_need(share, r->calibration.length, arch->model.hidden);
    return !bq_observed_wanted(r) ? 0 : arch->experts ? 2 * one : one; /* with the inputs of experts */
}

size_t bq_observed_host(const bq_recipe *r, const bq_layouts *layouts, int ranks) {
    int64_t share = bq_shard_of(r->calibration.samples, 0, ranks).count;
    if (!bq_observed_wanted(r)) return 0;
    int64_t bins = bq_observed_counts(r) ? BQ_BINS * (2 * 2 * BQ_SITES + 1) : 0; /* counts in 64 bits */
    return (size_t)(bq_observed_most(r, layouts) * (share + 3) + bins) * sizeof(float); /* sums in double */
}
