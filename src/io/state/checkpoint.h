/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.h - one finished block in a file, with all that an export or a restart needs of it.
 * docs/files.md has the format.
 *
 * A file is complete or absent, and sealed: every byte is verified before anything in it is believed.  It
 * has no time, host or number of ranks, so equal runs give equal bytes.  All calls are local. */
#ifndef BQ_CHECKPOINT_H
#define BQ_CHECKPOINT_H

#include "io/state/h5.h"
#include "kernels/ops.h"

#define BQ_MAX_LINEAR 64
#define BQ_CKPT_NORMS 3

/* code and scale are both there; or both have no rows, and the weight is not quantized.  zero is there with
 * them if the scheme is asymmetric, and only then.  fold is there where a later phase or sweep starts from
 * it, and where there are no codes. */
typedef struct {
    char name[64];
    bq_scheme scheme;
    bq_mat fold;  /* (rows, cols) f32, the weights before rounding */
    bq_mat code;  /* (rows, cols) i8; in the file packed (codes.h) where they have less than 8 bits */
    bq_mat scale; /* (rows, groups) f32; groups = 1 or ceil(cols / scheme.group) */
    bq_mat zero;  /* (rows, groups) f32, whole numbers */
    bq_mat bias;  /* (1, rows) f32, of a folded block's linear that has one */
    bq_mat pre; /* (1, cols) f32, factors by which the linear's inputs are multiplied first; no rows: none */
    bq_mat outer; /* (1, 1) f32, scheme.outer: with code where scheme.scale is BQ_F8_E4M3, and only there */
} bq_ckpt_linear;

typedef struct {
    int sweep, phase, block;
    uint64_t fingerprint;
    int linears;
    bq_ckpt_linear linear[BQ_MAX_LINEAR];
    bq_mat norm[BQ_CKPT_NORMS]; /* (1, hidden) f32: in a folded block, whose norms and biases are not the
                       model's, those before attention and MLP; where the model has none, those behind o and
                       down.  Then the model's final norm: in the last block of a distillation */
    int64_t steps;
    double *loss; /* (steps) */
} bq_ckpt;

/* What a file is of.  unit: 0, or 1 + e of expert e, which the names of its linears say. */
typedef struct {
    int sweep, phase, block, unit;
} bq_ckpt_at;

static inline bool bq_ckpt_folded(const bq_ckpt *c) { return c->norm[0].rows > 0; }

/* Bytes that a part's data take in a copy that holds all parts of a checkpoint. */
static inline size_t bq_ckpt_room(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

/* A view with the weight's rows and columns. */
static inline bq_mat bq_ckpt_shape(const bq_ckpt_linear *l) { return l->fold.rows ? l->fold : l->code; }

typedef enum {
    BQ_CKPT_FOLD,
    BQ_CKPT_CODE,
    BQ_CKPT_SCALE,
    BQ_CKPT_ZERO,
    BQ_CKPT_BIAS,
    BQ_CKPT_PRE,
    BQ_CKPT_OUTER
} bq_ckpt_part;

/* out = <run_dir>/ckpt/block_<block>.p<phase>.s<sweep>.h5, the block with at least 3 digits.  A path that
 * does not fit ends the job. */
void bq_ckpt_path(char *out, size_t n, const char *run_dir, int sweep, int phase, int block);
/* A block with experts is in several files: that one is of its core, and there is one for each expert,
 * block_<block>.p<phase>.s<sweep>.e<expert>.h5.  The core's is called ...core.h5 until all are there. */
void bq_ckpt_expert_path(char *out, size_t n, const char *run_dir, int sweep, int phase, int block,
                         int expert);
void bq_ckpt_core_path(char *out, size_t n, const char *run_dir, int sweep, int phase, int block);
/* All are there: the core's file gets its name, unless it has it. */
void bq_ckpt_finish(const char *run_dir, int sweep, int phase, int block);

/* Write c, whose data are in host memory (ld may exceed cols), to a folder that exists.  Ends the job when
 * the disk fails or c breaks the rules above; the old file stays until the new one is whole.  Fault points
 * ckpt_write (half of the temporary file is written), ckpt_kill (the same, and the process is killed),
 * ckpt_rename (all of it, but not renamed), ckpt_stall (then it waits two seconds). */
void bq_ckpt_write(const char *path, const bq_ckpt *c);

/* Write it while the caller does other work (`behind`).  start makes the file's structure with the HDF5
 * library.  Then a thread, which does not call the library, packs the codes, writes the data, syncs and
 * renames.  Until end has returned true the caller must not change c's data, and must not say that the block
 * is done.
 *   end   wait at most so many seconds, which count as spent on files.  True: the file is there, o is freed,
 *         and *cost has what the thread took; its bytes are counted as the caller's now.  What failed in the
 *         thread ends the job here
 * Where there can be no thread (fault point ckpt_thread), start writes at once, after a warning. */
typedef struct {
    double seconds;
    int64_t read, written;
} bq_ckpt_cost;
typedef struct bq_ckpt_out bq_ckpt_out;
bq_ckpt_out *bq_ckpt_start(const char *path, const bq_ckpt *c, bool behind);
bool bq_ckpt_end(bq_ckpt_out *o, double seconds, bq_ckpt_cost *cost);

/* As bq_h5_get_head says. */
enum { BQ_CKPT_OK, BQ_CKPT_ABSENT, BQ_CKPT_FOREIGN, BQ_CKPT_TORN };

typedef struct bq_ckpt_file bq_ckpt_file;

/* Open a file, verify every byte, and describe it.  head gets all but the data: views have data NULL, loss
 * is NULL.  Prints nothing.  Returns a BQ_CKPT value; unless it is OK, why has the reason (BQ_WHY bytes, or
 * NULL) and *f is NULL.  On BQ_CKPT_OK the caller closes. */
int bq_ckpt_open(bq_ckpt_file **f, const char *path, uint64_t fingerprint, bq_ckpt *head, char *why);

/* The same of a file that is to be of `at`; another one is foreign, as after a copy from elsewhere. */
int bq_ckpt_open_at(bq_ckpt_file **f, const char *path, uint64_t fingerprint, bq_ckpt_at at, bq_ckpt *head,
                    char *why);

/* The same from the seal alone, by its size and fingerprint.  Reads a few bytes. */
int bq_ckpt_peek(const char *path, uint64_t fingerprint);

/* Read a part, or its rows [first, first + to.rows), a norm, the losses into host memory of the part's type
 * and width.  A wrong view is a bug, a read that fails now a failing disk: both end the job. */
void bq_ckpt_read(bq_ckpt_file *f, int linear, bq_ckpt_part part, bq_mat to);
void bq_ckpt_read_rows(bq_ckpt_file *f, int linear, bq_ckpt_part part, int64_t first, bq_mat to);
void bq_ckpt_read_norm(bq_ckpt_file *f, int norm, bq_mat to);
void bq_ckpt_read_loss(bq_ckpt_file *f, double *loss); /* (steps) */
void bq_ckpt_close(bq_ckpt_file *f);                   /* NULL is fine */

#endif
