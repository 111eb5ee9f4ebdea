/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/side.h"

#include "base/die.h"
#include "driver/run/session.h"
#include "io/rundir.h"
#include "io/in/fp8.h"

#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

static int look(void *side) {
    bq_side *s = side;
    return bq_source_open(&s->model, s->path);
}

static int compare_names(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strverscmp(*x, *y);
}

/* A run's result may have a head of its own where the model's is the embedding. */
static bool has_own_head(const bq_side *s) {
    bq_mat ask = bq_mat_host(NULL, 1, s->src->arch.model.hidden, BQ_F32);
    return s->is_run && !bq_weights_find(s->src->weights, bq_tensor_head) &&
           s->of_run.dense(s->of_run.ctx, bq_tensor_head, 0, ask);
}

static void list_names(bq_side *s) {
    const bq_weights *w = s->src->weights;
    s->name = calloc((size_t)bq_weights_count(w) + 1, sizeof *s->name);
    BQ_CHECK(s->name, "no memory for the names of %d tensors", bq_weights_count(w));
    for (int i = 0; i < bq_weights_count(w); i++)
        if (!bq_fp8_scales(w, bq_weights_at(w, i))) s->name[s->names++] = bq_weights_at(w, i)->name;
    if (has_own_head(s)) s->name[s->names++] = bq_tensor_head;
    qsort(s->name, (size_t)s->names, sizeof *s->name, compare_names);
}

int bq_side_open(bq_side *s, const char *path, const bq_args *args, bq_comm *comm) {
    *s = (bq_side){.path = path, .args = *args, .is_run = bq_rundir_is(path)};
    s->args.tokens = NULL, s->args.device = "cpu"; /* nothing is evaluated here */
    if (s->is_run) s->args.run = path;
    int code = s->is_run ? bq_session_open_finished(&s->run, &s->args, comm) : bq_root_first(comm, look, s);
    s->src = s->is_run ? &s->run.src : &s->model;
    if (s->is_run) s->of_run = bq_result_tensors_of(&s->result, &s->run);
    if (!code) list_names(s);
    return code;
}

void bq_side_close(bq_side *s) {
    bq_result_tensors_close(&s->result);
    if (s->is_run) bq_session_close(&s->run);
    bq_source_close(&s->model);
    free(s->name);
}

/* ---- tensors ---- */

void bq_side_take(bq_side *s, const char *name) {
    const bq_weights *w = s->src->weights;
    const bq_tensor *t = bq_weights_find(w, name);
    bq_type type;
    s->t = t ? *t : *bq_weights_find(w, s->src->arch.embed); /* a head of its own: it has that shape */
    s->t.name = name;
    s->cols = 1, s->rows = s->t.dims > 1 ? s->t.shape[0] : 1;
    for (int i = s->t.dims > 1; i < s->t.dims; i++) s->cols *= s->t.shape[i];
    s->floats = bq_fp8_tensor(w, &s->t) || bq_dtype_float(s->t.dtype, &type);
    s->coded = s->is_run && s->of_run.get(s->of_run.ctx, name, true, &s->q);
}

void bq_side_read(bq_side *s, int64_t first, bq_mat to) {
    bq_tensor view = s->t;
    view.dims = 2, view.shape[0] = s->rows, view.shape[1] = s->cols;
    if (s->coded) {
        for (int64_t r = 0; r < to.rows; r++)
            bq_qtensor_values(&s->q, first + r, 0, to.cols, bq_mat_at(to, r, 0));
    } else if (!s->is_run || !s->of_run.dense(s->of_run.ctx, s->t.name, first, to)) {
        bq_weights_read(s->src->weights, &view, first, to.rows, to);
    }
}

double bq_side_bits(const bq_side *s) {
    const bq_qtensor *q = &s->q;
    if (!s->coded) return 8 * (double)bq_weights_held(s->src->weights, &s->t);
    return (double)(bq_scheme_bits(q->scheme, q->code.rows, q->code.cols) + 32 * q->pre.rows * q->pre.cols);
}
