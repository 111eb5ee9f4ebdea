/* SPDX-License-Identifier: Apache-2.0 */
/* What the keys of a recipe require of each other. */
#include "driver/recipe/recipe.h"

#include "base/die.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/rounding.h"
#include "driver/recipe/traits.h"

#include <stdio.h>
#include <string.h>

unsigned bq_recipe_traits(const bq_recipe *r) {
    unsigned all = 0;
    for (int i = 0; i < r->nphase; i++) all |= bq_phase_traits(&r->phase[i]);
    return all;
}

bool bq_recipe_prescaled(const bq_recipe *r) { return bq_recipe_traits(r) & BQ_PASS_PRESCALES; }

/* What a scheme's keys require of each other. */
static int check_scheme(const bq_origin *from, bq_scheme s, const char *path) {
    bool small = s.scale == BQ_F8_E8M0 || s.scale == BQ_F8_E4M3, whole = bq_element_whole(s.element);
    const char *at = NULL, *why = NULL;
    char key[96];
    if (!whole && !s.symmetric) at = "symmetric", why = "is false, and floats have no zero points";
    if (s.zero == BQ_ZERO_FLOAT && s.symmetric) at = "zero", why = "is float, and symmetric grids have none";
    if (s.element == BQ_INT1 && s.symmetric && s.grid == BQ_GRID_AIMET)
        at = "bits", why = "is 1, which needs zero points: set symmetric=false";
    if (whole && small) at = "scale", why = "is for floats, and bits is an integer";
    if (bq_scheme_tiled(s) && (small || !s.symmetric || (whole && s.grid == BQ_GRID_AIMET)))
        at = "rows",
        why = "is for floats, and symmetric integers by absmax or torchao, with scales f32, bf16, f16";
    if (s.rows == 0 || (s.rows < 0 && s.group > 0))
        at = "rows", why = "must be 1, tiles, or -1 with group -1";
    if (s.rows > 1 && s.group < 0) at = "rows", why = "makes tiles, and group is -1: give both";
    if (!why) return BQ_OK;
    snprintf(key, sizeof key, "%s.%s", path, at);
    return bq_origin_refuse(from, key, "%s", why);
}

/* What distillation and zeros require of a scheme of single sites. */
static int check_uses(const bq_origin *from, const bq_recipe *r, bq_scheme s, const char *path) {
    const bool offset = bq_scheme_offset(s);
    if (r->distill.steps && (bq_scheme_small(s) || bq_scheme_tiled(s)))
        return bq_origin_refuse(
            from, path,
            "distill trains scales that are numbers of their own: not those of one byte or tiles");
    if (offset && bq_recipe_traits(r) & BQ_PASS_SPARSE)
        return bq_origin_refuse(from, path,
                                "a pass makes weights 0, and grids with float zero points do not "
                                "have that number");
    return BQ_OK;
}

/* Schemes that are chosen block by block take the place of exceptions by name. */
static int check_mixed(const bq_origin *from, const bq_recipe *r) {
    char path[64];
    int code = BQ_OK;
    for (int i = 0; i < BQ_LINEARS && r->bits.mixed.count; i++) {
        snprintf(path, sizeof path, "bits.linears.%s", bq_linear_name(i));
        if (!bq_scheme_equal(r->bits.linear[i], r->bits.decoder))
            return bq_origin_refuse(from, path, "bits.auto chooses for all linears: leave one of them out");
    }
    if (r->bits.mixed.count && r->bits.schemes[0])
        return bq_origin_refuse(from, "bits.schemes",
                                "has schemes, and bits.auto chooses some: leave one out");
    for (int i = 0; i < r->bits.mixed.count && !code; i++) {
        snprintf(path, sizeof path, "bits.auto.schemes.%d", i);
        code = check_scheme(from, r->bits.mixed.scheme[i], path);
        if (!code) code = check_uses(from, r, r->bits.mixed.scheme[i], path);
    }
    return code;
}

