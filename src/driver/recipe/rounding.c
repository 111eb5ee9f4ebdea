/* SPDX-License-Identifier: Apache-2.0 */
/* bits.activations and bits.kv: their keys, and what they mean for ops. */
#include "driver/recipe/rounding.h"

#include "base/die.h"
#include "driver/recipe/keys.h"

#include <float.h>

#define AT BQ_AT

enum { AS_IT_IS = 16 };

static const bq_choice elements[] = {{"int16", BQ_INT16},
                                     {"e2m1", BQ_E2M1},
                                     {"e2m3", BQ_E2M3},
                                     {"e3m2", BQ_E3M2},
                                     {"e4m3", BQ_E4M3},
                                     {"e5m2", BQ_E5M2},
                                     {0}};
static const bq_choice cache_elements[] = {{"e4m3", BQ_E4M3}, {"e5m2", BQ_E5M2}, {0}};
static const bq_choice pers[] = {{"token", BQ_PER_TOKEN}, {"tensor", BQ_PER_TENSOR}, {0}};
static const bq_choice cache_pers[] = {
    {"auto", BQ_PER_AUTO}, {"token", BQ_PER_TOKEN}, {"head", BQ_PER_HEAD}, {"tensor", BQ_PER_TENSOR}, {0}};
static const bq_choice ranges[] = {
    {"minmax", BQ_RANGE_MINMAX}, {"percentile", BQ_RANGE_PERCENTILE}, {"mse", BQ_RANGE_MSE}, {0}};
static const bq_choice scales[] = {{"f32", BQ_F32}, {"e8m0", BQ_F8_E8M0}, {"e4m3", BQ_F8_E4M3}, {0}};
static const bq_choice rules[] = {{"compressed-tensors", BQ_ROUND_DIVIDE},
                                  {"torchao", BQ_ROUND_RECIPROCAL},
                                  {"torchao-0.10", BQ_ROUND_NARROW},
                                  {0}};

static const bq_key activations[] = {
    {"bits", BQ_KEY_BITS, AT(bq_activations, element), .value = "16", .min = 2, .max = 8, .other = 16,
     .choice = elements,
     .help = "Bits of an integer, or a float: `e4m3` is FP8, `e2m1` FP4. `int16` has 16 bits; the number 16 "
             "means that inputs stay as they are."},
    {"symmetric", BQ_KEY_BOOL, AT(bq_activations, even), .value = "true", .brief = true,
     .help =
         "False, of integers: each scale has a zero point, and the grid covers just the values there are, "
         "and 0."},
    {"per", BQ_KEY_CHOICE, AT(bq_activations, per), .value = "token", .choice = pers, .brief = true,
     .help =
         "Which values share a scale: those of a token (where `bits.decoder.rows` makes tiles, of a token "
         "and the columns of a tile), or all inputs of a linear (`tensor`), which linears of the same "
         "input have in common."},
    {"group", BQ_KEY_GROUP, AT(bq_activations, group), .value = "-1", .max = 1 << 20, .brief = true,
     .help = "With `per` `token`: columns of a token that share a scale; -1: all. MX has 32, NVFP4 16."},
    {"scale", BQ_KEY_CHOICE, AT(bq_activations, scale), .value = "f32", .choice = scales, .brief = true,
     .help = "Type of scales. Of floats also `e8m0`, a power of two (MX), and `e4m3`, which is FP8 times a "
             "factor that all inputs of a linear share (NVFP4)."},
    {"rule", BQ_KEY_CHOICE, AT(bq_activations, rule), .value = "compressed-tensors", .choice = rules,
     .brief = true,
     .help =
         "Whose arithmetic integers have. `compressed-tensors`: x / scale + zero is rounded. `torchao`: "
         "x * (1 / scale) is rounded, then zero is added. `torchao-0.10`: the same without the least code, "
         "so 8 bits are -127 ... 127. Of symmetric grids the scale is the largest |x| over half the "
         "number of steps: 127.5, or 127 without the least code. Of floats with `scale` `e8m0` or `e4m3`, "
         "`torchao` is what `grid` `torchao` is for weights: no scale of NVFP4 is below 2^-6, and `even` "
         "rounds to as many bits as the element has."},
    {"mx_scale", BQ_KEY_CHOICE, AT(bq_activations, power), .value = "even", .choice = bq_power_choices,
     .brief = true, .help = "With `scale` `e8m0`, the power of two of a group, as for weights."},
    {"dynamic", BQ_KEY_BOOL, AT(bq_activations, dynamic), .value = "true", .brief = true,
     .help =
         "False: one number for all inputs of a linear is measured after the passes, and outputs have it: "
         "the "
         "scale and zero of `per` `tensor`, or the factor of NVFP4. It is measured on the calibration "
         "samples, with the result's weights, before inputs are rounded. True: engines compute that number "
         "from the inputs that they have; the evaluation takes one sequence at a time."},
    {"range", BQ_KEY_CHOICE, AT(bq_activations, range), .value = "minmax", .choice = ranges, .brief = true,
     .help = "With `dynamic` false, what the grid covers. `minmax`: all values of the samples. `percentile`: "
             "all but a few at each end. `mse`: the range among 80, from all of it down to a fifth, with the "
             "least squared error. The last two come from histograms, whose bins are the numbers of bf16."},
    {"percentile", BQ_KEY_REAL, AT(bq_activations, percentile), .value = "99.99", .min = 50, .max = 100,
     .brief = true,
     .help = "Percent of the values that `percentile` covers; of the rest a half is at each end."},
    {0}};
