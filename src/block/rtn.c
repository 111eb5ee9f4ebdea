#include "block/search.h"

#include "base/shard.h"
#include "comm/treesum.h"

void bq_pass_rtn(bq_pass_context *c) {
    bq_quantized *q = c->q;
    const bq_ops *op = c->dev->op;
    for (int m = 0; m < BQ_MATS; m++) op->copy(c->dev, c->blk->w[m], q->fold[m]);
    for (int i = 0; i < q->arch->linears; i++)
        op->range(c->dev, bq_linear_grouped(q->arch, q->scheme, i, q->fold), q->scheme[i], q->scale[i],
                  q->zero[i]);
    bq_quantized_encode(c->dev, q);
}

void bq_pass_rtn_mse(bq_pass_context *c, bq_shrink ends) {
    bq_quantized *q = c->q;
    const bq_ops *op = c->dev->op;
    for (int m = 0; m < BQ_MATS; m++) op->copy(c->dev, c->blk->w[m], q->fold[m]);
    for (int i = 0; i < q->arch->linears; i++) {
        bq_mat w = bq_linear_grouped(q->arch, q->scheme, i, q->fold), scale = q->scale[i], zero = q->zero[i];
        bq_shard mine = bq_shard_of(w.rows, c->comm->replica, c->comm->nreplica);
        op->range_mse(c->dev, bq_mat_rows(w, mine.first, mine.count), q->scheme[i], ends,
                      bq_mat_rows(scale, mine.first, mine.count),
                      zero.data ? bq_mat_rows(zero, mine.first, mine.count) : zero);
        bq_comm_gather_rows(c->comm, c->dev, scale);
        if (zero.data) bq_comm_gather_rows(c->comm, c->dev, zero);
    }
    bq_quantized_encode(c->dev, q);
}
