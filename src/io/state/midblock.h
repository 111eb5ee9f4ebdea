/* SPDX-License-Identifier: Apache-2.0 */
/* midblock.h - the state of a block in training, in two files that are written in turn:
 * ckpt/inside_<block>.A.h5 and .B.h5.  docs/files.md has the format.
 *
 * Each is complete or absent, and sealed as a checkpoint is (checkpoint.h).  While one is written, the
 * other one counts.  A file has named matrices of f32 that do not depend on the grid: equal states give
 * equal bytes.  What they mean is known to the pass that trains.  All calls are local. */
#ifndef BQ_IO_MIDBLOCK_H
#define BQ_IO_MIDBLOCK_H

#include "io/state/h5.h"

#define BQ_INSIDE_PARTS 90

typedef struct bq_inside {
    int sweep, phase, pass, block; /* pass: number in the phase's list */
    uint64_t fingerprint;
    int64_t steps;   /* done; at least 1 */
    double previous; /* of the early stop's last check; may be NaN */
    double *loss;    /* (steps); after reading NULL: see bq_inside_read_loss */
    int parts;
    struct {
        char name[32];
        int64_t rows, cols;
    } part[BQ_INSIDE_PARTS];
    /* Unless NULL, reading sets the parts by it once the pass is known; no parts: the file does not count. */
    void (*parts_of)(void *ctx, struct bq_inside *inside);
    void *ctx;
} bq_inside;

typedef struct bq_inside_file bq_inside_file;

enum { BQ_INSIDE_SLOTS = 2, BQ_INSIDE_NONE = -1 };

/* out = <run_dir>/ckpt/inside_<block>.A.h5 for slot 0, B for 1; the block with at least 3 digits. */
void bq_inside_path(char *out, size_t n, const char *run_dir, int block, int slot);

/* Make a file: create, write every part once in any order (host views, ld may exceed cols), commit, which
 * frees f.  Ends the job when the disk fails; the old file stays until the new one is whole.  Fault point
 * inside_write: half of it is written. */
bq_inside_file *bq_inside_create(const char *path, const bq_inside *inside);
void bq_inside_write(bq_inside_file *f, int part, bq_mat m);
void bq_inside_commit(bq_inside_file *f);

/* Open a file if it is whole and has the sweep, phase, block, fingerprint and parts of *inside; sets its
 * pass, parts, steps and previous.  The caller closes.  NULL if it does not count; why (BQ_WHY bytes) has the
 * reason, or is "" if there is no file. */
bq_inside_file *bq_inside_open(const char *path, bq_inside *inside, char *why);

/* Open the file that counts: of two the one that is further on, by pass, then steps.  Returns its slot, and
 * *f as bq_inside_open; or BQ_INSIDE_NONE, and *f is NULL.  A file that is there and does not count is
 * logged. */
int bq_inside_find(bq_inside_file **f, const char *run_dir, bq_inside *inside);

/* How far the training of a block is, for people: from the attributes alone, the seal is not verified.
 * *inside has block and fingerprint; sets sweep, phase, pass and steps.  False if there is no such file. */
bool bq_inside_glance(const char *run_dir, bq_inside *inside);

/* Read rows [first, first + to.rows) of a part; the losses.  A read that fails ends the job. */
void bq_inside_read(bq_inside_file *f, int part, int64_t first, bq_mat to);
void bq_inside_read_loss(bq_inside_file *f, double *loss);
void bq_inside_close(bq_inside_file *f); /* NULL is fine */

/* Remove both files of the block and what killed processes left of them.  Nothing there is fine. */
void bq_inside_remove(const char *run_dir, int block);

#endif
