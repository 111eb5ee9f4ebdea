/* SPDX-License-Identifier: Apache-2.0 */
#include "io/out/import.h"

#include "base/die.h"
#include "base/num.h"
#include "comm/comm.h"
#include "io/out/format.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = BQ_EXPORT_BUFFER / 8 }; /* values that are read at a time: half of the buffer */

enum { FORMATS = 4 };
static const bq_format formats[FORMATS];
/* Of each format: the type in files, NULL: the source's; in config.json; values from here on round to
 * infinity. */
static const struct {
    const char *dtype, *config;
    float limit;
} types[] = {{NULL, "float32", INFINITY},
             {"F32", "float32", INFINITY},
             {"BF16", "bfloat16", 0x1.ffp127f},
             {"F16", "float16", 65520}};

static const char *dtype_of(const bq_format *format, const bq_tensor *t) {
    const char *dtype = types[format - formats].dtype;
    return dtype ? dtype : t->dtype;
}

/* Read a piece of the tensor, seen as (count, 1). */
static int64_t read_piece(const bq_weights *src, const bq_tensor *t, int64_t first, float *to) {
    bq_tensor flat = *t;
    flat.dims = 2, flat.shape[0] = bq_tensor_count(t), flat.shape[1] = 1;
    int64_t left = flat.shape[0] - first, n = left < PIECE ? left : PIECE;
    bq_weights_read(src, &flat, first, n, bq_mat_host(to, n, 1, BQ_F32));
    bq_comm_beat();
    return n;
}

static int check_tensor(const bq_weights *src, const bq_tensor *t, const bq_format *format, float *piece) {
    float limit = types[format - formats].limit;
    int64_t count = bq_tensor_count(t), cols = t->dims ? t->shape[t->dims - 1] : 1;
    const char *path;
    for (int64_t first = 0, n; first < count; first += n) {
        n = read_piece(src, t, first, piece);
        for (int64_t i = 0; i < n; i++) {
            float x = piece[i];
            if (fabsf(x) < limit) continue;
            bq_weights_config(src, &path);
            return bq_refuse(
                BQ_DATA, "%s: tensor '%.200s' has %g at row %lld, column %lld%s%s", path, t->name, (double)x,
                (long long)((first + i) / cols), (long long)((first + i) % cols),
                isfinite(x) ? ": give another --type than " : "", isfinite(x) ? format->name : "");
        }
    }
    return BQ_OK;
}

int bq_import_check(const bq_weights *src, const bq_format *format) {
    float *piece = malloc(PIECE * sizeof *piece);
    BQ_CHECK(piece, "no memory to read a model");
    int code = BQ_OK;
    for (int i = 0; i < bq_weights_count(src) && !code; i++)
        code = check_tensor(src, bq_weights_at(src, i), format, piece);
    free(piece);
    return code;
}

/* ---- the format ---- */

static int plan(bq_export_job *job, int item) {
    const bq_tensor *t = job->item[item].t;
    bq_export_add(job, item, 0, 0, "", dtype_of(job->format, t), t->dims, t->shape);
    return BQ_OK;
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    const bq_tensor *t = job->item[out->item].t;
    float *piece = (float *)(void *)job->buffer;
    uint16_t *half = (uint16_t *)(void *)(piece + PIECE);
    bool f32 = strcmp(out->t.dtype, "F32") == 0, f16 = strcmp(out->t.dtype, "F16") == 0;
    (void)q;
    for (int64_t first = 0, n; first < bq_tensor_count(t); first += n) {
        n = read_piece(job->src, t, first, piece);
        for (int64_t i = 0; i < n && !f32; i++) half[i] = f16 ? bq_to_f16(piece[i]) : bq_to_bf16(piece[i]);
        bq_writer_put(w, f32 ? (void *)piece : half, (size_t)n * (f32 ? 4 : 2));
    }
}

static void edit(const bq_export_job *job, json_t *config) {
    json_object_set_new(config, "dtype", json_string(types[job->format - formats].config));
}

/* Experts that the family stacks stay one by one, as blockq reads them. */
#define FORMAT(type)                                                                                         \
    { .name = type, .plan = plan, .write = write_out, .edit = edit, .stacks = true }
static const bq_format formats[FORMATS] = {FORMAT("stored"), FORMAT("f32"), FORMAT("bf16"), FORMAT("f16")};

const bq_format *bq_import_format(const char *type) {
    for (size_t i = 1; type && i < FORMATS; i++)
        if (strcmp(formats[i].name, type) == 0) return &formats[i];
    return type ? NULL : formats;
}

static bool no_result(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    (void)ctx, (void)name, (void)want_data, (void)q;
    return false;
}

int bq_import_open(bq_export_job **job, const bq_weights *src, const char *out_dir, const bq_format *format,
                   json_t *beside, size_t shard_bytes) {
    int code = bq_export_open(job, src, out_dir, (bq_qsource){.get = no_result}, format, NULL, shard_bytes);
    if (code)
        json_decref(beside);
    else
        (*job)->beside = beside;
    return code;
}
