/* h5.h - HDF5 files: the HDF5 library describes a file, plain reads and writes move its data.
 *
 * A file is made beside its place as "<path>.<pid>.tmp": create, put attributes and datasets, fix (HDF5 is
 * done), write raw data at the offsets that put_data gave, commit (sync, rename, sync the directory).  So a
 * file is whole or absent, and data may be written later, from any thread, in any order, without the HDF5
 * library. Equal content gives equal bytes: no times, early allocation, no fill, contiguous, earliest library
 * bounds.
 *
 * Reading does without the library, which is not made for bytes that somebody chose: a reader of our own
 * (io/h5_strict.h) takes the few structures that files for blockq have, and refuses everything else.  All it
 * reads comes from the one descriptor that open has made.
 *
 * Trouble: making a file never fails by value; a broken disk ends the job with path and reason, the temporary
 * file removed.  Reading never ends the job nor prints: a call returns false and h->why holds the first
 * reason; later calls then return false at once, so they chain with && or need no check until the last.  A
 * file is made by one thread at a time, but for write.  All calls are local.  Numbers in files are
 * little-endian. */
#ifndef BQ_H5_H
#define BQ_H5_H

#include "base/mat.h"

#define BQ_WHY 200 /* room for a reason, the closing 0 included */

/* One open file, zero-initialised by the caller; not to be copied.  Only why and absent are for callers. */
typedef struct {
    int64_t file, at; /* making: HDF5 handles, 0 = none: the file, and the group that things are put into */
    int fd;           /* -1 = none; valid while path is set */
    int64_t size;     /* of the file, its seal not counted */
    char *path;       /* of the finished file, owned */
    char *temp;       /* making: where it is until commit, owned; reading: NULL */
    uint64_t root;    /* reading: where the root group is */
    struct bq_h5_group *group; /* reading: the group that names are looked up in, owned; NULL after detach */
    bool absent;               /* reading: open failed because there is no such file */
    char why[BQ_WHY];          /* reading: "" or the first reason, without the path */
} bq_h5;

/* Silence HDF5's own error printing, and default HDF5_USE_FILE_LOCKING to FALSE unless the user set it: our
 * files never need HDF5's locks, and network file systems refuse them.  create does it by itself. */
void bq_h5_init(void);

/* Making a file. */

/* Open a temporary (bq_temp_name) for a new file. */
void bq_h5_create(bq_h5 *h, const char *path);
/* Make a group below the root and put into it from now on; NULL goes back to the root. */
void bq_h5_put_group(bq_h5 *h, const char *name);
/* Scalar attribute; type BQ_I32 or BQ_I64. */
void bq_h5_put_int(bq_h5 *h, const char *name, bq_type type, int64_t value);
/* Fixed-length null-terminated string attribute of strlen + 1 bytes. */
void bq_h5_put_text(bq_h5 *h, const char *name, const char *text);
/* 16 hexadecimal digits, as a text attribute. */
void bq_h5_put_hex(bq_h5 *h, const char *name, uint64_t value);
/* A dataset with its space reserved; rank 1 to 3, all sizes > 0.  Returns the data's offset in the file. */
int64_t bq_h5_put_data(bq_h5 *h, const char *name, bq_type type, int rank, const int64_t *shape);
/* The structure is complete: HDF5 closes the file, raw writes may begin. */
void bq_h5_fix(bq_h5 *h);
/* Rows of host data, packed, at an offset. */
void bq_h5_write(bq_h5 *h, int64_t offset, bq_mat data);
/* Append a seal (io/raw.h) with this tag; nothing may be written after it. */
void bq_h5_seal(bq_h5 *h, uint64_t tag);
/* Sync, rename to path, sync the directory, close. */
void bq_h5_commit(bq_h5 *h);
/* What all of these do when a call failed: remove the temporary file and end the job with "<what> of '<path>'
 * failed: <errno's text>".  Public for fault injection. */
_Noreturn void bq_h5_fail(bq_h5 *h, const char *what);
/* Why the last call of HDF5 failed, in text. */
const char *bq_h5_reason(char text[BQ_WHY]);

/* Reading a file. */

/* Open for reading.  tag NULL: a file without a seal.  Else the seal must be there and agree with all bytes
 * before the structure is read, and tag gets its tag.  On false nothing stays open but why and absent are
 * set.  Fault point h5_open. */
bool bq_h5_open(bq_h5 *h, const char *path, uint64_t *tag);
/* The same without a seal, with a descriptor that may write, too: take gives it to the caller and closes the
 * rest.  So what is written to is the very file that was looked at. */
bool bq_h5_open_rw(bq_h5 *h, const char *path);
int bq_h5_take(bq_h5 *h);
/* Look names up in this group of the root; NULL: in the root.  Links that are not hard are refused. */
bool bq_h5_get_group(bq_h5 *h, const char *name);
/* Scalar integer attribute of any width, min <= value <= max. */
bool bq_h5_get_int(bq_h5 *h, const char *name, int64_t min, int64_t max, int64_t *value);
/* Fixed-length string attribute, printable, shorter than size; out is terminated. */
bool bq_h5_get_text(bq_h5 *h, const char *name, char *out, size_t size);
bool bq_h5_get_hex(bq_h5 *h, const char *name, uint64_t *value);
/* Is there anything of that name where names are looked up? */
bool bq_h5_has_data(bq_h5 *h, const char *name);
/* A contiguous dataset of exactly that type and rank, all sizes > 0, wholly inside the file. */
bool bq_h5_get_data(bq_h5 *h, const char *name, bq_type type, int rank, int64_t *shape, int64_t *offset);
/* The structure is no longer needed: give its memory back, keep the file open for reads. */
void bq_h5_detach(bq_h5 *h);
/* Packed rows at an offset into a host view. */
bool bq_h5_read(bq_h5 *h, int64_t offset, bq_mat to);
/* Keep the first reason; returns false.  For callers' own checks. */
bool bq_h5_refuse(bq_h5 *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Close whatever is open; a file that was not committed is removed. */
void bq_h5_close(bq_h5 *h);

#endif
