/* SPDX-License-Identifier: Apache-2.0 */
/* What a recipe and a model's layouts mean for the plan: the schemes of linears, the size of a checkpoint. */
#include "base/die.h"
#include "driver/plan/plan.h"
#include "driver/recipe/traits.h"
#include "io/state/checkpoint.h"

static int schemes_of(const bq_recipe *recipe, bq_layout *layout) {
    const bq_arch *arch = layout->arch;
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        bq_scheme s = layout->scheme[i] = bq_recipe_scheme(recipe, l->name);
        if (s.group > 0 && l->cols % s.group)
            return bq_refuse(BQ_USAGE, "bits: group %ld does not divide the %ld input columns of %s",
                             (long)s.group, (long)l->cols, l->module);
        if (l->cols % 4 && bq_recipe_traits(recipe) & BQ_PASS_SPARSE)
            return bq_refuse(BQ_USAGE, "2:4 sparsity needs columns in fours, and %s has %ld", l->module,
                             (long)l->cols);
    }
    return BQ_OK;
}

int bq_plan_schemes(const bq_recipe *recipe, bq_layouts *layouts) {
    const char *names[BQ_LAYOUTS * BQ_ARCH_LINEARS];
    int n = 0;
    for (int k = 0; k < layouts->count; k++)
        for (int i = 0; i < layouts->at[k].arch->linears; i++)
            names[n++] = layouts->at[k].arch->linear[i].name;
    int code = bq_recipe_fits(recipe, n, names);
    for (int k = 0; k < layouts->count && !code; k++) code = schemes_of(recipe, &layouts->at[k]);
    return code;
}

/* Bytes of the parts of linear i, each rounded up as they lie in memory. */
static size_t linear_bytes(const bq_layout *layout, int i, bool folds, bool prescaled) {
    const bq_linear *l = &layout->arch->linear[i];
    int64_t scales = l->rows * bq_linear_groups(layout->arch, layout->scheme, i);
    size_t codes = bq_ckpt_room(l->rows * l->cols), floats = bq_ckpt_room(4 * l->rows * l->cols);
    return codes + (folds ? floats : 0) + (layout->scheme[i].symmetric ? 1 : 2) * bq_ckpt_room(4 * scales) +
           bq_ckpt_room(4 * l->rows) + (prescaled ? bq_ckpt_room(4 * l->cols) : 0) + bq_ckpt_room(4);
}

size_t bq_plan_checkpoint(const bq_recipe *r, const bq_layouts *layouts) {
    const bool folds = bq_recipe_continues(r, 0, 0), prescaled = bq_recipe_prescaled(r);
    size_t most = 0;
    int64_t steps = 0;
    for (int k = 0; k < layouts->count; k++) {
        const bq_layout *layout = &layouts->at[k];
        size_t sum = 2 * bq_ckpt_room(4 * layout->arch->model.hidden);
        for (int i = 0; i < layout->arch->linears; i++) sum += linear_bytes(layout, i, folds, prescaled);
        most = sum > most ? sum : most;
    }
    for (int p = 0; p < r->nphase; p++)
        for (int i = 0; i < r->phase[p].npass; i++) {
            int64_t n = bq_pass_training(&r->phase[p].pass[i], 0).steps;
            steps = n > steps ? n : steps;
        }
    return most + bq_ckpt_room(8 * steps);
}
