/* SPDX-License-Identifier: Apache-2.0 */
/* rundir.h - what may stand where a run is to work.
 *
 * A directory is a run directory if it has ckpt/lock, or recipe.json beside ckpt/ or run.log.  The path to it
 * may lead through links.  Below it, every name that blockq uses must be what blockq makes there, a file or a
 * folder: not a link, a FIFO or a device.  What is written in place (run.log, run.csv, ckpt/lock, acts/) must
 * have one name only.  Other names in it do not matter.  All calls are local, and change nothing.  */
#ifndef BQ_RUNDIR_H
#define BQ_RUNDIR_H

#include <stdbool.h>

/* Is it a run directory? */
bool bq_rundir_is(const char *dir);

/* May a run begin or go on here?  Yes if dir is absent, or is a run directory, or has no names but ckpt,
 * acts and job.* (what a run that was killed at once, or a job script, leaves).  BQ_OK, or BQ_USAGE after
 * one message.  A path that is not a directory is left to bq_dir_make to refuse. */
int bq_rundir_place(const char *dir);

/* Are the names in dir that blockq uses what blockq makes?  BQ_OK, or BQ_USAGE after one message about the
 * first that is not.  written: files are to be written, not only read.  The same for one path: a folder; a
 * file that is replaced and never written in place.  Nothing there is fine. */
int bq_rundir_check(const char *dir, bool written);
int bq_rundir_folder(const char *path);
int bq_rundir_file(const char *path);

#endif
