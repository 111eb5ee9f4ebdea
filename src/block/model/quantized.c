/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/quantized.h"

#include "base/die.h"

int64_t bq_linear_groups(const bq_arch *arch, const bq_scheme *scheme, int i) {
    int64_t cols = arch->linear[i].cols, group = scheme[i].group;
    if (group <= 0) return 1;
    BQ_CHECK(cols % group == 0, "group %ld does not divide the %ld columns of %s", (long)group, (long)cols,
             arch->linear[i].name);
    return cols / group;
}

const bq_layout *bq_layout_of(const bq_layouts *layouts, const bq_arch *arch, int block) {
    int i = 0;
    if (layouts->own) return &layouts->own[2 * block + (arch->kind == BQ_UNIT_EXPERT)];
    while (layouts->at[i].arch != arch) i++;
    return &layouts->at[i];
}

bq_linear_most bq_linear_most_of(const bq_layouts *layouts) {
    bq_linear_most most = {0};
    for (int k = 0; k < layouts->count; k++)
        for (int i = 0; i < layouts->at[k].arch->linears; i++) {
            const bq_layout *of = &layouts->at[k];
            const bq_linear *l = &of->arch->linear[i];
            size_t codes = (size_t)(l->rows * l->cols), cols = (size_t)l->cols,
                   scales = (size_t)(l->rows * bq_linear_groups(of->arch, of->scheme, i));
            most = (bq_linear_most){codes > most.codes ? codes : most.codes,
                                    scales > most.scales ? scales : most.scales,
                                    cols > most.cols ? cols : most.cols};
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

size_t bq_quantized_need_any(const bq_layouts *layouts, bool pre) {
    size_t most = 0;
    for (int i = 0; i < layouts->count; i++) {
        const bq_layout *l = &layouts->at[i];
        size_t one = bq_quantized_need(l->arch, l->scheme) + (pre ? bq_quantized_need_pre(l->arch) : 0);
        most = one > most ? one : most;
    }
    return bq_arena_need(1, (int64_t)most, BQ_I8);
}

void bq_quantized_push_any(bq_quantized *q, const bq_layouts *layouts, bool pre, bq_arena *mem) {
    size_t most = bq_quantized_need_any(layouts, pre) - BQ_ARENA_ALIGN;
    bq_mat room = bq_arena_push(mem, 1, (int64_t)most, BQ_I8);
    *q = (bq_quantized){.prescales = pre};
    bq_arena_adopt(&q->room, room.data, (size_t)room.cols, room.place);
    bq_quantized_turn(q, &layouts->at[0]);
}

void bq_quantized_turn(bq_quantized *q, const bq_layout *layout) {
    bq_arena room = q->room;
    bool pre = q->prescales, same = q->arch == layout->arch;
    for (int i = 0; i < layout->arch->linears && same; i++)
        same = bq_scheme_equal(q->scheme[i], layout->scheme[i]);
    if (same) return;
    bq_arena_reset(&room, 0);
    bq_quantized_push(q, layout->arch, layout->scheme, &room);
    q->prescales = pre;
    if (pre) bq_quantized_push_pre(q, &room);
    q->room = room;
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

static float largest(bq_dev *dev, bq_mat w, bq_mat room) {
    float most = 0;
    dev->op->zero(dev, room);
    dev->op->column_max(dev, w, 0, room);
    dev->op->head_max(dev, room, 1);
    dev->op->get(dev, bq_mat_cols(room, 0, 1), bq_mat_host(&most, 1, 1, BQ_F32));
    dev->op->wait(dev);
    return most;
}

void bq_quantized_outer(bq_dev *dev, bq_quantized *q) {
    for (int i = 0; i < q->arch->linears; i++) {
        int site = q->arch->linear[i].site;
        if (q->scheme[i].scale != BQ_F8_E4M3) continue;
        if (q->scheme[i].levels == BQ_OUTER_NONE) {
            q->scheme[i].outer = 1;
            continue;
        }
        const float most = largest(dev, q->fold[site], bq_mat_rows(q->w_hat[site], 0, 1));
        /* weights so small that the factor would be infinite become 0 */
        const float whole = BQ_SCALE_MAX * bq_qmax(q->scheme[i]);
        const bool times = q->scheme[i].grid == BQ_GRID_TORCHAO;
        q->scheme[i].outer = !(most > 1e-30f) ? 1 : times ? most / whole : whole / most;
    }
}

void bq_linear_range(bq_dev *dev, bq_quantized *q, int i) {
    const bq_scheme s = q->scheme[i];
    dev->op->range(dev, bq_linear_grouped(q->arch, q->scheme, i, q->fold), s, q->scale[i], q->zero[i]);
    if (bq_scheme_tiled(s))
        dev->op->share_scales(dev, bq_mat_reshape(q->scale[i], bq_linear_groups(q->arch, q->scheme, i)), s);
}

static void decode(bq_dev *dev, bq_quantized *q, int i) {
    dev->op->dequantize(dev, bq_linear_grouped(q->arch, q->scheme, i, q->code), q->scale[i], q->zero[i],
                        q->scheme[i], bq_linear_grouped(q->arch, q->scheme, i, q->w_hat));
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
