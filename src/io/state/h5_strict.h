/* SPDX-License-Identifier: Apache-2.0 */
/* h5_strict.h - read the structure of an HDF5 file from anybody, without the HDF5 library.  For h5*.c alone.
 *
 * Superblock version 0, object headers version 1, groups with symbol tables; docs/files.md ("What is read")
 * has the list.  Everything else is refused.  No byte is believed: offsets and sizes are checked against the
 * end of the file, counts against the limits below, names against their order.  So work and memory for an
 * object are bounded.  Values of datasets are not read.
 *
 * A call returns false after bq_h5_refuse. */
#ifndef BQ_H5_STRICT_H
#define BQ_H5_STRICT_H

#include "io/state/h5.h"

enum {
    BQ_H5_HEADER = 1 << 16, /* most bytes of the messages of an object */
    BQ_H5_HEAP = 1 << 16,   /* most bytes of the names of a group */
    BQ_H5_NAMES = 256,      /* most names of a group */
};

/* Types of messages in an object header, HDF5's numbers. */
enum {
    BQ_H5_SPACE = 1,
    BQ_H5_TYPE = 3,
    BQ_H5_EXTERNAL = 7,
    BQ_H5_LAYOUT = 8,
    BQ_H5_FILTER = 11,
    BQ_H5_ATTRIBUTE = 12,
    BQ_H5_SYMBOLS = 17
};

/* Bytes of a message, or of a part of one; not owned. */
typedef struct {
    const uint8_t *at; /* NULL: none */
    size_t bytes;
} bq_h5_part;

/* The messages of an object, one after the other.  Each is whole and of a known type; only attributes,
 * continuations and empty ones may repeat. */
typedef struct {
    size_t bytes;
    uint8_t data[BQ_H5_HEADER];
} bq_h5_object;

struct bq_h5_group {
    bq_h5_object object;
    size_t heap_bytes;
    char heap[BQ_H5_HEAP];
    int count;
    struct {
        const char *name; /* in heap */
        uint64_t at;      /* of the object's header */
        bool hard;        /* else a soft link or unknown */
    } entry[BQ_H5_NAMES];
};

/* Bytes of a shape; false if a size is not positive or the product overflows. */
bool bq_h5_shape_bytes(bq_type type, int rank, const int64_t *shape, int64_t *bytes);

/* A little-endian number of 1 to 8 bytes. */
uint64_t bq_h5_number(const uint8_t *at, size_t bytes);
/* Refuse: this part of the structure breaks a rule.  Returns false. */
bool bq_h5_broken(bq_h5 *h, const char *what);

/* Read the superblock: sets h->root, and h->size to HDF5's end of the file. */
bool bq_h5_load_super(bq_h5 *h);
bool bq_h5_load_object(bq_h5 *h, uint64_t at, bq_h5_object *object);
/* The next message of this type at or after *from, which moves behind it.  Offsets are in object->data. */
bq_h5_part bq_h5_message(const bq_h5_object *object, unsigned type, size_t *from);
/* Read all names of the group at an offset into h->group, which is made if absent; name is for messages. */
bool bq_h5_load_group(bq_h5 *h, uint64_t at, const char *name);

#endif
