/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/products.h"

#include "driver/recipe/traits.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Of a unit in a phase: linears forward and backward, moments of inputs, errors of weights times moments. */
static size_t of_phase(bq_compute compute, unsigned traits, const bq_arch *arch, int64_t t) {
    size_t most = 0;
    int shapes = traits & BQ_PASS_MOMENTS ? 5 : 4;
    for (int m = 0; m < arch->sites; m++) {
        int64_t n = arch->site[m].rows, k = arch->site[m].cols;
        const int64_t shape[][3] = {{t, n, k}, {t, k, n}, {n, k, t}, {k, k, t}, {n, k, k}};
        for (int i = 0; i < shapes; i++) {
            size_t one = bq_gemm_scratch(compute, shape[i][0], shape[i][1], shape[i][2]);
            if (one && traits & BQ_PASS_BACKWARD) one += bq_arena_need(t, n, BQ_F32); /* of codes (block.h) */
            most = larger(most, one);
        }
    }
    return most;
}

size_t bq_products_reference(const bq_recipe *r, const bq_layouts *layouts) {
    size_t most = 0;
    for (int i = 0; i < layouts->count; i++)
        for (int m = 0; m < layouts->at[i].arch->sites; m++) {
            const bq_site *site = &layouts->at[i].arch->site[m];
            int64_t t = r->calibration.length;
            most = larger(most, bq_gemm_scratch(r->reference, t, site->rows, site->cols));
        }
    return most;
}

size_t bq_products_need(const bq_recipe *r, const bq_layouts *layouts) {
    size_t most = bq_products_reference(r, layouts);
    for (int i = 0; i < layouts->count; i++) {
        const bq_arch *arch = layouts->at[i].arch;
        const int64_t t = r->calibration.length;
        for (int p = 0; p < r->nphase; p++)
            most = larger(most, of_phase(r->phase[p].compute, bq_phase_traits(&r->phase[p]), arch, t));
        if (r->distill.steps) most = larger(most, of_phase(r->distill.compute, BQ_PASS_BACKWARD, arch, t));
    }
    return most;
}