const bq_scope bq_activations_keys = {"bits.activations",
                                      "Inputs of linears. A value alone, `8` say, is `bits` with all other "
                                      "keys left out: dynamic, symmetric, a "
                                      "scale for each token. `{\"bits\": 8, \"symmetric\": false}` is "
                                      "8da4w's; `{\"bits\": \"e4m3\", \"group\": "
                                      "32, \"scale\": \"e8m0\"}` is MXFP8; `{\"bits\": \"e2m1\", \"group\": "
                                      "16, \"scale\": \"e4m3\"}` is NVFP4.",
                                      activations, sizeof(bq_activations)};

static const bq_key cache[] = {
    {"bits", BQ_KEY_BITS, AT(bq_cache, element), .value = "16", .min = 2, .max = 8, .other = 16,
     .choice = cache_elements,
     .help = "Bits of an integer, or a float; 16: keys and values stay as they are."},
    {"per", BQ_KEY_CHOICE, AT(bq_cache, per), .value = "auto", .choice = cache_pers, .brief = true,
     .help =
         "Which of the keys, and which of the values, share a scale. `token`: those of a token and a head; "
         "engines compute such scales as they go (torchao: -127 ... 127 with 8 bits). `tensor`: all of a "
         "block; `head`: those of a head of a block. These two are measured after the passes, on the "
         "calibration samples: the largest / 448 for `e4m3`, / 127.5 for 8 bits. `auto`: `token` for "
         "integers, `tensor` for floats."},
    {0}};
const bq_scope bq_cache_keys = {"bits.kv", "Keys and values. A value alone is `bits` with `per` left out.",
                                cache, sizeof(bq_cache)};

bq_rounding bq_recipe_inputs(const bq_recipe *r) {
    const bq_activations *a = &r->bits.activations;
    if (a->element == AS_IT_IS) return (bq_rounding){0};
    const float least[] = {[BQ_ROUND_DIVIDE] = 0,
                           [BQ_ROUND_RECIPROCAL] = a->even ? FLT_EPSILON : FLT_MIN,
                           [BQ_ROUND_NARROW] = 1e-5f};
    int64_t tile = r->bits.decoder.rows > 1 ? r->bits.decoder.group : -1;
    return (bq_rounding){.element = a->element,
                         .even = a->even,
                         .whole = a->per == BQ_PER_TENSOR,
                         .rule = a->rule,
                         .group = a->group > 0 || a->per == BQ_PER_TENSOR ? a->group : tile,
                         .scale = a->scale,
                         .least = least[a->rule],
                         .power = a->power};
}

