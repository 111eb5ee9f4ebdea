/* SPDX-License-Identifier: Apache-2.0 */
/* What autoround, omniquant and qat train, by the ops tuned_weights and tuned_step (kernels/tuned.h).
 *
 * Row values: low and high, then their moments, or those that are kept; at the end two constants, which are
 * lo and hi, or with learned scales the zero points and scales of the start.  Element values: the offsets or
 * weights, then their moments, or those that are kept. */
#include "block/passes/train.h"

static int moments(const bq_train_kind *kind) {
    return kind->optimizer == BQ_ADAM ? 2 : kind->optimizer == BQ_MOMENTUM ? 1 : 0;
}

static bq_mat constant(const bq_trained *v, int k) { return bq_trained_row(v, (int)v->row.cols - 2 + k); }

static bq_tuned values_of(const bq_trained *v) {
    const bq_train_kind *kind = v->kind;
    bq_tuned p = {.form = kind->form, .optimizer = kind->optimizer, .w = v->w};
    bool rows = kind->form != BQ_TUNE_WEIGHTS, elements = kind->form != BQ_TUNE_CLIPPING;
    if (bq_tune_ends(kind->form)) p.lo = constant(v, 0), p.hi = constant(v, 1);
    if (rows) p.low = bq_trained_row(v, 0), p.high = bq_trained_row(v, 1);
    if (rows && moments(kind) > 0) p.m_row = bq_mat_cols(v->row, 2, 2);
    if (rows && moments(kind) > 1) p.v_row = bq_mat_cols(v->row, 4, 2);
    if (elements) p.value = v->element[0];
    if (elements && moments(kind) > 0) p.m = v->element[1];
    if (elements && moments(kind) > 1) p.v = v->element[2];
    return p;
}

void bq_tuned_begin(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bool grid) {
    if (bq_tune_ends(v->kind->form))
        dev->op->range_ends(dev, v->w, v->scheme, grid ? scale : (bq_mat){0}, grid ? zero : (bq_mat){0},
                            constant(v, 0), constant(v, 1));
    if (v->kind->form != BQ_TUNE_SCALES) return;
    if (!grid) dev->op->range(dev, v->w, v->scheme, scale, zero);
    if (zero.data) dev->op->copy(dev, zero, constant(v, 0));
    dev->op->copy(dev, scale, constant(v, 1));
}

void bq_tuned_reset(bq_dev *dev, const bq_trained *v) {
    const bq_tune form = v->kind->form;
    if (bq_tune_ends(form)) { /* factors of 1; OmniQuant's code starts from the sigmoid of 4, which is 0.98 */
        dev->op->set(dev, bq_mat_cols(v->row, 0, 2), form == BQ_TUNE_CLIPPING ? 4 : 1);
        return;
    }
    dev->op->copy(dev, v->w, v->element[0]);
    for (int k = 0; k < 2 && form == BQ_TUNE_SCALES; k++)
        dev->op->copy(dev, constant(v, k), bq_trained_row(v, k));
}

void bq_tuned_weights(bq_dev *dev, const bq_trained *v, bq_mat w_hat, bq_mat scale, bq_mat zero,
                      bq_mat fold) {
    bq_tuned p = values_of(v);
    dev->op->tuned_weights(dev, &p, v->scheme, w_hat, scale, zero, fold);
}

void bq_tuned_step(bq_dev *dev, const bq_trained *v, bq_mat scale, bq_mat zero, bq_mat g, bq_mat numbers) {
    bq_tuned p = values_of(v);
    dev->op->tuned_step(dev, &p, v->scheme, scale, zero, g, numbers, (bq_mat){0});
}
