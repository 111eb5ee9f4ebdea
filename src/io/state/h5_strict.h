/* h5_strict.h - the structure of an HDF5 file from anybody, without the HDF5 library.  For h5*.c alone.
 *
 * What is read is what the library writes within its earliest bounds and blockq uses: superblock 0, object
 * headers 1, groups by symbol table; docs/formats.md has the list.  Everything else is refused.  No byte is
 * believed: places and sizes are checked against the end of the file, counts against the limits below, names
 * against their order, so that work and memory for an object are bounded.  Data are not touched.
 *
 * A call returns false after bq_h5_refuse. */
#ifndef BQ_H5_STRICT_H
#define BQ_H5_STRICT_H

#include "io/state/h5.h"

enum {
    BQ_H5_HEADER = 1 << 16, /* most bytes of an object's messages */
    BQ_H5_HEAP = 1 << 16,   /* of the names of a group */
    BQ_H5_NAMES = 256,      /* most names of a group */
};

/* Messages of an object header, by HDF5's numbers. */
enum {
    BQ_H5_SPACE = 1,
    BQ_H5_TYPE = 3,
    BQ_H5_EXTERNAL = 7,
    BQ_H5_LAYOUT = 8,
    BQ_H5_FILTER = 11,
    BQ_H5_ATTRIBUTE = 12,
    BQ_H5_SYMBOLS = 17
};

/* Bytes of a message, or of a part of one. */
typedef struct {
    const uint8_t *at; /* NULL: there is none */
    size_t bytes;
} bq_h5_part;

/* The messages of an object, one behind the other, each whole, of a known type, and but for attributes the
 * only one of its type. */
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
        bool hard;        /* else a link to elsewhere */
    } entry[BQ_H5_NAMES];
};

/* Bytes of a shape; false when a size is not positive or the product too large for a file. */
bool bq_h5_shape_bytes(bq_type type, int rank, const int64_t *shape, int64_t *bytes);

/* A little-endian number of 1 to 8 bytes. */
uint64_t bq_h5_number(const uint8_t *at, size_t bytes);
/* Refuse: this part of the structure breaks a rule. */
bool bq_h5_broken(bq_h5 *h, const char *what);

/* The superblock: sets h->root, and h->size to the end of the file as HDF5 sees it. */
bool bq_h5_load_super(bq_h5 *h);
bool bq_h5_load_object(bq_h5 *h, uint64_t at, bq_h5_object *object);
/* The next message of this type at or behind *from, which moves behind it. */
bq_h5_part bq_h5_message(const bq_h5_object *object, unsigned type, size_t *from);
/* All names of the group at a place into h->group; name is for messages. */
bool bq_h5_load_group(bq_h5 *h, uint64_t at, const char *name);

#endif
