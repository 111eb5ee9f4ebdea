/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of distill: end-to-end distillation. */
#include "driver/recipe/keys.h"

#define AT(field) BQ_AT(bq_distill, field)

static const bq_key keys[] = {
    {"steps", BQ_KEY_I64, AT(steps), .value = "0", .max = 1e7, .brief = true,
     .help =
         "Optimizer steps; 0: none. Each costs a forward of `batch` samples through all blocks, twice, and a "
         "backward."},
    {"batch", BQ_KEY_I64, AT(batch), .value = "8", .min = 1, .max = 1 << 24, .brief = true,
     .help = "Samples in a step; must divide `calibration.samples`. The replicas of a stage "
             "share them."},
    {"lr", BQ_KEY_REAL, AT(lr), .value = "0.001", .max = 1, .brief = true,
     .help =
         "Learning rate of the logarithms of scales and gains. It rises over the first `warmup` steps, and "
         "falls to 0 over all steps (cosine). About so large a part of itself a number may change in a "
         "step."},
    {"warmup", BQ_KEY_I64, AT(warmup), .value = "8", .max = 1e7, .brief = true,
     .help = "Steps over which the rate rises from near 0."},
    {"positions", BQ_KEY_I64, AT(positions), .value = "0", .max = 1 << 20, .brief = true,
     .help = "So many tokens of each sample count in a step, chosen at random; 0, or more than there are: "
             "all. The head is computed for these alone, which saves time where it is a large part of the "
             "model."},
    {"held_out", BQ_KEY_I64, AT(held), .value = "0", .max = 1 << 20, .brief = true,
     .help = "So many samples of the text behind the calibration's, which no pass reads: the log has their "
             "KL before and "
             "after."},
    {"norms", BQ_KEY_BOOL, AT(norms), .value = "true", .brief = true,
     .help = "Train the gains of the norms before attention and MLP (where a family lacks them, of those "
             "behind), of the final norm, and biases of linears, too. They are floats in outputs."},
    {"compute", BQ_KEY_CHOICE, AT(compute), .value = "f32", .choice = bq_compute_choices, .brief = true,
     .help = "How products are computed, as `compute` of a phase; also the original's."},
    {0}};
const bq_scope bq_distill_keys = {
    "distill",
    "End-to-end distillation, after the phases: scales, zero points that are floats, gains of norms and "
    "biases of all blocks are trained together (Adam), so that the divergence of the quantized model's "
    "next-token probabilities from the original's becomes small (KL, as the second phase of EfficientQAT). "
    "Codes stay as they are, so outputs have the same size. It runs over the stages of the ranks, forward "
    "and "
    "back, and gives the same bytes on any grid. Not for models with experts, nor for scales of one byte or "
    "tiles. Inputs are not rounded, whatever `activations` of phases says; the head is the original's.",
    keys, sizeof(bq_distill)};
