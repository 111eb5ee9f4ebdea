/* SPDX-License-Identifier: Apache-2.0 */
/* h5.h - HDF5 files: the HDF5 library makes a file, plain reads and writes move its data.
 *
 * Making: create a temporary file "<path>.<pid>.tmp", put attributes and datasets, fix (the library is
 * done), write data at the offsets that put_data gave, commit (sync, rename, sync the directory).  So a
 * file is whole or absent, and data may be written later, in any order and from any thread, without the
 * library.  Equal content gives equal bytes: no times, early allocation, no fill values, contiguous, the
 * library's earliest bounds.  Only one thread of the process, always the same, may call the functions before
 * fix, since the library is not made for more.  A failing disk ends the job with path and reason; the
 * temporary file is removed.
 *
 * Reading: by a small reader of our own (h5_strict.h), not by the library, which is not made for hostile
 * bytes.  It reads the few structures that blockq's files have, and refuses all else.  All reads use the
 * one descriptor that open has made.  Reading never ends the job and prints nothing: a call returns false,
 * and h->why has the first reason.  Later calls then return false at once, so they chain with && or need no
 * check until the last.
 *
 * docs/files.md has what is written and read.  Numbers in files are little-endian.  All calls are local.
 * Fault points: h5_create, h5_sync; h5_open, h5_read. */
#ifndef BQ_H5_H
#define BQ_H5_H

#include "base/mat.h"

#define BQ_WHY 200 /* room for a reason, the closing 0 included */

/* One open file; zeroed: none.  Do not copy it.  Callers may read why, absent and path. */
typedef struct {
    int64_t file, at; /* making: HDF5 handles, 0 = none: the file, the group that things are put into */
    int fd;           /* -1 = none; valid if path is set */
    int64_t size;     /* of the file without its seal */
    char *path;       /* the file's final path, owned */
    char *temp;       /* making: path of the temporary file, owned; reading: NULL */
    uint64_t root;    /* reading: offset of the root group */
    struct bq_h5_group *group; /* reading: the group where names are looked up, owned; NULL after detach */
    bool absent;               /* reading: there is no such file */
    char why[BQ_WHY];          /* reading: "", or the first reason, without the path */
} bq_h5;

/* "1.10.8", of the library. */
void bq_h5_library(char text[16]);

/* Turn off HDF5's own messages, and set HDF5_USE_FILE_LOCKING to FALSE unless it is set: network file
 * systems refuse HDF5's locks, and our files do not need them.  create calls it. */
void bq_h5_init(void);

/* Making a file.  Create the temporary file (bq_temp_name). */
void bq_h5_create(bq_h5 *h, const char *path);
/* Make a group in the root and put into it from now on; NULL goes back to the root. */
void bq_h5_put_group(bq_h5 *h, const char *name);
/* Put a scalar attribute (BQ_I32 or BQ_I64), or a text: a string of fixed length strlen + 1,
 * null-terminated. */
void bq_h5_put_int(bq_h5 *h, const char *name, bq_type type, int64_t value);
void bq_h5_put_text(bq_h5 *h, const char *name, const char *text);
/* Put what each file begins with: format, version and fingerprint, in the root. */
void bq_h5_put_head(bq_h5 *h, const char *format, int version, uint64_t fingerprint);
/* Put a dataset and reserve its space; rank 1 to 3, all sizes > 0.  Returns the offset of its data in the
 * file. */
int64_t bq_h5_put_data(bq_h5 *h, const char *name, bq_type type, int rank, const int64_t *shape);
/* The structure is complete: the library closes the file, data may be written. */
void bq_h5_fix(bq_h5 *h);
/* Write rows of host data, packed, at an offset. */
void bq_h5_write(bq_h5 *h, int64_t offset, bq_mat data);
/* Append a seal (raw.h) with this tag; write nothing after it. */
void bq_h5_seal(bq_h5 *h, uint64_t tag);
/* Sync, rename to path, sync the directory, close. */
void bq_h5_commit(bq_h5 *h);
/* Behind fix any thread may do the same by these, bq_seal_append and bq_h5_close, of which none ends the job:
 *   move      as write.  On false errno has the reason
 *   publish   as commit, without close.  NULL; or what failed, as bq_h5_fail takes it, and errno */
bool bq_h5_move(const bq_h5 *h, int64_t offset, bq_mat data);
const char *bq_h5_publish(bq_h5 *h);
/* Remove the temporary file and end the job with "<what> of '<path>' failed: <text of errno>", as all
 * functions above do when a call fails. */
_Noreturn void bq_h5_fail(bq_h5 *h, const char *what);
/* The reason why the last call of the HDF5 library failed, as text. */
const char *bq_h5_reason(char text[BQ_WHY]);

/* Reading a file.  Open: tag NULL: do not look for a seal.  Else a seal must be there and agree with all
 * bytes, before the structure is read; *tag is its tag.  On false nothing stays open; why and absent are
 * set. */
bool bq_h5_open(bq_h5 *h, const char *path, uint64_t *tag);
/* The same for an own file (base/open.h) without a seal, with a descriptor that may also write.  take hands
 * it to the caller and closes the rest: so what is written to is the file that was checked. */
bool bq_h5_open_rw(bq_h5 *h, const char *path);
int bq_h5_take(bq_h5 *h);
/* Look names up in this group of the root from now on; NULL: in the root.  Only hard links are followed. */
bool bq_h5_get_group(bq_h5 *h, const char *name);
/* A scalar attribute: an integer of 1 to 8 bytes in [min, max]; a text of fixed length, at most 255 bytes
 * without control characters, shorter than size, out is terminated; 16 hexadecimal digits. */
bool bq_h5_get_int(bq_h5 *h, const char *name, int64_t min, int64_t max, int64_t *value);
bool bq_h5_get_text(bq_h5 *h, const char *name, char *out, size_t size);
bool bq_h5_get_hex(bq_h5 *h, const char *name, uint64_t *value);
/* Has the file this format, a version of `oldest` to `version`, and this fingerprint?  Foreign: a whole file
 * of another version or fingerprint; torn: damaged, or of another format.  Unless it is OK, h->why has the
 * reason. */
enum { BQ_H5_OK, BQ_H5_ABSENT, BQ_H5_FOREIGN, BQ_H5_TORN };
int bq_h5_get_head(bq_h5 *h, const char *format, int oldest, int version, uint64_t fingerprint);
/* Is there anything of that name? */
bool bq_h5_has_data(bq_h5 *h, const char *name);
/* Shape and offset of a contiguous dataset of exactly this type and rank, all sizes > 0, inside the file. */
bool bq_h5_get_data(bq_h5 *h, const char *name, bq_type type, int rank, int64_t *shape, int64_t *offset);
/* Free the memory of the structure; the file stays open for bq_h5_read. */
void bq_h5_detach(bq_h5 *h);
/* Read packed rows at an offset into a host view. */
bool bq_h5_read(bq_h5 *h, int64_t offset, bq_mat to);
void bq_h5_must_read(bq_h5 *h, int64_t offset, bq_mat to); /* a read that fails ends the job */
/* For checks of a caller's own: keep the reason if it is the first; returns false. */
bool bq_h5_refuse(bq_h5 *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Close what is open.  A file that was not committed is removed.  A zeroed struct is fine. */
void bq_h5_close(bq_h5 *h);

#endif