/* Can a pass work with each of these schemes? */
static int check_kind(const bq_origin *from, const bq_pass_kind *kind, int count, const bq_scheme *scheme,
                      const char *path) {
    bool torchao = false, zeros = false, absmax = false, floats = false, tiles = false;
    for (int i = 0; i < count; i++) {
        const bq_scheme s = scheme[i];
        torchao |= s.grid == BQ_GRID_TORCHAO || bq_scheme_offset(s);
        zeros |= !s.symmetric, absmax |= s.grid != BQ_GRID_AIMET;
        floats |= !bq_element_whole(s.element), tiles |= bq_scheme_tiled(s);
    }
    if (torchao && kind->training)
        return bq_origin_refuse(from, path, "%s trains grids of other rules than torchao's, which bits has",
                                kind->name);
    if (floats && kind->traits & BQ_PASS_INTEGERS)
        return bq_origin_refuse(from, path, "%s works with integers, and bits has floats", kind->name);
    if (tiles && kind->traits & BQ_PASS_QUANTIZES && !(kind->traits & BQ_PASS_TILES))
        return bq_origin_refuse(from, path, "%s needs a scale for each row, and bits has tiles", kind->name);
    if (zeros && !(kind->traits & BQ_PASS_ZEROS))
        return bq_origin_refuse(from, path, "%s needs symmetric grids, and bits has others", kind->name);
    if (absmax && kind->traits & BQ_PASS_AIMET_GRID)
        return bq_origin_refuse(from, path, "%s trains the ends of aimet's grids, and bits has others",
                                kind->name);
    return BQ_OK;
}

static int check_schemes(const bq_origin *from, const bq_recipe *r) {
    int code = check_scheme(from, r->bits.decoder, "bits.decoder");
    for (int i = 0; i < BQ_LINEARS && !code; i++) {
        char path[64];
        snprintf(path, sizeof path, "bits.linears.%s", bq_linear_name(i));
        code = check_scheme(from, r->bits.linear[i], path);
    }
    return code ? code : check_mixed(from, r);
}

int bq_recipe_takes(const bq_recipe *r, bq_scheme scheme, const char *file, const char *path) {
    const bq_origin from = {file, "/", 0, NULL};
    int code = check_scheme(&from, scheme, path);
    if (!code) code = check_uses(&from, r, scheme, path);
    for (int i = 0; i < r->nphase; i++)
        for (int k = 0; k < r->phase[i].npass && !code; k++)
            code = check_kind(&from, bq_pass_kind_at(r->phase[i].pass[k].kind), 1, &scheme, path);
    return code;
}

/* What a pass and its options require of the rest of the recipe. */
static int check_pass(const bq_origin *from, const bq_recipe *r, const bq_phase *phase, const bq_pass *p,
                      const char *path) {
    const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
    bq_pass_reason reason;
    char key[96];
    int code = check_kind(from, kind, BQ_LINEARS, r->bits.linear, path);
    if (!code) code = check_kind(from, kind, r->bits.mixed.count, r->bits.mixed.scheme, path);
    if (code) return code;
    if (kind->fits && !kind->fits(p->options, phase->inputs, &reason)) {
        snprintf(key, sizeof key, "%s%s%s", path, reason.key[0] ? "." : "", reason.key);
        return bq_origin_refuse(from, key, "%s", reason.why);
    }
    bq_training t = bq_pass_training(p, 0);
    if (t.steps == 0 || r->calibration.samples % t.batch == 0) return BQ_OK;
    snprintf(key, sizeof key, "%s.batch", path);
    return bq_origin_refuse(from, key, "is %lld, must divide calibration.samples, which is %lld",
                            (long long)t.batch, (long long)r->calibration.samples);
}

/* Has a scheme float zero points? */
static bool offsets(const bq_recipe *r) {
    bool any = false;
    for (int i = 0; i < BQ_LINEARS; i++) any |= bq_scheme_offset(r->bits.linear[i]);
    for (int i = 0; i < r->bits.mixed.count; i++) any |= bq_scheme_offset(r->bits.mixed.scheme[i]);
    return any;
}

