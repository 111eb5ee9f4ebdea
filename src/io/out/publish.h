/* SPDX-License-Identifier: Apache-2.0 */
/* publish.h - the files of a model's folder that say what the model is, and that all of it is there:
 *   README.md           the model card
 *   recipe.json         what made it
 *   quantization.json   what it is, for programs
 *   SHA256SUMS          of all files but itself, as `sha256sum -c` reads it
 *
 * An engine needs none of them, and they are written last.  All calls are local. */
#ifndef BQ_PUBLISH_H
#define BQ_PUBLISH_H

#include "io/manifest.h"

/* A card has this line.  A README.md without it is somebody's own text. */
#define BQ_CARD_MARK                                                                                         \
    "<!-- Written by blockq, which may write it anew. Without this line it leaves the text as it is. -->"

typedef struct {
    const char *card, *recipe, *summary; /* the texts of the first three */
} bq_publication;

/* Is it the name of one of the files? */
bool bq_publish_names(const char *name);

/* Remove those that blockq wrote in dir.  Ends the job when one cannot be removed. */
void bq_publish_remove(const char *dir);

/* Write all four; list: the other files of dir.  What has its bytes already is not written; a README.md
 * without the mark stays, and the log says so.  BQ_OK, or BQ_USAGE after one message: a link, a FIFO or a
 * folder has one of the names.  Ends the job when the disk fails. */
int bq_publish(const char *dir, const bq_manifest *list, const bq_publication *of);

#endif
