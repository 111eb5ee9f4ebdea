/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/search.h"

#include "base/die.h"

void bq_pass_lpbq(bq_pass_context *c, int decompressed) {
    bq_quantized *q = c->q;
    if (!c->grid) bq_pass_rtn(c);
    for (int i = 0; i < q->arch->linears; i++) {
        bq_scheme s = q->scheme[i];
        BQ_CHECK(s.symmetric, "lpbq: %s has zero points", q->arch->linear[i].name);
        int64_t groups = bq_linear_groups(q->arch, q->scheme, i);
        int more = decompressed - bq_code_bits(s);
        if (groups > 1 && more > 0)
            c->dev->op->range_levels(c->dev, bq_mat_reshape(q->scale[i], groups), 1 << more, s.scale);
    }
    bq_quantized_encode(c->dev, q);
}

/* ---- the kind ---- */

typedef struct {
    int decompressed; /* bits */
} options;

static const bq_key keys[] = {
    {"decompressed_bits", BQ_KEY_INT, BQ_AT(options, decompressed), .value = "8", .min = 2, .max = 8,
     .help = "Bits of a code times its multiple: the multiples are 1 ... 2^(`decompressed_bits` - bits). Set "
             "it to what the hardware computes with. Fewer bits make coarser scales."},
    {0}};

static int64_t run(bq_pass_context *c, const void *o) {
    bq_pass_lpbq(c, ((const options *)o)->decompressed);
    return 0;
}

const bq_pass_kind bq_pass_kind_lpbq = {
    .scope = {"phases.N.passes.N, pass: lpbq",
              "Makes the scales of groups small whole multiples of one scale for each row (AIMET's LPBQ), "
              "for hardware that computes with one scale for each row. Starts from the grids of the "
              "passes before, or from min-max. Needs groups and symmetric codes, no data.",
              keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "lpbq",
    .traits = BQ_PASS_QUANTIZES | BQ_PASS_INTEGERS,
    .run = run,
};
