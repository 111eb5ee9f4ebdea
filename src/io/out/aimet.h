/* SPDX-License-Identifier: Apache-2.0 */
/* aimet.h - what the files of the format aimet share: its options, the text of the file of encodings, and the
 * encodings of activations. */
#ifndef BQ_AIMET_H
#define BQ_AIMET_H

#include "io/files.h"
#include "io/out/format.h"

typedef enum { BQ_AIMET_1_0_0, BQ_AIMET_0_6_1, BQ_AIMET_2_0_0 } bq_aimet_version;

typedef struct {
    bq_aimet_version version;
    char names[BQ_PATH_MAX];
} bq_aimet_options;

/* ---- aimet_text.c ---- */

typedef struct {
    bq_export_job *job; /* its buffer has what is not yet in the file */
    char path[BQ_PATH], temp[BQ_PATH + 32];
    int fd, filled;
} bq_aimet_text;

/* close ends the job when the disk fails; so does put, of at most 1 KiB.  A name is quoted.  A real has nine
 * digits, which give the same float again, and a point or an exponent, as other readers want it. */
void bq_aimet_open(bq_aimet_text *t, bq_export_job *job);
void bq_aimet_close(bq_aimet_text *t);
void bq_aimet_put(bq_aimet_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bq_aimet_name(bq_aimet_text *t, const char *name);
void bq_aimet_real(bq_aimet_text *t, double x);

/* ---- aimet_inputs.c ---- */

/* Refuse what the file cannot say of an item's inputs.  BQ_OK, or BQ_DATA after one message. */
int bq_aimet_plan_inputs(const bq_export_job *job, const bq_export_item *item);
/* Can it say how keys and values are cached? */
bool bq_aimet_caches(const bq_export_job *job);
/* Put the encodings of the inputs of linears, and of keys and values: how many. */
int bq_aimet_inputs(bq_aimet_text *t);
/* Bits that inputs have; 16 where they are not rounded. */
int bq_aimet_inputs_bits(const bq_export_job *job);

#endif
