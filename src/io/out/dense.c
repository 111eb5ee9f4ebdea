/* Plain safetensors: every float tensor becomes F32.  Quantized ones are exactly (code - zero) * scale,
 * times pre if there is one and inputs are not rounded.  Experts that the family stacks are stacked.
 * config.json says float32. */
#include "base/die.h"
#include "io/out/format.h"

#include <string.h>

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    bq_type type;
    int code;
    if (it->quantized && it->q.pre.rows && it->q.activations)
        return bq_export_refuse(it, ": its inputs are multiplied by factors of their own (smoothquant "
                                    "without fuse) and then rounded, which no plain checkpoint says; with "
                                    "bits.activations 16 the weights absorb the factors");
    if (job->stacked && bq_export_plan_stacked(job, item, &code)) return code;
    if (it->replaced) return bq_export_plan_replaced(job, item);
    const char *dtype = it->quantized || bq_dtype_float(it->t->dtype, &type) ? "F32" : it->t->dtype;
    bq_export_add(job, item, 0, 0, "", dtype, it->t->dims, it->t->shape);
    return BQ_OK;
}

/* Seen as (count, 1), a tensor of any shape is one run in the file. */
static void put_as_f32(bq_export_job *job, const bq_tensor *t, bq_writer *w) {
    bq_tensor flat = *t;
    flat.dims = 2, flat.shape[0] = bq_tensor_count(t), flat.shape[1] = 1;
    int64_t room = (int64_t)(BQ_EXPORT_BUFFER / 4);
    for (int64_t first = 0, n; first < flat.shape[0]; first += n) {
        n = flat.shape[0] - first < room ? flat.shape[0] - first : room;
        bq_weights_read(job->src, &flat, first, n, bq_mat_host(job->buffer, n, 1, BQ_F32));
        bq_writer_put(w, job->buffer, (size_t)n * 4);
    }
}

/* Values [first, first + count) of a row of a result. */
static void product(const bq_qtensor *q, int64_t r, int64_t first, int64_t count, float *to) {
    int64_t group = q->scheme.group > 0 ? q->scheme.group : q->code.cols;
    const int8_t *code = bq_mat_at(q->code, r, 0);
    const float *scale = bq_mat_at(q->scale, r, 0);
    const float *zero = q->zero.rows ? bq_mat_at(q->zero, r, 0) : NULL;
    const float *pre = q->pre.rows ? q->pre.data : NULL;
    const bq_element e = bq_element_of(q->scheme.element);
    for (int64_t c = first; c < first + count; c++)
        to[c - first] = (bq_element_value(e, code[c]) - (zero ? zero[c / group] : 0)) * scale[c / group] *
                        (pre ? pre[c] : 1);
}

static void check_data(const bq_qtensor *q) {
    BQ_CHECK(q->code.data && q->scale.data && (q->zero.data || !q->zero.rows) &&
                 (q->pre.data || !q->pre.rows),
             "export: a result without data");
}

static void put_product(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int64_t cols = q->code.cols, room = (int64_t)(BQ_EXPORT_BUFFER / 4);
    float *to = (float *)job->buffer;
    check_data(q);
    for (int64_t r = 0; r < q->code.rows; r++) {
        for (int64_t first = 0, n; first < cols; first += n) {
            n = cols - first < room ? cols - first : room;
            product(q, r, first, n, to);
            bq_writer_put(w, to, (size_t)n * 4);
        }
    }
}

/* All values of an expert's linear or bias. */
static void values(bq_export_job *job, const bq_export_item *item, bq_mat to) {
    bq_qtensor q;
    if (item->replaced) {
        BQ_CHECK(job->source.dense(job->source.ctx, item->name, 0, to), "export: '%s' is gone", item->name);
    } else if (!item->quantized) {
        bq_weights_read(job->src, item->t, 0, to.rows, to);
    } else {
        bq_export_hold(job, item, &q);
        if (!q.dense.data) check_data(&q);
        for (int64_t r = 0; r < to.rows; r++)
            if (q.dense.data)
                memcpy(bq_mat_at(to, r, 0), bq_mat_at(q.dense, r, 0), (size_t)to.cols * 4);
            else
                product(&q, r, 0, to.cols, bq_mat_at(to, r, 0));
    }
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    const bq_tensor *t = job->item[out->item].t;
    if (job->stacked && bq_export_write_stacked(job, out, values, w)) return;
    if (job->item[out->item].replaced)
        bq_export_put_replaced(job, &out->t, w);
    else if (!q && strcmp(out->t.dtype, t->dtype) == 0)
        bq_export_put_raw(job, t, w);
    else if (!q)
        put_as_f32(job, t, w);
    else if (q->dense.data)
        bq_export_put_rows(q->dense, w);
    else
        put_product(job, q, w);
}

/* transformers 4 writes torch_dtype, 5 writes dtype and reads both. */
static void edit(const bq_export_job *job, json_t *config) {
    (void)job;
    bool newer = json_object_get(config, "dtype");
    if (newer) json_object_set_new(config, "dtype", json_string("float32"));
    if (!newer || json_object_get(config, "torch_dtype"))
        json_object_set_new(config, "torch_dtype", json_string("float32"));
}

const bq_format bq_format_safetensors = {
    .name = "safetensors",
    .help = "quantized values as ordinary float weights.",
    .loads = BQ_LOADS_VLLM BQ_LOADS_TRANSFORMERS(""),
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .replaced = true,
    .stacks = true,
};