static int check_passes(const bq_origin *from, const bq_recipe *r) {
    bool coded = false, prescaled = false, sparse = false;
    for (int i = 0; i < r->nphase; i++) {
        const bq_phase *phase = &r->phase[i];
        for (int k = 0; k < phase->npass; k++) {
            unsigned traits = bq_pass_traits(&phase->pass[k]);
            char path[64];
            snprintf(path, sizeof path, "phases.%d.passes.%d", i, k);
            bool codes = traits & BQ_PASS_QUANTIZES;
            const char *why = NULL;
            if (coded && !codes)
                why = "prepares weights, and a pass before it has made codes";
            else if (prescaled && traits & BQ_PASS_CALIBRATED)
                why = "looks at the inputs of linears: behind smoothquant without fuse there can only be "
                      "passes that read no samples";
            else if (sparse && traits & BQ_PASS_FILLS)
                why = "would give the zeros before it other values (gptq keeps them with sparse kept)";
            else if (traits & BQ_PASS_SPARSE && offsets(r))
                why = "makes weights 0, and the grids of bits with float zero points do not have that number";
            else if (k + 1 == phase->npass && !codes)
                why = "makes no codes: end the phase with a pass that does, rtn say";
            if (why)
                return bq_origin_refuse(from, path, "%s %s", bq_pass_kind_at(phase->pass[k].kind)->name, why);
            coded |= codes, prescaled |= (traits & BQ_PASS_PRESCALES) != 0;
            sparse |= (traits & BQ_PASS_SPARSE) != 0;
            int code = check_pass(from, r, phase, &phase->pass[k], path);
            if (code) return code;
        }
    }
    return BQ_OK;
}

static int check_transforms(const bq_origin *from, const bq_recipe *r) {
    for (int i = 0; i < r->ntransform; i++) {
        const bq_transform *t = &r->transform[i];
        char path[64];
        for (int k = 0; k < 2; k++) {
            bool block = (k ? t->r2 : t->r1) == BQ_ROTATE_BLOCK, sized = (k ? t->r2_block : t->r1_block) > 0;
            const char *why = block ? "is missing, and r%d is block" : "is there, but r%d is not block";
            snprintf(path, sizeof path, "transforms.%d.r%d_block", i, k + 1);
            if (block != sized) return bq_origin_refuse(from, path, why, k + 1);
        }
        snprintf(path, sizeof path, "transforms.%d", i);
        if (!t->r1 && !t->r2) return bq_origin_refuse(from, path, "rotates nothing: r1 and r2 are none");
    }
    return BQ_OK;
}

/* Output folders must not have the names of the run's own files. */
static int check_outputs(const bq_origin *from, const bq_recipe *r) {
    static const char *const taken[] = {"acts",    "ckpt",        "recipe.json", "run.csv",
                                        "run.log", "result.json", "report.html", "schemes.json"};
    char path[64];
    for (int i = 0; i < r->noutput; i++) {
        const char *dir = r->output[i].dir;
        snprintf(path, sizeof path, "outputs.%d.dir", i);
        for (size_t k = 0; k < sizeof taken / sizeof *taken; k++)
            if (strcmp(dir, taken[k]) == 0) return bq_origin_refuse(from, path, "'%s' is the run's own", dir);
        for (int k = 0; k < i; k++)
            if (strcmp(dir, r->output[k].dir) == 0)
                return bq_origin_refuse(from, path, "is '%s', as outputs.%d: give one of them another", dir,
                                        k);
    }
    return BQ_OK;
}

int bq_recipe_check(const bq_origin *from, const bq_recipe *r) {
    int code = check_schemes(from, r);
    if (!code) code = check_passes(from, r);
    if (!code) code = bq_recipe_check_rounding(from, r);
    if (!code) code = check_transforms(from, r);
    return code ? code : check_outputs(from, r);
}
