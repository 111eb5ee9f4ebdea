/* SPDX-License-Identifier: Apache-2.0 */
/* rotation.h - ckpt/rotation.f32: rotations that are learned, after each step of their training. */
#ifndef BQ_ROTATION_FILE_H
#define BQ_ROTATION_FILE_H

#include "driver/plan/learned.h"
#include "driver/streams/run.h"

/* All in one piece of memory, as in the file (docs/files.md). */
typedef struct {
    bq_learned_size size;
    int64_t done; /* steps */
    double *loss; /* (steps) */
    float *r1, *m1, *r2,
        *m2; /* (h, h), (blocks, d, d): rotations and their momenta; NULL where there are none */
    void *memory;
} bq_rotations;

/* Room for those of the run, and all of it 0; close takes what open made, or a zeroed struct.  All local. */
void bq_rotations_open(bq_rotations *all, const bq_run *s);
void bq_rotations_close(bq_rotations *all);
size_t bq_rotations_bytes(const bq_rotations *all);

/* Read the file into it: false and all 0 where it is gone, damaged or of another run.  write ends the job
 * where the disk fails. */
bool bq_rotations_read(bq_rotations *all, const bq_run *s);
void bq_rotations_write(const bq_rotations *all, const bq_run *s);

#endif
