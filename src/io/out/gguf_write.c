/* SPDX-License-Identifier: Apache-2.0 */
/* Writing the tensors of a GGUF file. */
#include "base/die.h"
#include "base/log.h"
#include "io/in/gguf_names.h"
#include "io/out/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The item of another expert of a stacked tensor. */
const bq_export_item *bq_gguf_expert(const bq_export_job *job, const char *stacked, int64_t e) {
    bq_gguf_name name;
    bq_gguf_checkpoint_name(((bq_gguf_job *)job->own)->arch, stacked, e, &name);
    return bq_export_find(job, name.name);
}

/* Rows [first, first + rows) of an item as floats. */
static void fetch(const bq_export_job *job, const bq_export_item *item, int64_t first, bq_mat to) {
    if (!item->replaced)
        bq_weights_read(job->src, item->t, first, to.rows, to);
    else
        BQ_CHECK(job->source.dense(job->source.ctx, item->name, first, to), "export: '%s' is gone",
                 item->name);
}

/* Which row, or channel of a bias, of the checkpoint stands at place r. */
static int64_t row_at(int64_t r, int64_t head_dim) {
    int64_t i = r % head_dim;
    return r - i + i % 2 * (head_dim / 2) + i / 2;
}

/* One row of values in another type; a bias of q or k has its channels in the order of the file. */
static void put_row(bq_export_job *job, float *value, int64_t cols, const bq_gguf_type *type, bool paired,
                    bq_gguf_loss *loss, bq_writer *w) {
    uint8_t *row = (uint8_t *)job->buffer + BQ_GGUF_ROOM * sizeof(float);
    int64_t hd = ((bq_gguf_job *)job->own)->model.head_dim;
    for (int64_t c = 0; c < cols && paired; c++) bq_writer_put(w, value + row_at(c, hd), 4);
    if (paired) return;
    bq_gguf_encode(type, value, cols, row, loss);
    bq_writer_put(w, row, (size_t)(cols / type->elements * type->bytes));
}

/* A tensor that is not quantized, in another type than the source has. */
static void put_values(bq_export_job *job, const bq_export_item *item, const bq_gguf_type *type,
                       bq_gguf_change change, bq_gguf_loss *loss, bq_writer *w) {
    int64_t hd = ((bq_gguf_job *)job->own)->model.head_dim, cols = item->t->shape[item->t->dims - 1];
    int64_t rows = item->t->dims == 2 ? item->t->shape[0] : 1, room = BQ_GGUF_ROOM / cols;
    bool paired = change == BQ_GGUF_PAIRED, matrix = item->t->dims == 2;
    float *value = (float *)(void *)job->buffer;
    if (paired && matrix) room = hd;
    for (int64_t first = 0, n; first < rows; first += n) {
        n = rows - first < room ? rows - first : room;
        fetch(job, item, first, bq_mat_host(value, n, cols, BQ_F32));
        for (int64_t i = 0; i < n * cols && change == BQ_GGUF_PLUS_ONE; i++) value[i] += 1;
        for (int64_t r = 0; r < n; r++)
            put_row(job, value + (paired && matrix ? row_at(r, hd) : r) * cols, cols, type, paired && !matrix,
                    loss, w);
    }
}

/* As in the source, its rows in the order of the file. */
static void put_rows(bq_export_job *job, const bq_tensor *t, int64_t head_dim, bq_writer *w) {
    size_t row = t->bytes / (size_t)t->shape[0];
    for (int64_t r = 0; r < t->shape[0]; r++) {
        bq_weights_read_raw(job->src, t, (size_t)row_at(r, head_dim) * row, job->buffer, row);
        bq_writer_put(w, job->buffer, row);
    }
}

