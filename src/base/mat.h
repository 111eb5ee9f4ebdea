/* SPDX-License-Identifier: Apache-2.0 */
/* mat.h - typed views of matrices.  A view never owns its memory.
 *
 * Matrices are row-major: element (r, c) is at data + (r * ld + c) * (size of the type), with ld >= cols. */
#ifndef BQ_MAT_H
#define BQ_MAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The last two are types of scales (kernels/grid.h), no matrix has them. */
typedef enum {
    BQ_F32,
    BQ_F64,
    BQ_F16,
    BQ_BF16,
    BQ_I8,
    BQ_U8,
    BQ_I32,
    BQ_I64,
    BQ_F8_E8M0,
    BQ_F8_E4M3
} bq_type;
/* Where the memory is: on the host; on the host and pinned for a GPU; on the GPU. */
typedef enum { BQ_HOST, BQ_PINNED, BQ_DEVICE } bq_place;

typedef struct {
    void *data;
    int64_t rows, cols, ld;
    bq_type type;
    bq_place place;
} bq_mat;

size_t bq_type_size(bq_type type);
const char *bq_type_name(bq_type type);

/* Bytes from the first element to the end of the last one, gaps between rows included;
 * 0 for an empty view. */
size_t bq_mat_bytes(bq_mat m);

static inline bq_mat bq_mat_host(void *data, int64_t rows, int64_t cols, bq_type type) {
    return (bq_mat){data, rows, cols, cols, type, BQ_HOST};
}

static inline void *bq_mat_at(bq_mat m, int64_t row, int64_t col) {
    return (char *)m.data + (size_t)(row * m.ld + col) * bq_type_size(m.type);
}

/* Rows [first, first + count) of m; columns [first, first + count) of m. */
static inline bq_mat bq_mat_rows(bq_mat m, int64_t first, int64_t count) {
    m.data = bq_mat_at(m, first, 0);
    m.rows = count;
    return m;
}

static inline bq_mat bq_mat_cols(bq_mat m, int64_t first, int64_t count) {
    m.data = bq_mat_at(m, 0, first);
    m.cols = count;
    return m;
}

/* The same memory as rows of `cols` elements.  m must be contiguous (ld == cols), and cols
 * must divide its size. */
bq_mat bq_mat_reshape(bq_mat m, int64_t cols);

static inline float *bq_f32(bq_mat m) { return (float *)m.data; }

#endif
