/* SPDX-License-Identifier: Apache-2.0 */
/* Plain safetensors: every float tensor has one type, F32 if not said.  Quantized ones are (code - zero) *
 * scale, times pre if there is one and inputs are not rounded.  Experts that the family stacks are stacked.
 * config.json names the type. */
#include "io/out/dense.h"

#include "base/die.h"
#include "base/log.h"
#include "base/num.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { F32, BF16, F16 } type;
static const struct {
    const char *dtype, *config;
} types[] = {{"F32", "float32"}, {"BF16", "bfloat16"}, {"F16", "float16"}};

static type type_of(const char *dtype) {
    type t = F32;
    while (strcmp(types[t].dtype, dtype) != 0) t++;
    return t;
}

/* Of a job, of rounding: the item at work and its squares of errors and values; how many are done, the worst
 * of them and its error. */
typedef struct {
    int item, done, worst;
    double error, power, largest;
} losses;

/* The item at work is done; item: the next one. */
static void next_item(losses *l, int item) {
    const double relative = l->power > 0 ? sqrt(l->error / l->power) : 0;
    if (l->item >= 0) l->done++;
    if (l->done == 1 || relative > l->largest) l->worst = l->item, l->largest = relative;
    l->item = item, l->error = l->power = 0;
}

int bq_dense_plan(bq_export_job *job, int item, const char *dtype) {
    const bq_export_item *it = &job->item[item];
    bq_type floats;
    int code;
    if (it->quantized && it->q.pre.rows && it->q.inputs.element)
        return bq_export_refuse(it, ": its inputs are multiplied by factors of their own (smoothquant "
                                    "without fuse) and then rounded, which no plain checkpoint says; with "
                                    "bits.activations 16 the weights absorb the factors");
    if (job->stacked && bq_export_plan_stacked(job, item, dtype, &code)) return code;
    if (it->replaced) return bq_export_plan_replaced(job, item, dtype);
    if (!it->quantized && !bq_dtype_float(it->t->dtype, &floats)) dtype = it->t->dtype;
    bq_export_add(job, item, 0, 0, "", dtype, it->t->dims, it->t->shape);
    return BQ_OK;
}

/* Round values in place: what is written never passes what is still to be read. */
static void round_values(const bq_export_job *job, const bq_export_out *out, type to, int64_t n) {
    losses *l = job->own;
    if (l->item != out->item) next_item(l, out->item);
    for (int64_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, job->buffer + 4 * i, 4);
        const uint16_t half = to == F16 ? bq_to_f16(x) : bq_to_bf16(x);
        const float y = to == F16 ? bq_from_f16(half) : bq_from_bf16(half);
        if (isinf(y) && !isinf(x))
            bq_refuse_job(BQ_DATA, "export: '%s' has %g, too large for %s: set the output's type to %s",
                          out->t.name, (double)x, types[to].dtype, to == F16 ? "bf16" : "f32");
        l->error += ((double)y - (double)x) * ((double)y - (double)x), l->power += (double)x * (double)x;
        memcpy(job->buffer + 2 * i, &half, 2);
    }
}

/* Put n values that are in the buffer. */
static void put(bq_export_job *job, const bq_export_out *out, int64_t n, bq_writer *w) {
    const type to = type_of(out->t.dtype);
    if (to != F32) round_values(job, out, to, n);
    bq_writer_put(w, job->buffer, (size_t)n * (to == F32 ? 4 : 2));
}

/* Of another type in the source, or replaced.  A tensor of the source may have any shape: it is read as
 * (count, 1). */
static void put_floats(bq_export_job *job, const bq_export_out *out, bq_writer *w) {
    const bq_export_item *it = &job->item[out->item];
    bq_tensor t = *it->t;
    if (!it->replaced) t.shape[0] = bq_tensor_count(it->t), t.shape[1] = 1, t.dims = 2;
    int64_t cols = t.shape[t.dims - 1], rows = t.dims == 2 ? t.shape[0] : 1;
    int64_t room = (int64_t)(BQ_EXPORT_BUFFER / 4) / cols;
    for (int64_t first = 0, n; first < rows; first += n) {
        n = rows - first < room ? rows - first : room;
        bq_mat to = bq_mat_host(job->buffer, n, cols, BQ_F32);
        if (!it->replaced)
            bq_weights_read(job->src, &t, first, n, to);
        else
            BQ_CHECK(job->source.dense(job->source.ctx, it->name, first, to), "export: '%s' is gone",
                     it->name);
        put(job, out, n * cols, w);
    }
}

