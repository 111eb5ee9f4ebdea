/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/streams/run.h"
#include "io/out/import.h"

typedef struct {
    const bq_args *args;
    const bq_comm *comm;
    bq_source model;
    bq_export_job *job;
} import;

/* What goes beside the weights: rank 0 writes it. */
static int look_beside(const import *m, json_t **beside) {
    const bq_args *a = m->args;
    const char *path = a->file[0];
    *beside = NULL;
    int code = m->comm->rank ? BQ_OK : bq_weights_beside(m->model.weights, !a->no_tokenizer, beside);
    if (code || m->comm->rank) return code;
    if (!*beside) return bq_refuse(BQ_USAGE, "'%s' is no GGUF file: there is nothing to import", path);
    if (a->no_tokenizer || json_object_get(*beside, "tokenizer.json")) return BQ_OK;
    json_decref(*beside);
    return bq_refuse(
        BQ_DATA,
        "%s: tokenizer.ggml.model, tokenizer.ggml.pre: blockq does not know this tokenizer; import "
        "with --no-tokenizer, and put the original model's tokenizer.json into %s",
        path, a->file[1]);
}

static int look(void *ctx) {
    import *m = ctx;
    const bq_args *a = m->args;
    const char *out = a->file[1];
    json_t *beside;
    int code = bq_source_open(&m->model, a->file[0]);
    if (!code && m->comm->rank == 0) code = bq_export_look(bq_weights_dir(m->model.weights), out, false);
    if (!code) code = look_beside(m, &beside);
    return code ? code
                : bq_import_open(&m->job, m->model.weights, out, bq_import_format(a->type), beside, a->shard);
}

/* The steps of io/out/export.h; each bq_comm_agree is also the barrier before the next step.  Nothing is
 * touched before rank 0 has read all values. */
static int write_model(import *m) {
    const bq_comm *comm = m->comm;
    bool root = comm->rank == 0;
    int code = root ? bq_import_check(m->model.weights, bq_import_format(m->args->type)) : BQ_OK;
    if (root && !code) code = bq_export_claim(m->job);
    code = bq_comm_agree(comm, code);
    if (code) return code;
    bq_export_write(m->job, comm->rank, comm->size);
    bq_comm_barrier(comm);
    return bq_comm_agree(comm, root ? bq_export_finish(m->job) : BQ_OK);
}

int bq_cmd_import(const bq_args *args, bq_comm *comm) {
import m = {.args = args, .comm = comm };
    int code = bq_root_first(comm, look, &m);
    if (!code) code = write_model(&m);
    if (!code)
        bq_log(BQ_INFO, "wrote %s: %d tensors, %d shard%s", args->file[1], bq_weights_count(m.model.weights),
               bq_export_shards(m.job), bq_export_shards(m.job) == 1 ? "" : "s");
    bq_export_close(m.job);
    bq_source_close(&m.model);
    return code;
}
