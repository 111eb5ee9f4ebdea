/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/torchao.h"

#include "base/die.h"

#include <math.h>
#include <string.h>

static const char *dtype(golden *g, const char *name, const char *part) {
    char full[96];
    snprintf(full, sizeof full, "%s/%s", name, part);
    const bq_tensor *t = bq_weights_find(g->file, full);
    return t ? t->dtype : "";
}

static bq_mat room(golden *g, int64_t rows, int64_t cols, bq_type type) {
    return bq_mat_host(golden_keep(g, (size_t)(rows * cols) * 8), rows, cols, type);
}

torchao_made torchao_room(golden *g, const char *input, bq_scheme s) {
    char name[32];
    snprintf(name, sizeof name, "in/%s", input);
    const bq_tensor *t = bq_weights_find(g->file, name);
    if (!t || t->dims != 2) bq_refuse_job(BQ_DATA, "%s: tensor '%s' is not a matrix", g->path, name);
    bq_mat w = room(g, t->shape[0], t->shape[1], BQ_F32);
    golden_convert(g, name, w);
    const int64_t cols = s.group > 0 ? s.group : w.cols, rows = w.rows * w.cols / cols;
    if (rows * cols != w.rows * w.cols)
        bq_refuse_job(BQ_DATA, "%s: '%s' has no groups of %lld", g->path, name, (long long)cols);
    return (torchao_made){.rows = w.rows,
                          .w = bq_mat_host(w.data, rows, cols, BQ_F32),
                          .scale = room(g, rows, 1, BQ_F32),
                          .zero = s.symmetric ? (bq_mat){0} : room(g, rows, 1, BQ_F32),
                          .code = room(g, rows, cols, BQ_I8),
                          .w_hat = room(g, rows, cols, BQ_F32)};
}

/* A tensor as i32, whatever integers or floats it has. */
static bq_mat whole(golden *g, const char *name, const char *part) {
    static const struct {
        const char *name;
        bq_type type;
    } types[] = {{"I8", BQ_I8}, {"U8", BQ_U8}, {"I32", BQ_I32}, {"F32", BQ_F32}};
    const char *of = dtype(g, name, part);
    int k = 0;
    while (k < 3 && strcmp(types[k].name, of) != 0) k++;
    bq_mat m = golden_read(g, types[k].type, -1, -1, "%s/%s", name, part),
           to = room(g, m.rows, m.cols, BQ_I32);
    for (int64_t i = 0; i < m.rows * m.cols; i++)
        ((int32_t *)to.data)[i] = k == 0   ? ((int8_t *)m.data)[i]
                                  : k == 1 ? ((uint8_t *)m.data)[i]
                                  : k == 2 ? ((int32_t *)m.data)[i]
                                           : (int32_t)((float *)m.data)[i];
    return to;
}

/* Of floats without eps a row of zeros has no scale: torchao has NaN there.  AIMET widens ranges that are too
 * small; torchao has its eps. */
static bool dead(const torchao_made *m, bq_scheme s, int64_t row) {
    float most = 0;
    for (int64_t c = 0; c < m->w.cols; c++) most = fmaxf(most, fabsf(*(float *)bq_mat_at(m->w, row, c)));
    if (bq_element_whole(s.element)) return s.symmetric && s.grid == BQ_GRID_AIMET && most < 1e-6f;
    return most == 0 && s.scale == BQ_F32 && s.eps == 0;
}

