/* SPDX-License-Identifier: Apache-2.0 */
/* weights_reader.h - a kind of source of models, as one row of a table; and what its file may use of an open
 * source.  Only files of io/in, io/fingerprint.c and tests include it.
 *
 * To add one: its file, and its name in READERS of weights.c (docs/add-a-reader.md). */
#ifndef BQ_WEIGHTS_READER_H
#define BQ_WEIGHTS_READER_H

#include "base/hash.h"
#include "io/in/weights.h"

typedef struct {
    /* What must be at a path, for the message where no reader knows it; NULL: another reader's text has it */
    const char *wanted;
    /* Is the path a source of this kind?  Looks at names of files and at config, says nothing.  The first
     * reader of the table that says yes opens it. */
    bool (*knows)(const char *path, const json_t *config);
    /* Open the files, add the tensors under the names of the family, check everything.  May replace or
     * change w->config and w->config_path.  BQ_OK, or BQ_DATA after one message; the caller frees what is
     * in w. */
    int (*open)(bq_weights *w, const char *path);
    void (*close)(void *own); /* where w->own is set, also after a failed open */
    /* Bytes [from, from + bytes) of a tensor, as its dtype says.  t may be a view with another shape of the
     * tensor with its name.  Several threads call it at a time.  A failing read ends the job. */
    void (*read)(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes);
    /* Bytes of the files that hold a tensor, with its scales and zero points; NULL: those of the tensor. */
    size_t (*held)(const bq_weights *w, const bq_tensor *t);
    void (*prefetch)(const bq_weights *w, const bq_tensor *t); /* NULL: there is nothing to prefetch */
    /* Add to a model's hash what decides its weights besides the bytes of the files; NULL: nothing. */
    void (*hash)(const bq_weights *w, bq_hash *h);
    /* Add a tensor that the model must have; NULL: open has added all.  For sources whose files have no
     * tensors, because it makes up the values. */
    void (*add)(bq_weights *w, const bq_tensor *wanted);
    /* bq_weights_beside; NULL: what belongs beside the weights is in files of their directory. */
    int (*beside)(const bq_weights *w, bool tokenizer, json_t **files);
    bool stored; /* tensors stand in the files as they are read, at their offsets */
} bq_weights_reader;

typedef struct {
    char *name; /* without the directory */
    int fd;
    size_t bytes;
} bq_weights_part;

struct bq_weights {
    const bq_weights_reader *reader;
    char *dir, *config_path; /* the latter for messages */
    json_t *config;          /* of the model, as config.json has it; NULL: there is none */
    json_t *metadata;        /* texts about the first file, or NULL */
    bq_weights_part *part;
    int parts, count, room;
    bq_tensor *at; /* owns the names */
    const bq_tensor **by_name;
    void *own; /* the reader's */
};

extern const bq_weights_reader bq_weights_safetensors; /* another reader may build on it */

/* Open a file in w's directory as its next part.  BQ_OK, or BQ_DATA after one message. */
int bq_weights_part_open(bq_weights *w, const char *name);
/* Add a tensor; the name is copied.  Tensors of one part come one after the other, in order of offset. */
void bq_weights_add(bq_weights *w, const bq_tensor *t);
/* All tensors are added: list them by name.  BQ_OK, or BQ_DATA after one message: a name is there twice. */
int bq_weights_listed(bq_weights *w);
/* Read bytes of a part.  Fault point weights_read. */
void bq_weights_pread(const bq_weights *w, int part, size_t from, void *to, size_t bytes);

#endif