static void check_data(const bq_qtensor *q) {
    BQ_CHECK(q->code.data && q->scale.data && (q->zero.data || !q->zero.rows) &&
                 (q->pre.data || !q->pre.rows),
             "export: a result without data");
}

static void put_product(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    int64_t cols = q->code.cols, room = (int64_t)(BQ_EXPORT_BUFFER / 4);
    check_data(q);
    for (int64_t r = 0; r < q->code.rows; r++) {
        for (int64_t first = 0, n; first < cols; first += n) {
            n = cols - first < room ? cols - first : room;
            bq_qtensor_values(q, r, first, n, (float *)job->buffer);
            put(job, out, n, w);
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
                bq_qtensor_values(&q, r, 0, to.cols, bq_mat_at(to, r, 0));
    }
}

static void put_values(bq_export_job *job, const bq_export_out *out, const float *from, int64_t count,
                       bq_writer *w) {
    int64_t room = (int64_t)(BQ_EXPORT_BUFFER / 4);
    for (int64_t first = 0, n; first < count; first += n) {
        n = count - first < room ? count - first : room;
        memcpy(job->buffer, from + first, (size_t)n * 4);
        put(job, out, n, w);
    }
}

void bq_dense_write(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    const bq_export_item *it = &job->item[out->item];
    if (job->stacked && bq_export_write_stacked(job, out, values, put_values, w)) return;
    if (!q && !it->replaced && strcmp(out->t.dtype, it->t->dtype) == 0)
        bq_export_put_raw(job, it->t, w);
    else if (!q)
        put_floats(job, out, w);
    else if (q->dense.data && strcmp(out->t.dtype, types[F32].dtype) == 0)
        bq_export_put_rows(q->dense, w);
    else
        put_product(job, out, q, w);
}

/* transformers 4 writes torch_dtype, 5 writes dtype and reads both. */
void bq_dense_edit(json_t *config, const char *dtype) {
    const char *name = types[type_of(dtype)].config;
    bool newer = json_object_get(config, "dtype");
    if (newer) json_object_set_new(config, "dtype", json_string(name));
    if (!newer || json_object_get(config, "torch_dtype"))
        json_object_set_new(config, "torch_dtype", json_string(name));
}

/* ---- the format ---- */

typedef struct {
    type type;
} options;

static const bq_choice choices[] = {{"f32", F32}, {"bf16", BF16}, {"f16", F16}, {NULL, 0}};

static const bq_key keys[] = {
    {"type", BQ_KEY_CHOICE, BQ_AT(options, type), .value = "f32", .choice = choices,
     .help = "Of all floats. F32 has the exact values of codes and scales; the log says how far those of "
             "the others are from them. A value that is too large for F16 ends the job."},
    {0}};

static const char *dtype_of(const bq_export_job *job) {
    return types[((const options *)job->options)->type].dtype;
}

static int begin(bq_export_job *job) {
    losses *l = job->own = calloc(1, sizeof *l);
    BQ_CHECK(l, "no memory to plan an export");
    l->item = -1;
    return BQ_OK;
}

static void end(bq_export_job *job) {
    losses *l = job->own;
    next_item(l, -1);
    if (l->done)
        bq_log_all(BQ_INFO,
                   "safetensors: %d tensors were rounded to %s, the worst, '%s', by %.2g of its "
                   "values (RMS)",
                   l->done, dtype_of(job), job->item[l->worst].name, l->largest);
    free(l);
}

static int plan(bq_export_job *job, int item) { return bq_dense_plan(job, item, dtype_of(job)); }
static void edit(const bq_export_job *job, json_t *config) { bq_dense_edit(config, dtype_of(job)); }

const bq_format bq_format_safetensors = {
    .name = "safetensors",
    .help = "quantized values as ordinary float weights.",
    .loads = BQ_LOADS_VLLM BQ_LOADS_TRANSFORMERS(""),
    .scope = {"outputs.N, format: safetensors", "Quantized values as ordinary float weights.", keys,
              BQ_FORMAT_OPTIONS_OF(options)},
    .plan = plan,
    .write = bq_dense_write,
    .edit = edit,
    .replaced = true,
    .offsets = true,
    .stacks = true,
    .begin = begin,
    .end = end,
};
