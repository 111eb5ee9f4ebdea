/* Plain safetensors: every float tensor becomes F32.  Quantized ones are exactly (code - zero) * scale,
 * times pre if there is one and inputs are not rounded.  config.json says float32. */
#include "base/die.h"
#include "io/out/format.h"

#include <string.h>

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    bq_type type;
    if (it->quantized && it->q.pre.rows && it->q.activations)
        return bq_export_refuse(it, ": its inputs are multiplied by factors of their own (smoothquant "
                                    "without fuse) and then rounded, which no plain checkpoint says; with "
                                    "bits.activations 16 the weights absorb the factors");
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

static void put_product(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int64_t cols = q->code.cols, group = q->scheme.group > 0 ? q->scheme.group : cols;
    int64_t room = (int64_t)(BQ_EXPORT_BUFFER / 4);
    float *to = (float *)job->buffer;
    const bq_element e = bq_element_of(q->scheme.element);
    bool asymmetric = q->zero.rows > 0;
    BQ_CHECK(q->code.data && q->scale.data && (q->zero.data || !asymmetric) && (q->pre.data || !q->pre.rows),
             "export: a result without data");
    for (int64_t r = 0; r < q->code.rows; r++) {
        const int8_t *code = bq_mat_at(q->code, r, 0);
        const float *scale = bq_mat_at(q->scale, r, 0);
        const float *zero = asymmetric ? bq_mat_at(q->zero, r, 0) : NULL;
        const float *pre = q->pre.rows ? q->pre.data : NULL;
        for (int64_t first = 0, n; first < cols; first += n) {
            n = cols - first < room ? cols - first : room;
            for (int64_t c = first; c < first + n; c++)
                to[c - first] = (bq_element_value(e, code[c]) - (zero ? zero[c / group] : 0)) *
                                scale[c / group] * (pre ? pre[c] : 1);
            bq_writer_put(w, to, (size_t)n * 4);
        }
    }
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    const bq_tensor *t = job->item[out->item].t;
    if (!q && strcmp(out->t.dtype, t->dtype) == 0)
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
};