void torchao_compare_codes(golden *g, golden_report *r, const torchao_made *m, bq_scheme s,
                           const char *name) {
    const bool whole_numbers = bq_element_whole(s.element);
    const bool is_unsigned = whole_numbers && strcmp(dtype(g, name, "q"), "U8") == 0;
    const int32_t from = is_unsigned ? (int32_t)bq_qmin(s) : 0, mask = (1 << bq_code_bits(s)) - 1;
    bq_mat want = whole(g, name, "q"), have = room(g, m->code.rows, m->code.cols, BQ_I32);
    const int each = want.rows * want.cols * 2 == have.rows * have.cols ? 2 : 1; /* codes of a byte */
    bq_mat codes = room(g, have.rows, have.cols, BQ_I32);
    for (int64_t i = 0; i < have.rows * have.cols; i++) {
        const int32_t code = ((int8_t *)m->code.data)[i], byte = ((int32_t *)want.data)[i / each];
        const int32_t of = each == 2 ? byte >> (4 * (i % 2)) & 15 : byte + from;
        ((int32_t *)have.data)[i] = whole_numbers ? code : code & mask;
        ((int32_t *)codes.data)[i] = dead(m, s, i / m->w.cols) ? ((int32_t *)have.data)[i] : of;
    }
    golden_compare(golden_codes_of(r, "codes", 0, 0), GOLDEN_ABSOLUTE, have, codes, name);
    if (!golden_has(g, "%s/dq", name)) return;
    bq_mat values = golden_read(g, BQ_F32, m->w.rows * m->w.cols, 1, "%s/dq", name);
    for (int64_t i = 0; i < m->w.rows * m->w.cols; i++)
        if (dead(m, s, i / m->w.cols)) ((float *)values.data)[i] = ((float *)m->w_hat.data)[i];
    golden_compare(golden_codes_of(r, "values", 0, 0), GOLDEN_ABSOLUTE,
                   bq_mat_host(m->w_hat.data, values.rows, 1, BQ_F32), values, name);
}

static void compare_scales(golden *g, golden_report *r, const torchao_made *m, bq_scheme s,
                           const char *name) {
    bq_mat want = golden_read(g, BQ_F32, -1, -1, "%s/scale", name);
    const int64_t n = want.rows * want.cols,
                  tile = s.rows < 0   ? m->w.rows
                         : s.rows > 1 ? s.rows
                                      : 1,
                  groups = tile > 1 && s.rows > 1 ? want.cols : 1;
    bq_mat have = room(g, n, 1, BQ_F32);
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = i / groups * groups * tile + i % groups;
        ((float *)have.data)[i] = dead(m, s, row) ? ((float *)want.data)[i] : ((float *)m->scale.data)[row];
    }
    golden_compare(golden_codes_of(r, "scales", 0, 0), GOLDEN_ABSOLUTE, have,
                   bq_mat_host(want.data, n, 1, BQ_F32), name);
}

static void compare_zeros(golden *g, golden_report *r, const torchao_made *m, bq_scheme s, const char *name) {
    const char *part = golden_has(g, "%s/zero", name) ? "zero" : "zp";
    if (!golden_has(g, "%s/%s", name, part)) return;
    if (bq_scheme_offset(s)) {
        bq_mat want = golden_read(g, BQ_F32, m->zero.rows, 1, "%s/%s", name, part);
        golden_compare(golden_codes_of(r, "zero points", 0, 0), GOLDEN_ABSOLUTE, m->zero, want, name);
        return;
    }
    const bool is_unsigned = strcmp(dtype(g, name, "q"), "U8") == 0;
    bq_mat want = whole(g, name, part), have = room(g, want.rows, want.cols, BQ_I32);
    for (int64_t i = 0; i < want.rows * want.cols; i++)
        ((int32_t *)have.data)[i] = (m->zero.data ? (int32_t)((float *)m->zero.data)[i] : 0) -
                                    (is_unsigned ? (int32_t)bq_qmin(s) : 0);
    golden_compare(golden_codes_of(r, "zero points", 0, 0), GOLDEN_ABSOLUTE, have, want, name);
}

void torchao_check(golden *g, golden_report *r, bq_dev *dev, const torchao_case *c) {
    torchao_made m = torchao_room(g, c->input, c->s);
    const bq_scheme s = c->s;
    dev->op->range(dev, m.w, s, m.scale, m.zero);
    if (bq_scheme_tiled(s)) dev->op->share_scales(dev, bq_mat_reshape(m.scale, m.w.rows / m.rows), s);
    dev->op->quantize(dev, m.w, m.scale, m.zero, s, m.code);
    dev->op->dequantize(dev, m.code, m.scale, m.zero, s, m.w_hat);
    if (golden_has(g, "%s/scale", c->name)) compare_scales(g, r, &m, s, c->name);
    compare_zeros(g, r, &m, s, c->name);
    torchao_compare_codes(g, r, &m, s, c->name);
}
