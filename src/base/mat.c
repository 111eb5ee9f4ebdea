/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mat.h"

#include "base/die.h"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [BQ_F32] = {"F32", 4},         [BQ_F64] = {"F64", 8}, [BQ_F16] = {"F16", 2},
    [BQ_BF16] = {"BF16", 2},       [BQ_I8] = {"I8", 1},   [BQ_U8] = {"U8", 1},
    [BQ_I32] = {"I32", 4},         [BQ_I64] = {"I64", 8}, [BQ_F8_E8M0] = {"F8_E8M0", 1},
    [BQ_F8_E4M3] = {"F8_E4M3", 1},
};

size_t bq_type_size(bq_type type) { return types[type].size; }
const char *bq_type_name(bq_type type) { return types[type].name; }

size_t bq_mat_bytes(bq_mat m) {
    if (m.rows == 0 || m.cols == 0) return 0;
    return (size_t)((m.rows - 1) * m.ld + m.cols) * bq_type_size(m.type);
}

bq_mat bq_mat_reshape(bq_mat m, int64_t cols) {
    int64_t size = m.rows * m.cols;
    BQ_CHECK(m.ld == m.cols && cols > 0 && size % cols == 0,
             "reshape of a %ld x %ld view (ld %ld) to rows of %ld", (long)m.rows, (long)m.cols, (long)m.ld,
             (long)cols);
    m.rows = size / cols, m.cols = m.ld = cols;
    return m;
}
