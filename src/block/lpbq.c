#include "block/search.h"

#include "base/die.h"

void bq_pass_lpbq(bq_pass_context *c, int decompressed) {
    bq_quantized *q = c->q;
    if (!c->grid) bq_pass_rtn(c);
    for (int i = 0; i < q->arch->linears; i++) {
        bq_scheme s = q->scheme[i];
        BQ_CHECK(s.symmetric, "lpbq: %s has zero points", q->arch->linear[i].name);
        int64_t groups = bq_linear_groups(q->arch, q->scheme, i);
        int more = decompressed - s.bits;
        if (groups > 1 && more > 0)
            c->dev->op->range_levels(c->dev, bq_mat_reshape(q->scale[i], groups), 1 << more, s.scale);
    }
    bq_quantized_encode(c->dev, q);
}