static void put_codes(bq_export_job *job, const bq_qtensor *q, const char *dtype, bool paired, bq_writer *w) {
    bq_gguf_job *own = job->own;
    const bq_gguf_type *type = bq_gguf_type_named(dtype);
    size_t row = (size_t)(q->code.cols / type->elements * type->bytes);
    BQ_CHECK(q->code.data && q->scale.data, "export: a result without data");
    for (int64_t r = 0; r < q->code.rows; r++) {
        bq_gguf_pack(own, q, type, paired ? row_at(r, own->model.head_dim) : r, (uint8_t *)job->buffer);
        bq_writer_put(w, job->buffer, row);
    }
}

/* Factors of llama3 divide the frequencies: 1 for short waves, the factor for long ones, a ramp between. */
static void put_rope(const bq_rope *rope, bq_gguf_part part, bq_writer *w) {
    for (int64_t i = 0; i < rope->dim / 2; i++) {
        double wave = 2 * acos(-1) * pow(rope->theta, 2.0 * (double)i / (double)rope->dim);
        double t = (rope->original / wave - rope->low) / (rope->high - rope->low);
        double divisor = t > 1 ? 1 : t < 0 ? rope->factor : 1 / ((1 - t) / rope->factor + t);
        float x = (float)(part == BQ_GGUF_LONG    ? rope->long_factor[i]
                          : part == BQ_GGUF_SHORT ? rope->short_factor[i]
                                                  : divisor);
        bq_writer_put(w, &x, 4);
    }
}

/* One tensor of the model.  q: its result, NULL: it is not quantized. */
static void put_item(bq_export_job *job, const bq_export_item *item, const bq_qtensor *q, const char *dtype,
                     bq_gguf_change change, bq_gguf_loss *loss, bq_writer *w) {
    bool paired = change == BQ_GGUF_PAIRED;
    if (q)
        put_codes(job, q, dtype, paired, w);
    else if (item->replaced || item->t->dims == 1 || strcmp(dtype, item->t->dtype) != 0)
        put_values(job, item, bq_gguf_type_named(dtype), change, loss, w);
    else if (paired)
        put_rows(job, item->t, ((bq_gguf_job *)job->own)->model.head_dim, w);
    else
        bq_export_put_raw(job, item->t, w);
}

/* What a type that a key has chosen costs. */
static void report(const bq_export_job *job, const bq_export_out *out, bq_gguf_loss loss) {
    const bq_export_item *item = &job->item[out->item];
    const bq_gguf_type *asked, *type = bq_gguf_type_of_item(job, item, out->t.name, &asked);
    char instead[96] = "";
    if (!asked || (asked == type && loss.error == 0)) return;
    if (!isfinite(loss.error))
        bq_refuse_job(BQ_DATA, "export: '%s' has values that %s cannot hold", item->name, type->name);
    if (asked != type)
        snprintf(instead, sizeof instead, ", since its rows are no whole blocks of %s", asked->name);
    bq_log_all(BQ_INFO, "gguf: %s is %s%s: error %.2g of the values (RMS)", out->t.name, type->name, instead,
               loss.power > 0 ? sqrt(loss.error / loss.power) : 0);
}

void bq_gguf_write(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    const bq_gguf_job *own = job->own;
    bq_gguf_loss loss = {0, 0};
    bq_gguf_name name;
    if (out->part != BQ_GGUF_TENSOR) {
        put_rope(&own->model.rope, (bq_gguf_part)out->part, w);
        return;
    }
    bq_gguf_name_of(own->arch, job->item[out->item].name, &name);
    put_item(job, &job->item[out->item], q, out->t.dtype, name.change, &loss, w);
    for (int64_t e = 1; e < own->model.experts && name.expert == 0; e++) {
        const bq_export_item *item = bq_gguf_expert(job, out->t.name, e);
        bq_qtensor one;
        if (item->quantized) bq_export_hold(job, item, &one);
        put_item(job, item, item->quantized ? &one : NULL, out->t.dtype, name.change, &loss, w);
    }
    report(job, out, loss);
}
