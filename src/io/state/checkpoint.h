/* checkpoint.h - one finished block in a file: all that export and a restart need of it.
 *
 * A file is complete or absent (temporary, sync, rename, sync of the directory) and sealed: a checksum over
 * every byte is verified before anything in it is believed.  It holds no time, host or grid: equal runs give
 * equal bytes. All calls are local. */
#ifndef BQ_CHECKPOINT_H
#define BQ_CHECKPOINT_H

#include "io/state/h5.h"
#include "kernels/ops.h"

#define BQ_MAX_LINEAR 64

/* fold is always there; code and scale come together, or have no rows when the weight is not quantized. zero
 * is with them where the scheme is asymmetric, and only there. */
typedef struct {
    char name[64];
    bq_scheme scheme;
    bq_mat fold;  /* (rows, cols) f32: the weight after all folds, before rounding */
    bq_mat code;  /* (rows, cols) i8 */
    bq_mat scale; /* (rows, groups) f32; groups = 1 or ceil(cols / scheme.group) */
    bq_mat zero;  /* (rows, groups) f32, whole numbers */
    bq_mat bias;  /* (1, rows) f32: in a folded block, where the linear has one */
    bq_mat pre;   /* (1, cols) f32: what the linear is fed is multiplied by it first; no rows: it is not */
} bq_ckpt_linear;

typedef struct {
    int sweep, phase, block;
    uint64_t fingerprint;
    int linears;
    bq_ckpt_linear linear[BQ_MAX_LINEAR];
    bq_mat norm[2]; /* (1, hidden) f32 each, of a folded block: its norms and biases are not the model's */
    int64_t steps;
    double *loss; /* (steps) */
} bq_ckpt;

static inline bool bq_ckpt_folded(const bq_ckpt *c) { return c->norm[0].rows > 0; }

typedef enum {
    BQ_CKPT_FOLD,
    BQ_CKPT_CODE,
    BQ_CKPT_SCALE,
    BQ_CKPT_ZERO,
    BQ_CKPT_BIAS,
    BQ_CKPT_PRE
} bq_ckpt_part;

/* <run_dir>/ckpt/block_<block>.p<phase>.s<sweep>.h5, the block with at least 3 digits. */
void bq_ckpt_path(char *out, size_t n, const char *run_dir, int sweep, int phase, int block);

/* Write c, data in host memory (ld may exceed cols).  The folder must exist.  Ends the job when the disk
 * fails, the old file untouched.  A c that breaks the rules above is a bug and ends the job. Fault points
 * ckpt_write (the temporary file is half written) and ckpt_rename (it is whole, not yet renamed). */
void bq_ckpt_write(const char *path, const bq_ckpt *c);

enum {
    BQ_CKPT_OK,
    BQ_CKPT_ABSENT,  /* no such file */
    BQ_CKPT_FOREIGN, /* whole, but of another fingerprint or version */
    BQ_CKPT_TORN,    /* damaged, or not a checkpoint */
};

typedef struct bq_ckpt_file bq_ckpt_file;

/* Open, verify every byte, and describe.  head gets all but the data: views have data NULL, loss is NULL.
 * Quiet: a BQ_CKPT value, and unless OK the reason in why (BQ_WHY bytes, or NULL).  On BQ_CKPT_OK the caller
 * closes, else *f is NULL. */
int bq_ckpt_open(bq_ckpt_file **f, const char *path, uint64_t fingerprint, bq_ckpt *head, char *why);

/* As open, but only whether a file of that fingerprint is there with a seal of the right size: a few bytes
 * are read. */
int bq_ckpt_peek(const char *path, uint64_t fingerprint);

/* The part, or its rows [first, first + to.rows), into a host view of its type and width.  A wrong view is a
 * bug, a read that fails after open succeeded a broken disk: both end the job. */
void bq_ckpt_read(bq_ckpt_file *f, int linear, bq_ckpt_part part, bq_mat to);
void bq_ckpt_read_rows(bq_ckpt_file *f, int linear, bq_ckpt_part part, int64_t first, bq_mat to);
void bq_ckpt_read_norm(bq_ckpt_file *f, int norm, bq_mat to);
void bq_ckpt_read_loss(bq_ckpt_file *f, double *loss); /* (steps) */
void bq_ckpt_close(bq_ckpt_file *f);                   /* NULL is fine */

#endif
