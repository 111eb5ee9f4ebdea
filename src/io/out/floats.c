/* SPDX-License-Identifier: Apache-2.0 */
#include "io/out/floats.h"

#include "base/die.h"

int64_t bq_float_row_bytes(int64_t cols, int bits) { return cols * bits / 8; }

int64_t bq_float_scale_rows(const bq_qtensor *q) {
    int64_t tile = q->scheme.rows < 0 ? q->code.rows : q->scheme.rows;
    return bq_scheme_tiled(q->scheme) ? (q->code.rows + tile - 1) / tile : q->code.rows;
}

int bq_float_check(const bq_export_item *item) {
    int64_t cols = item->q.code.cols, group = item->q.scheme.group;
    int bits = bq_code_bits(item->q.scheme);
    if (group > 0 && cols % group)
        return bq_export_refuse(item, ": groups of %ld do not divide its %ld columns", (long)group,
                                (long)cols);
    if (cols * bits % 8 == 0) return BQ_OK;
    return bq_export_refuse(item, ": rows of %ld codes of %d bits do not fill whole bytes", (long)cols, bits);
}

/* Codes of 4 or 6 bits into bytes: a few of them make up whole bytes. */
static void pack(const int8_t *code, int64_t n, int bits, uint8_t *to) {
    int each = bits == 4 ? 2 : 4, bytes = each * bits / 8;
    for (int64_t c = 0; c < n; c += each, to += bytes) {
        uint32_t word = 0;
        for (int i = 0; i < each; i++) word |= (uint32_t)(uint8_t)code[c + i] << (bits * i);
        for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(word >> (8 * i));
    }
}

void bq_float_put_codes(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int bits = bq_code_bits(q->scheme);
    int64_t bytes = bq_float_row_bytes(q->code.cols, bits);
    BQ_CHECK(q->code.data, "export: a result without data");
    if (bits == 8) {
        bq_export_put_rows(q->code, w);
        return;
    }
    uint8_t *row = bq_export_room(job, bytes, 1);
    for (int64_t r = 0; r < q->code.rows; r++) {
        pack(bq_mat_at(q->code, r, 0), q->code.cols, bits, row);
        bq_writer_put(w, row, (size_t)bytes);
    }
}

static uint8_t small(float scale, bq_scheme s) {
    if (s.scale == BQ_F8_E8M0) return (uint8_t)(bq_bits(scale) >> 23);
    const bq_element e = bq_element_of(BQ_E4M3);
    const float inner = s.grid == BQ_GRID_TORCHAO ? scale / s.outer : scale * s.outer;
    return (uint8_t)bq_float_code(e, bq_inner_scale(inner));
}

void bq_float_put_small(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    uint8_t *row = bq_export_room(job, q->scale.cols, 1);
    for (int64_t r = 0; r < q->scale.rows; r++) {
        for (int64_t g = 0; g < q->scale.cols; g++)
            row[g] = small(*(const float *)bq_mat_at(q->scale, r, g), q->scheme);
        bq_writer_put(w, row, (size_t)q->scale.cols);
    }
}

void bq_float_put_scales(const bq_qtensor *q, bq_writer *w) {
    int64_t rows = bq_float_scale_rows(q), tile = rows == q->scale.rows ? 1 : rows == 1 ? 0 : q->scheme.rows;
    for (int64_t r = 0; r < rows; r++) bq_export_put_rows(bq_mat_rows(q->scale, r * tile, 1), w);
}
