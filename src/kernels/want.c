/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/want.h"

#include "base/die.h"

void bq_want(const bq_dev *dev, const char *op, const char *names, bq_type type, int64_t rows, int64_t cols,
             size_t count, const bq_mat *m) {
    for (size_t i = 0; i < count; i++) {
        BQ_CHECK(m[i].rows == rows && m[i].cols == cols && m[i].type == type && m[i].ld >= cols,
                 "%s: matrix %zu of (%s) is %ld x %ld %s, not %ld x %ld %s", op, i + 1, names,
                 (long)m[i].rows, (long)m[i].cols, bq_type_name(m[i].type), (long)rows, (long)cols,
                 bq_type_name(type));
        BQ_CHECK((m[i].place == BQ_DEVICE) == (dev->mem.place == BQ_DEVICE),
                 "%s: matrix %zu of (%s) is not where the device is", op, i + 1, names);
    }
}

void bq_want_grid(const bq_dev *dev, const char *op, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero) {
    BQ_CHECK(bq_scheme_valid(s, zero.data), "%s: no grid of %s with scales in %s and %d zero points", op,
             bq_element_name(s.element), bq_type_name(s.scale), zero.data != NULL);
    bq_want(dev, op, "w", BQ_F32, w.rows, w.cols, 1, &w);
    bq_want(dev, op, "scale", BQ_F32, w.rows, 1, 1, &scale);
    if (zero.data) bq_want(dev, op, "zero", BQ_F32, w.rows, 1, 1, &zero);
}

void bq_want_tuned(const bq_dev *dev, const char *op, const bq_tuned *p, bq_scheme s, bq_mat scale,
                   bq_mat zero) {
    int64_t rows = p->w.rows, cols = p->w.cols;
    const bq_mat of[] = {p->value, p->m, p->v}, row[] = {p->low, p->high, p->lo, p->hi},
                 pair[] = {p->m_row, p->v_row};
    bq_want_grid(dev, op, p->w, s, scale, zero);
    BQ_CHECK(p->value.data || p->form == BQ_TUNE_CLIPPING, "%s: no values", op);
    for (int i = 0; i < 3; i++)
        if (of[i].data) bq_want(dev, op, "value, m, v", BQ_F32, rows, cols, 1, &of[i]);
    for (int i = 0; i < 2; i++)
        if (pair[i].data) bq_want(dev, op, "m_row, v_row", BQ_F32, rows, 2, 1, &pair[i]);
    if (p->form != BQ_TUNE_WEIGHTS)
        bq_want(dev, op, "low, high, lo, hi", BQ_F32, rows, 1, bq_tune_ends(p->form) ? 4 : 2, row);
}

void bq_want_rounding(const bq_dev *dev, const char *op, bq_mat x, bq_rounding r, bq_mat grid) {
    BQ_CHECK(bq_rounding_valid(r), "%s: values of %s with scales in %s, %ssymmetric%s", op,
             bq_rounding_name(r), bq_type_name(r.scale), r.even ? "" : "not ",
             r.whole ? ", for all rows" : "");
    if (bq_rounding_given(r))
        bq_want(dev, op, "grid", BQ_F32, r.whole ? bq_rounding_groups(r, x.cols) : 1, 2, 1, &grid);
}

void bq_want_router(const bq_dev *dev, const char *op, bq_router r, bq_mat logits, bq_mat index,
                    bq_mat weight) {
    int64_t experts = logits.cols;
    bq_want(dev, op, "logits", BQ_F32, logits.rows, experts, 1, &logits);
    BQ_CHECK(r.groups >= 1 && r.groups <= 64 && experts <= INT32_MAX && experts % r.groups == 0 &&
                 r.kept >= 1 && r.kept <= r.groups && r.chosen >= 1 &&
                 r.chosen <= experts / r.groups * r.kept,
             "%s: %d of %ld experts, from %d of %d groups", op, r.chosen, (long)experts, r.kept, r.groups);
    bq_want(dev, op, "index", BQ_I32, logits.rows, r.chosen, 1, &index);
    bq_want(dev, op, "weight", BQ_F32, logits.rows, r.chosen, 1, &weight);
}
