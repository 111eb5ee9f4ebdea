/* The keys of distill: end-to-end distillation. */
#include "driver/recipe/keys.h"

#define AT(field) BQ_AT(bq_distill, field)

static const bq_key keys[] = {
    {"steps", BQ_KEY_I64, AT(steps), .value = "0", .max = 1e7, .brief = true,
     .help =
         "Optimizer steps; 0: none. Each costs a forward of `batch` samples through all blocks, twice, and a "
         "backward."},
    {"batch", BQ_KEY_I64, AT(batch), .value = "8", .min = 1, .max = 1 << 24, .brief = true,
     .help = "Samples in a step; must divide `calibration.samples`. The replicas of a stage share them."},
    {"lr", BQ_KEY_REAL, AT(lr), .value = "0.001", .max = 1, .brief = true,
     .help = "Learning rate of the logarithms of the scales; it falls to 0 over the steps (cosine). About so "
             "large a part of itself a scale may change in a step."},
    {0}};
const bq_scope bq_distill_keys = {
    "distill",
    "End-to-end distillation, after the phases: the scales of all blocks are trained together (Adam), so "
    "that the divergence of the quantized model's next-token probabilities from the original's becomes small "
    "(KL, as the second phase of EfficientQAT). Codes stay as they are, so outputs have the same size. It "
    "runs over the stages of the ranks, forward and back, and gives the same bytes on any grid. Not for "
    "models with experts, nor for scales of one byte or tiles. It computes in f32, and does not round "
    "inputs, "
    "whatever `compute` and `activations` of phases say; the head is the original's.",
    keys, sizeof(bq_distill)};
