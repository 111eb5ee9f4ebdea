#include "block/model/quantized.h"

#include "base/die.h"

int64_t bq_linear_groups(const bq_arch *arch, const bq_scheme *scheme, int i) {
    int64_t cols = arch->linear[i].cols, group = scheme[i].group;
    if (group <= 0) return 1;
    BQ_CHECK(cols % group == 0, "group %ld does not divide the %ld columns of %s", (long)group, (long)cols,
             arch->linear[i].name);
    return cols / group;
}

bq_linear_most bq_linear_most_of(const bq_arch *arch, const bq_scheme *scheme) {
    bq_linear_most most = {0};
    for (int i = 0; i < arch->linears; i++) {
        size_t c = (size_t)(arch->linear[i].rows * arch->linear[i].cols);
        size_t g = (size_t)(arch->linear[i].rows * bq_linear_groups(arch, scheme, i));
        size_t k = (size_t)arch->linear[i].cols;
        most = (bq_linear_most){c > most.codes ? c : most.codes, g > most.scales ? g : most.scales,
                                k > most.cols ? k : most.cols};
    }
    return most;
}

bq_mat bq_linear_view(const bq_arch *arch, int i, const bq_mat *mats) {
    const bq_linear *l = &arch->linear[i];
    return bq_mat_rows(mats[l->site], l->row, l->rows);
}

bq_mat bq_linear_grouped(const bq_arch *arch, const bq_scheme *scheme, int i, const bq_mat *mats) {
    return bq_mat_reshape(bq_linear_view(arch, i, mats),
                          arch->linear[i].cols / bq_linear_groups(arch, scheme, i));
}

void bq_quantized_push(bq_quantized *q, const bq_arch *arch, const bq_scheme *scheme, bq_arena *mem) {
    *q = (bq_quantized){.arch = arch};
    for (int m = 0; m < arch->sites; m++) {
        q->w_hat[m] = bq_arena_push(mem, arch->site[m].rows, arch->site[m].cols, BQ_F32);
        q->fold[m] = bq_arena_push(mem, arch->site[m].rows, arch->site[m].cols, BQ_F32);
        q->code[m] = bq_arena_push(mem, arch->site[m].rows, arch->site[m].cols, BQ_I8);
    }
    for (int i = 0; i < arch->linears; i++) {
        q->scheme[i] = scheme[i];
        int64_t grids = arch->linear[i].rows * bq_linear_groups(arch, scheme, i);
        q->scale[i] = bq_arena_push(mem, grids, 1, BQ_F32);
        if (!scheme[i].symmetric) q->zero[i] = bq_arena_push(mem, grids, 1, BQ_F32);
    }
}

size_t bq_quantized_need(const bq_arch *arch, const bq_scheme *scheme) {
    size_t sum = 0;
    for (int m = 0; m < arch->sites; m++)
        sum += 2 * bq_arena_need(arch->site[m].rows, arch->site[m].cols, BQ_F32) +
               bq_arena_need(arch->site[m].rows, arch->site[m].cols, BQ_I8);
    for (int i = 0; i < arch->linears; i++)
        sum += (scheme[i].symmetric ? 1 : 2) *
               bq_arena_need(arch->linear[i].rows * bq_linear_groups(arch, scheme, i), 1, BQ_F32);
    return sum;
}

void bq_quantized_push_pre(bq_quantized *q, bq_arena *mem) {
    for (int i = 0; i < q->arch->linears; i++)
        q->pre[i] = bq_arena_push(mem, 1, q->arch->linear[i].cols, BQ_F32);
}

size_t bq_quantized_need_pre(const bq_arch *arch) {
    size_t sum = 0;
    for (int i = 0; i < arch->linears; i++) sum += bq_arena_need(1, arch->linear[i].cols, BQ_F32);
    return sum;
}

static void decode(bq_dev *dev, bq_quantized *q, int i) {
    dev->op->dequantize(dev, bq_linear_grouped(q->arch, q->scheme, i, q->code), q->scale[i], q->zero[i],
                        bq_linear_grouped(q->arch, q->scheme, i, q->w_hat));
}

void bq_linear_encode(bq_dev *dev, bq_quantized *q, int i) {
    dev->op->quantize(dev, bq_linear_grouped(q->arch, q->scheme, i, q->fold), q->scale[i], q->zero[i],
                      q->scheme[i], bq_linear_grouped(q->arch, q->scheme, i, q->code));
    decode(dev, q, i);
}

void bq_quantized_encode(bq_dev *dev, bq_quantized *q) {
    for (int i = 0; i < q->arch->linears; i++) bq_linear_encode(dev, q, i);
}

void bq_quantized_decode(bq_dev *dev, bq_quantized *q) {
    for (int i = 0; i < q->arch->linears; i++) decode(dev, q, i);
}