/* Do tokens have scales of their own? */
static bool per_token(bq_cache c) {
    return c.per == BQ_PER_TOKEN || (c.per == BQ_PER_AUTO && bq_element_whole(c.element));
}

bq_rounding bq_recipe_cache(const bq_recipe *r, const bq_model *m) {
    const bq_cache c = r->bits.kv;
    if (c.element == AS_IT_IS) return (bq_rounding){0};
    bool token = per_token(c), narrow = token && bq_element_whole(c.element);
    return (bq_rounding){.element = c.element,
                         .even = true,
                         .whole = !token,
                         .rule = narrow ? BQ_ROUND_NARROW : BQ_ROUND_DIVIDE,
                         .group = token || c.per == BQ_PER_HEAD ? m->head_dim : -1,
                         .least = narrow ? 1e-5f : 0};
}

bool bq_recipe_inputs_measured(const bq_recipe *r) {
    return r->bits.activations.element != AS_IT_IS && !r->bits.activations.dynamic;
}

bool bq_recipe_cache_measured(const bq_recipe *r) {
    return r->bits.kv.element != AS_IT_IS && !per_token(r->bits.kv);
}

static int check_activations(const bq_origin *from, const bq_recipe *r) {
    const bq_activations *a = &r->bits.activations;
    const bq_rounding how = bq_recipe_inputs(r);
    bool whole = bq_rounding_whole(how), small = a->scale != BQ_F32, tensor = a->per == BQ_PER_TENSOR;
    const char *at = NULL, *why = NULL;
    char key[64];
    if (!how.element) return BQ_OK;
    if (!whole && !a->even) at = "symmetric", why = "is false, and floats have no zero points";
    if (whole && small) at = "scale", why = "is for floats, and bits is an integer";
    if (small && !whole && a->group < 0)
        at = "group", why = "is -1, and scales of a byte are for groups: give it";
    if (tensor && a->group > 0) at = "group", why = "divides tokens, and per is tensor";
    if (!whole && a->rule != BQ_ROUND_DIVIDE && (!small || a->rule == BQ_ROUND_NARROW))
        at = "rule", why = "is for integers, and bits is a float";
    if (!a->dynamic && small && a->rule != BQ_ROUND_DIVIDE)
        at = "dynamic", why = "is false, and files hold the factor of the rule compressed-tensors";
    if (a->rule == BQ_ROUND_NARROW && !a->even) at = "rule", why = "torchao-0.10 is symmetric";
    if (a->range != BQ_RANGE_MINMAX && (a->dynamic || small))
        at = "range", why = "is for scales that are measured: per tensor, dynamic false";
    if (!a->dynamic && !bq_rounding_given(how))
        at = "dynamic",
        why = "is false, and what is measured is for all tokens: give per tensor, or scale e4m3";
    if (!a->dynamic && bq_recipe_prescaled(r))
        at = "dynamic", why = "is false, and smoothquant without fuse has factors for each linear's inputs";
    if (!why) return BQ_OK;
    snprintf(key, sizeof key, "bits.activations.%s", at);
    return bq_origin_refuse(from, key, "%s", why);
}

int bq_recipe_check_rounding(const bq_origin *from, const bq_recipe *r) {
    for (int i = 0; i < r->nphase; i++) {
        char key[48];
        snprintf(key, sizeof key, "phases.%d.activations", i);
        if (r->phase[i].activations && (!bq_recipe_inputs(r).element || bq_recipe_inputs_measured(r)))
            return bq_origin_refuse(from, key, "is true, and bits.activations %s",
                                    bq_recipe_inputs_measured(r) ? "is measured after the passes" : "is 16");
    }
    return check_activations(from, r);
}
