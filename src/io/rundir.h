/* rundir.h - what may stand where a run is to work.
 *
 * A run directory is known by ckpt/lock, or by recipe.json beside ckpt/ or run.log.  The directory itself may
 * be reached through links; below it every name that blockq uses is what blockq makes there, a file or a
 * folder: no link, FIFO or device, and what is written in place (run.log, run.csv, ckpt/lock, acts/) has one
 * name.  What else stands in it is nobody's business here.  All calls are local, and change nothing. */
#ifndef BQ_RUNDIR_H
#define BQ_RUNDIR_H

#include <stdbool.h>

/* Where a run is to begin or go on: nothing is there, or an empty directory (a job script's job.* do not
 * count), or a run directory.  BQ_OK, or BQ_USAGE after one message.  A path that cannot be a directory is
 * left to bq_dir_make. */
int bq_rundir_place(const char *dir);

/* The names in it are what blockq makes: BQ_OK, or BQ_USAGE after one message that names the first that is
 * not.  written: files are to be written, not only read. */
int bq_rundir_check(const char *dir, bool written);

/* One name, of a folder or of a file that is replaced, never written in place. */
int bq_rundir_folder(const char *path);
int bq_rundir_file(const char *path);

#endif
