/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/report.h"

#include "base/die.h"
#include "base/log.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

golden_row *golden_row_of(golden_report *r, const char *what, double limit, double share) {
    for (int i = 0; i < r->rows; i++)
        if (strcmp(r->row[i].what, what) == 0) return &r->row[i];
    BQ_CHECK(r->rows < GOLDEN_ROWS, "no room for '%s'", what);
    r->row[r->rows] = (golden_row){.what = what, .limit = limit, .share = share};
    return &r->row[r->rows++];
}

golden_row *golden_codes_of(golden_report *r, const char *what, double limit, double share) {
    golden_row *row = golden_row_of(r, what, limit, share);
    row->counted = true;
    return row;
}

void golden_note(golden_row *row, double deviation, const char *fmt, ...) {
    if (!(deviation >= 0)) deviation = INFINITY;
    row->compared++;
    row->differ += deviation > 0;
    row->beyond += deviation > row->limit;
    if (deviation < row->worst || (deviation == row->worst && *row->at)) return;
    row->worst = deviation;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(row->at, sizeof row->at, fmt, ap);
    va_end(ap);
}

static double value(bq_mat m, int64_t row, int64_t col) {
    const void *at = bq_mat_at(m, row, col);
    switch (m.type) {
    case BQ_F32: return (double)*(const float *)at;
    case BQ_F64: return *(const double *)at;
    case BQ_I8: return *(const int8_t *)at;
    case BQ_U8: return *(const uint8_t *)at;
    case BQ_I32: return *(const int32_t *)at;
    default: BQ_DIE("no comparison of %s", bq_type_name(m.type));
    }
}

double golden_error(bq_mat have, bq_mat want) {
    double worst = 0, scale = 0;
    BQ_CHECK(have.rows == want.rows && have.cols == want.cols,
             "%lld x %lld values are compared with %lld x %lld", (long long)have.rows, (long long)have.cols,
             (long long)want.rows, (long long)want.cols);
    for (int64_t r = 0; r < want.rows; r++)
        for (int64_t c = 0; c < want.cols; c++) {
            double b = value(want, r, c), d = fabs(value(have, r, c) - b);
            worst = d >= 0 ? fmax(worst, d) : INFINITY;
            scale = fmax(scale, fabs(b));
        }
    return worst / scale;
}

void golden_compare(golden_row *row, golden_measure measure, bq_mat have, bq_mat want, const char *at) {
    if (measure == GOLDEN_LARGEST) {
        golden_note(row, golden_error(have, want), "%s", at);
        return;
    }
    BQ_CHECK(have.rows == want.rows && have.cols == want.cols, "%s: %lld x %lld values, not %lld x %lld", at,
             (long long)have.rows, (long long)have.cols, (long long)want.rows, (long long)want.cols);
    for (int64_t r = 0; r < want.rows; r++)
        for (int64_t c = 0; c < want.cols; c++) {
            double b = value(want, r, c), d = fabs(value(have, r, c) - b);
            golden_note(row, measure == GOLDEN_RELATIVE ? d / (fabs(b) + 1e-30) : d, "%s (%lld, %lld)", at,
                        (long long)r, (long long)c);
        }
}

void golden_unread(golden_report *r, const golden *g) {
    int unread = 0, count = bq_weights_count(g->file);
    for (int i = 0; i < count; i++) unread += !g->seen[i];
    if (!unread) return;
    golden_row *row = golden_codes_of(r, "tensors that nothing is compared with", 0, 0);
    for (int i = 0; i < count; i++)
        golden_note(row, g->seen[i] ? 0 : 1, "%s", bq_weights_at(g->file, i)->name);
}

bool golden_row_fits(const golden_row *row) {
    return row->compared > 0 && isfinite(row->worst) &&
           (double)row->beyond <= row->share * (double)row->compared;
}

bool golden_fits(const golden_report *r) {
    bool fits = r->rows > 0;
    for (int i = 0; i < r->rows; i++) fits = fits && golden_row_fits(&r->row[i]);
    return fits;
}

void golden_print(const golden_report *r, FILE *out) {
    for (int i = 0; i < r->rows; i++) {
        const golden_row *row = &r->row[i];
        char at[sizeof row->at];
        memcpy(at, row->at, sizeof at);
        bq_log_clean(at, 0);
        fprintf(out, "%s%s ", i ? ", " : "", row->what);
        if (row->counted)
            fprintf(out, "%lld of %lld", (long long)row->differ, (long long)row->compared);
        else
            fprintf(out, "%.1e", row->worst);
        if (row->beyond && !row->counted)
            fprintf(out, " [%lld of %lld beyond]", (long long)row->beyond, (long long)row->compared);
        if (!golden_row_fits(row)) fprintf(out, " [WRONG: limit %g, at %s]", row->limit, at);
    }
    if (r->left) fprintf(out, ", %d case%s without a counterpart", r->left, r->left == 1 ? "" : "s");
}
