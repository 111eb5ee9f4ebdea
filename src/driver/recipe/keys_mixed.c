/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of bits.auto: the schemes to choose from, and the budget. */
#include "driver/recipe/keys.h"

#define AT(field) BQ_AT(bq_mixed, field)

static const bq_choice units[] = {
    {"bits", BQ_BUDGET_BITS}, {"bytes", BQ_BUDGET_BYTES}, {"microseconds", BQ_BUDGET_TIME}, {0}};

static const bq_key keys[] = {
    {"schemes", BQ_KEY_LIST, AT(scheme), .value = "[]", .max = BQ_MIXED, .scope = &bq_scheme_keys,
     .count = offsetof(bq_mixed, count), .brief = true,
     .help = "The schemes, with the keys of `bits.decoder`; 2 to 4 are usual. Empty: nothing is chosen."},
    {"budget", BQ_KEY_REAL, AT(budget), .value = "4.5", .min = 0, .max = 1e18, .brief = true,
     .help = "The most that the choice may cost, in `unit`s."},
    {"unit", BQ_KEY_CHOICE, AT(unit), .value = "bits", .choice = units, .brief = true,
     .help =
         "`bits`: of a weight, on average over the linears of all blocks, scales included. `bytes`: of "
         "these linears. `microseconds`: that they take in a step of decoding, each the longer of reading "
         "its weights and of multiplying."},
    {"samples", BQ_KEY_I64, AT(samples), .value = "8", .min = 1, .max = 1 << 24, .brief = true,
     .help =
         "So many of the first calibration samples measure the errors, at most. The time grows with them."},
    {"bandwidth", BQ_KEY_REAL, AT(bandwidth), .value = "3350.0", .min = 1e-3, .max = 1e9, .brief = true,
     .help = "With `microseconds`: GB/s of the memory of the machine that will serve the model; an H100 has "
             "3350."},
    {"flops", BQ_KEY_REAL, AT(flops), .value = "990.0", .min = 1e-3, .max = 1e9, .brief = true,
     .help = "With `microseconds`: its TFLOP/s; an H100 has 990 in bf16."},
    {"tokens", BQ_KEY_I64, AT(tokens), .value = "1", .min = 1, .max = 1 << 20, .brief = true,
     .help = "With `microseconds`: how many tokens it decodes in a step, one for each request."},
    {0}};
const bq_scope bq_mixed_keys = {
    "bits.auto",
    "Mixed precision. Before the phases the program rounds each site (the linears that read one input: q, k "
    "and v, or gate and up) to nearest in each scheme, and measures how far the output of its block moves, "
    "in "
    "the original's stream. Then it chooses the schemes with the least sum of errors that the budget allows, "
    "and writes them to `schemes.json` in the run directory. Linears of a site share a scheme, because "
    "engines multiply by them at once; so do the experts of a block. docs/mixed-precision.md has more.",
    keys, 0};
