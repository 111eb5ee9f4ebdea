/* SPDX-License-Identifier: Apache-2.0 */
/* imatrix.gguf, as llama.cpp's llama-imatrix writes it and llama-quantize reads it: for each linear
 *
 *   NAME.in_sum2  F32 (matrices, columns): the sums of the squares of its inputs
 *   NAME.counts   F32 (matrices, 1): how many tokens it got
 *
 * with the names of GGUF (io/in/gguf_names.h).  The experts of a block are the matrices of one tensor. */
#include "base/die.h"
#include "io/files.h"
#include "io/in/gguf_names.h"
#include "io/out/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUMS   ".in_sum2"
#define COUNTS ".counts"

static char *head(const void *ctx, const bq_tensor *at, int count, size_t *bytes) {
    const bq_export_job *job = ctx;
    bq_gguf_put p;
    bq_gguf_put_open(&p);
    bq_gguf_put_word(&p, "general.quantized_by", BQ_WRITER_PRODUCER); /* first: export_dir.c looks for it */
    bq_gguf_put_word(&p, "general.type", "imatrix");
    bq_gguf_put_list(&p, "imatrix.datasets", BQ_GGUF_TEXT, 1);
    bq_gguf_put_text(&p, "calibration samples");
    bq_gguf_put_int(&p, "imatrix.chunk_count", job->source.samples);
    bq_gguf_put_int(&p, "imatrix.chunk_size", job->source.length);
    return bq_gguf_put_close(&p, at, count, bytes);
}

/* The name of a tensor of an item, and how many matrices it has: 0 for an expert but the first, whose tensor
 * has all of them.  False: the item has no inputs. */
static bool name_of(const bq_export_job *job, const bq_export_item *item, bq_gguf_name *name,
                    int64_t *matrices) {
    const bq_gguf_job *own = job->own;
    if (!job->source.inputs(job->source.ctx, item->name, NULL, NULL)) return false;
    BQ_CHECK(bq_gguf_name_of(own->arch, item->name, name), "export: '%s' has no name in gguf", item->name);
    *matrices = name->expert < 0 ? 1 : name->expert == 0 ? own->model.experts : 0;
    return true;
}

static void add(const bq_export_job *job, const bq_export_item *item, bq_writer *w) {
    char tensor[sizeof(bq_gguf_name) + sizeof SUMS];
    bq_gguf_name name;
    int64_t matrices;
    if (!name_of(job, item, &name, &matrices) || !matrices) return;
    snprintf(tensor, sizeof tensor, "%s" SUMS, name.name);
    bq_writer_add(w, tensor, "F32", 2, (int64_t[]){matrices, item->t->shape[1]});
    snprintf(tensor, sizeof tensor, "%s" COUNTS, name.name);
    bq_writer_add(w, tensor, "F32", 2, (int64_t[]){matrices, 1});
}

/* The data of both tensors of an item, in the order of add. */
static void put(const bq_export_job *job, const bq_export_item *item, bq_writer *w) {
    bq_gguf_name name;
    int64_t matrices, cols = item->t->shape[1];
    if (!name_of(job, item, &name, &matrices) || !matrices) return;
    float *square = malloc((size_t)(matrices * cols) * sizeof *square),
          *tokens = malloc((size_t)matrices * sizeof *tokens);
    BQ_CHECK(square && tokens, "no memory for the inputs of %lld matrices", (long long)matrices);
    for (int64_t e = 0; e < matrices; e++) {
        const bq_export_item *of = name.expert < 0 ? item : bq_gguf_expert(job, name.name, e);
        BQ_CHECK(of, "export: '%s' has no expert %lld", name.name, (long long)e);
        job->source.inputs(job->source.ctx, of->name, tokens + e, square + e * cols);
    }
    bq_writer_put(w, square, (size_t)(matrices * cols) * sizeof *square);
    bq_writer_put(w, tokens, (size_t)matrices * sizeof *tokens);
    free(square);
    free(tokens);
}

static const char *dtype(const char *name) { return name; }
static size_t bytes_of(const bq_tensor *t) { return (size_t)bq_tensor_count(t) * sizeof(float); }

void bq_gguf_imatrix(bq_export_job *job) {
    static const bq_container container = {
        .suffix = "gguf", .align = BQ_GGUF_ALIGN, .dtype = dtype, .bytes = bytes_of, .header = head};
    char path[BQ_PATH];
    if (!((const bq_gguf_options *)job->options)->imatrix) return;
    bq_path_join(path, sizeof path, job->out_dir, "imatrix.gguf");
    bq_writer *w = bq_writer_plan_as(&container, job);
    for (int i = 0; i < job->items; i++) add(job, &job->item[i], w);
    bq_writer_open(w, path);
    for (int i = 0; i < job->items; i++) put(job, &job->item[i], w);
    bq_writer_close(w);
}
