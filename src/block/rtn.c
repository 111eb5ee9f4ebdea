#include "block/pass.h"

void bq_pass_rtn(bq_pass_context *c) {
    bq_quantized *q = c->q;
    const bq_ops *op = c->dev->op;
    for (int m = 0; m < BQ_MATS; m++) op->copy(c->dev, c->blk->w[m], q->fold[m]);
    for (int i = 0; i < q->arch->linears; i++)
        op->range(c->dev, bq_linear_grouped(q->arch, q->scheme, i, q->fold), q->scheme[i], q->scale[i],
                  q->zero[i]);
    bq_quantized_encode(c->dev, q);
}
