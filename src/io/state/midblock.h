/* inside.h - a block in the midst of its training, in two files written in turn: ckpt/inside_<block>.A.h5,
 * .B.h5.
 *
 * Each is complete or absent and sealed, as a checkpoint is (checkpoint.h), so that while one is written the
 * other one counts.  A file holds named matrices of f32 that know no grid: equal states give equal bytes.
 * What the matrices mean is the trainer's affair.  All calls are local. */
#ifndef BQ_INSIDE_H
#define BQ_INSIDE_H

#include "io/state/h5.h"

#define BQ_INSIDE_PARTS 64

typedef struct {
    int sweep, phase, pass, block; /* pass: place in the phase's list */
    uint64_t fingerprint;
    int64_t steps;   /* done, at least 1 */
    double previous; /* early stop's memory; may be NaN */
    double *loss;    /* (steps); NULL after reading: bq_inside_read_loss */
    int parts;
    struct {
        char name[32];
        int64_t rows, cols;
    } part[BQ_INSIDE_PARTS];
} bq_inside;

typedef struct bq_inside_file bq_inside_file;

enum { BQ_INSIDE_SLOTS = 2, BQ_INSIDE_NONE = -1 };

/* <run_dir>/ckpt/inside_<block>.A.h5 of slot 0, B of 1; the block with at least 3 digits. */
void bq_inside_path(char *out, size_t n, const char *run_dir, int block, int slot);

/* Make a file: create, every part in any order (host views, ld may exceed cols), commit, which closes.  Ends
 * the job when the disk fails, the old file untouched.  Fault point inside_write: half of it is written. */
bq_inside_file *bq_inside_create(const char *path, const bq_inside *inside);
void bq_inside_write(bq_inside_file *f, int part, bq_mat m);
void bq_inside_commit(bq_inside_file *f);

/* Open a file if it is whole and says the sweep, phase, block, fingerprint and parts that are in *inside;
 * fills in pass, steps and previous.  NULL when it does not count: why says why (BQ_WHY bytes), or is ""
 * where there is no file.  The caller closes. */
bq_inside_file *bq_inside_open(const char *path, bq_inside *inside, char *why);

/* The slot of the file that counts, opened, or BQ_INSIDE_NONE and *f NULL: of two the one further on, by pass
 * and steps.  A file that is there and does not count is worth a line of the log. */
int bq_inside_find(bq_inside_file **f, const char *run_dir, bq_inside *inside);

/* What the file further on of a block's two says about itself, of which only some bytes are read: for people,
 * not to go on from.  Fills in sweep, phase, pass and steps of *inside, whose block and fingerprint are
 * given; false when there is none. */
bool bq_inside_glance(const char *run_dir, bq_inside *inside);

/* Rows [first, first + to.rows) of a part; the losses.  A read that fails after open is a broken disk and
 * ends the job. */
void bq_inside_read(bq_inside_file *f, int part, int64_t first, bq_mat to);
void bq_inside_read_loss(bq_inside_file *f, double *loss);
void bq_inside_close(bq_inside_file *f); /* NULL is fine */

/* Nothing of the block's is left, whole or not; fine where there is nothing. */
void bq_inside_remove(const char *run_dir, int block);

#endif
