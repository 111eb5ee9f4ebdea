/* SPDX-License-Identifier: Apache-2.0 */
/* golden.h - the one reader of golden files: tensors and numbers that another program made.  Their keys are
 * in tests/vectors/README.md.
 *
 * A file may be damaged or hostile.  golden_open returns a code; every other function ends the process
 * with one message (bq_refuse_job) when the file lacks what is asked for, or has it with another type or
 * shape. */
#ifndef BQ_GOLDEN_H
#define BQ_GOLDEN_H

#include "io/in/weights.h"

typedef struct {
    bq_weights *file;
    char path[400];
    char dir[256]; /* the model directory that golden_model makes; "" before */
    void **memory; /* what was read: freed by close */
    size_t reads;
    bool *seen; /* of each tensor: it was read, or golden_pass_over named it */
} golden;

/* BQ_OK, or BQ_DATA after one message. */
int golden_open(golden *g, const char *path);
void golden_close(golden *g); /* removes the model directory, too */

bool golden_has(const golden *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A tensor of this type as a host view in memory of the reader.  All dimensions but the last count as rows; a
 * vector is one row.  rows, cols: what must be there, -1 for any; where both are given, the number of values
 * must agree, so that (N) and (N, 1) are the same.  A tensor without values is refused. */
bq_mat golden_read(golden *g, bq_type type, int64_t rows, int64_t cols, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* The tensor `tokens`, (samples, length) i32; and the check that each is in the vocabulary. */
bq_mat golden_tokens(golden *g);
void golden_check_tokens(const golden *g, bq_mat ids, int64_t vocab);

/* Rows of a tensor of any float type, converted to f32. */
void golden_convert(golden *g, const char *name, bq_mat to);

/* Tensors whose names start with this text need not be read. */
void golden_pass_over(golden *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A value of the metadata: as text, as a number, as JSON (the caller's). JSON may be spelled as Python
 * prints its values. */
const char *golden_text(const golden *g, const char *key);
double golden_number(const golden *g, const char *key);
json_t *golden_json(const golden *g, const char *key);

/* Memory that lives until close. */
void *golden_keep(golden *g, size_t bytes);

/* Make g->dir: a model directory of the tensors below init/ and the config of the metadata.  missing: keys
 * for a config that lacks them, NULL for none. */
void golden_model(golden *g, const json_t *missing);

/* End the process when a function of blockq has refused something: its message is out. */
void golden_require(int code);

#endif
