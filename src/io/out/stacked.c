/* SPDX-License-Identifier: Apache-2.0 */
/* Families that stack the experts of a block (gpt-oss): each linear of all experts becomes one tensor again,
 * as io/in/stacked.c takes them apart.  Columns 2 i and 2 i + 1 of gate_up_proj are rows i of gate and of up.
 *
 * Memory: one expert's gate and up, and its largest linear. */
#include "base/die.h"
#include "io/out/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPERTS "mlp.experts."

static const struct {
    const char *stacked, *of[2]; /* behind "mlp.experts.", and behind that and an expert's number */
} stacks[] = {{"gate_up_proj", {"gate_proj.weight", "up_proj.weight"}},
              {"gate_up_proj_bias", {"gate_proj.bias", "up_proj.bias"}},
              {"down_proj", {"down_proj.weight"}},
              {"down_proj_bias", {"down_proj.bias"}}};
enum { STACKS = sizeof stacks / sizeof *stacks };

/* The tensor `part` of expert e in the stack of an item of expert 0. */
static const bq_export_item *part_of(const bq_export_job *job, const char *first, int stack, int part,
                                     int64_t e) {
    int stem = (int)(strstr(first, EXPERTS) + strlen(EXPERTS) - first);
    char *name = NULL;
    BQ_CHECK(asprintf(&name, "%.*s%ld.%s", stem, first, (long)e, stacks[stack].of[part]) >= 0,
             "no memory for a name");
    const bq_export_item *item = bq_export_find(job, name);
    free(name);
    return item;
}

static bool fits(const bq_tensor *t, const bq_export_item *other) {
    return other && other->t->dims == t->dims && memcmp(other->t->shape, t->shape, sizeof t->shape[0]) == 0 &&
           (t->dims == 1 || other->t->shape[1] == t->shape[1]);
}

static int plan_first(bq_export_job *job, int item, int stack, size_t tail, const char *dtype) {
    const bq_export_item *first = &job->item[item];
    const bq_tensor *t = first->t;
    int64_t experts = 0, parts = stacks[stack].of[1] ? 2 : 1;
    while (part_of(job, first->name, stack, 0, experts)) experts++;
    for (int64_t i = 0; i < parts * experts; i++)
        if (t->dims < 1 || t->dims > 2 ||
            !fits(t, part_of(job, first->name, stack, (int)(i % parts), i / parts)))
            return bq_export_refuse(first, " is not as that of expert %ld, with which it would be one tensor",
                                    (long)(i / parts));
    const int64_t matrix[] = {experts, t->shape[t->dims - 1], parts * t->shape[0]};
    const int64_t vector[] = {experts, parts * t->shape[0]};
    bq_export_add(job, item, stack, tail, stacks[stack].stacked, dtype, t->dims + 1,
                  t->dims == 2 ? matrix : vector);
    return BQ_OK;
}

bool bq_export_plan_stacked(bq_export_job *job, int item, const char *dtype, int *code) {
    const char *name = job->item[item].name, *number = strstr(name, EXPERTS);
    char *end = NULL;
    *code = BQ_OK;
    if (!number) return false;
    number += strlen(EXPERTS);
    long expert = strtol(number, &end, 10);
    for (int i = 0; i < STACKS && end > number && *end == '.'; i++) {
        bool first = strcmp(end + 1, stacks[i].of[0]) == 0;
        if (first && expert == 0) *code = plan_first(job, item, i, strlen(number), dtype);
        if (first || (stacks[i].of[1] && strcmp(end + 1, stacks[i].of[1]) == 0)) return true;
    }
    return false;
}

/* Rows of one (rows, cols) become every `step`-th column of all, 16 columns of one at a time. */
static void transpose(const float *one, int64_t rows, int64_t cols, int64_t step, float *all) {
    for (int64_t c0 = 0; c0 < cols; c0 += 16)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = c0; c < cols && c < c0 + 16; c++) all[(c * rows + r) * step] = one[r * cols + c];
}

bool bq_export_write_stacked(bq_export_job *job, const bq_export_out *out, bq_export_values *values,
                             bq_export_put *put, bq_writer *w) {
    const bq_export_item *first = &job->item[out->item];
    int64_t rows = first->t->shape[0], cols = first->t->dims == 2 ? first->t->shape[1] : 1;
    if (out->t.dims == first->t->dims) return false;
    int parts = stacks[out->part].of[1] ? 2 : 1;
    float *one = malloc((size_t)(rows * cols) * 4), *all = malloc((size_t)(parts * rows * cols) * 4);
    BQ_CHECK(one && all, "no memory to export an expert of (%ld, %ld)", (long)rows, (long)cols);
    for (int64_t e = 0; e < out->t.shape[0]; e++) {
        for (int part = 0; part < parts; part++) {
            bool vector = first->t->dims == 1;
            bq_mat to = bq_mat_host(one, vector ? 1 : rows, vector ? rows : cols, BQ_F32);
            values(job, part_of(job, first->name, out->part, part, e), to);
            transpose(one, rows, cols, parts, all + part);
        }
        put(job, out, all, parts * rows * cols, w);
    }
    free(one);
    free(all);
    return true;
}
