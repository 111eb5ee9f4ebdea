/* writer.h - safetensors files, written as a stream, the same bytes every time.
 *
 * plan, add all tensors, open, put their bytes in file order, close.  The file appears under its name only
 * when it is whole and on disk; until then it is "<path>.<pid>.tmp".  File order: wider dtypes first, then by
 * name; the data start at a multiple of 8.  A failing disk is a broken environment and dies with path and
 * reason.
 * Fault points: writer_write, writer_close. */
#ifndef BQ_WRITER_H
#define BQ_WRITER_H

#include "io/in/safetensors.h"

#define BQ_WRITER_PRODUCER "blockq" /* __metadata__ is {"format":"pt","producer":"blockq"} */

typedef struct bq_writer bq_writer;

bq_writer *bq_writer_plan(void);
/* Name and shape are copied.  dtype must be known and names distinct: else a bug, dies. */
void bq_writer_add(bq_writer *w, const char *name, const char *dtype, int dims, const int64_t *shape);

/* Sort, create the temporary (bq_temp_name), write the header; from here on at(i) is file order. */
void bq_writer_open(bq_writer *w, const char *path);
int bq_writer_count(const bq_writer *w);
const bq_tensor *bq_writer_at(const bq_writer *w, int i);
/* The next bytes of the data, in any portions; more than planned dies. */
void bq_writer_put(bq_writer *w, const void *data, size_t bytes);
/* All bytes are there (else dies): fsync, rename, fsync of the directory; frees w.  The XXH3 of the file. */
uint64_t bq_writer_close(bq_writer *w);
/* Give up: remove the temporary, free w.  NULL is fine. */
void bq_writer_drop(bq_writer *w);

/* model.safetensors.index.json, whole or absent: tensor name[i] lies in file[i]; total is the tensors'
 * bytes. */
void bq_index_write(const char *path, size_t total, int count, const char *const *name,
                    const char *const *file);

#endif
