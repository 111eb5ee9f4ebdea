/* SPDX-License-Identifier: Apache-2.0 */
/* stored.h - for readers that make tensors out of those of safetensors files (packed.c, stacked.c): the list
 * of the stored tensors, and for each tensor of the model its place, a struct of the reader's own.
 *
 * A reader's model begins with a bq_stored.  Only files of io/in include this. */
#ifndef BQ_STORED_H
#define BQ_STORED_H

#include "io/in/weights_reader.h"

typedef struct {
    bq_tensor *at; /* as stored, with their names */
    const bq_tensor **by_name;
    int count, room;
    char *place; /* in order of bq_weights.at */
    size_t size; /* of a place */
} bq_stored;

/* Open safetensors files, and take their tensors out of w: it has none then.  w->own is a zeroed model.
 * BQ_OK, or BQ_DATA after one message. */
int bq_stored_open(bq_weights *w, const char *path, size_t place);
/* Also free the model. */
void bq_stored_close(void *own);

/* The stored tensor with the name of t, but for its last `cut` characters, and `what` in their place; NULL:
 * there is none. */
const bq_tensor *bq_stored_beside(const bq_stored *s, const bq_tensor *t, size_t cut, const char *what);

/* Add a tensor to the model, with a copy of its place. */
void bq_stored_add(bq_weights *w, const bq_tensor *t, const void *place);
/* The place of a tensor of the model, which may be a view of it. */
const void *bq_stored_place(const bq_weights *w, const bq_tensor *t);

#endif
