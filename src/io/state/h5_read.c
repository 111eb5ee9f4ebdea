/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "io/files.h"
#include "io/state/h5_strict.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 255, MAX_RANK = 32 };

/* Classes of types, by HDF5's numbers. */
enum { INTEGER = 0, STRING = 3 };

bool bq_h5_refuse(bq_h5 *h, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (!h->why[0]) vsnprintf(h->why, sizeof h->why, fmt, ap);
    va_end(ap);
    return false;
}

bool bq_h5_shape_bytes(bq_type type, int rank, const int64_t *shape, int64_t *bytes) {
    *bytes = (int64_t)bq_type_size(type);
    for (int i = 0; i < rank; i++)
        if (shape[i] <= 0 || __builtin_mul_overflow(*bytes, shape[i], bytes)) return false;
    return true;
}

static bool open_raw(bq_h5 *h, int flags, uint64_t *tag) {
    struct stat st;
    int err =
        flags == O_RDONLY ? bq_file_open(h->path, flags, &h->fd) : bq_file_open_own(h->path, flags, &h->fd);
    h->absent = err == ENOENT;
    if (!err && fstat(h->fd, &st)) err = errno;
    if (!err && bq_fault("h5_open")) err = EIO;
    if (err) return bq_h5_refuse(h, "%s", bq_file_why(err));
    h->size = st.st_size;
    if (tag && !bq_seal_check(h->fd, true, &h->size, tag))
        return bq_h5_refuse(h, "damaged or incomplete: its seal does not agree");
    return true;
}

static bool open_as(bq_h5 *h, const char *path, int flags, uint64_t *tag) {
    *h = (bq_h5){.fd = -1, .path = bq_text_copy(path)};
    if (open_raw(h, flags, tag) && bq_h5_load_super(h) && bq_h5_get_group(h, NULL)) return true;
    bq_h5_close(h);
    return false;
}

bool bq_h5_open(bq_h5 *h, const char *path, uint64_t *tag) { return open_as(h, path, O_RDONLY, tag); }
bool bq_h5_open_rw(bq_h5 *h, const char *path) { return open_as(h, path, O_RDWR, NULL); }

int bq_h5_take(bq_h5 *h) {
    int fd = h->fd;
    h->fd = -1;
    bq_h5_close(h);
    return fd;
}

/* The number of the entry with that name, or -1. */
static int find(const bq_h5 *h, const char *name) {
    int i = h->group->count;
    while (i-- > 0 && strcmp(h->group->entry[i].name, name)) {}
    return i;
}

/* The offset of an object.  A link that is not hard may lead to another file, so it is refused. */
static bool linked(bq_h5 *h, const char *name, uint64_t *at) {
    int i = find(h, name);
    if (i < 0) return bq_h5_refuse(h, "'%s' is missing", name);
    if (!h->group->entry[i].hard) return bq_h5_refuse(h, "'%s' is a link to elsewhere", name);
    *at = h->group->entry[i].at;
    return true;
}

bool bq_h5_get_group(bq_h5 *h, const char *name) {
    uint64_t at = 0;
    if (h->why[0] || !bq_h5_load_group(h, h->root, "/")) return false;
    return !name || (linked(h, name, &at) && bq_h5_load_group(h, at, name));
}

bool bq_h5_has_data(bq_h5 *h, const char *name) { return !h->why[0] && find(h, name) >= 0; }

/* Read a dataspace: the number of dimensions, and where their sizes are (8 bytes each). */
static bool get_space(bq_h5 *h, bq_h5_part m, int *rank, const uint8_t **size) {
    if (m.bytes < 8 || m.at[0] != 1 || m.at[1] > MAX_RANK || m.at[2] > 1 ||
        m.bytes < 8 + 8u * m.at[1] * (1u + m.at[2]))
        return bq_h5_broken(h, "a dataspace");
    *rank = m.at[1], *size = m.at + 8;
    return true;
}

/* An attribute: its type and its value. */
typedef struct {
    bq_h5_part type;
    const uint8_t *value;
    size_t bytes;
    int kind; /* class of its type */
} attribute;

/* Split an attribute into name, type, dataspace and value, which follow each other; in version 1 each is
 * padded to 8 bytes. */
static bool split(bq_h5 *h, bq_h5_part m, bq_h5_part part[4]) {
    unsigned version = m.bytes > 9 ? m.at[0] : 0;
    if (version < 1 || version > 3 || m.at[1]) return bq_h5_broken(h, "an attribute");
    size_t pad = version == 1 ? 7 : 0, at = version == 3 ? 9 : 8;
    for (int i = 0; i < 3; i++) {
        size_t bytes = bq_h5_number(m.at + 2 + 2 * i, 2), whole = (bytes + pad) & ~pad;
        if (whole > m.bytes - at) return bq_h5_broken(h, "an attribute");
        part[i] = (bq_h5_part){m.at + at, bytes};
        at += whole;
    }
    part[3] = (bq_h5_part){m.at + at, m.bytes - at};
    if (part[0].bytes < 1 || part[0].at[part[0].bytes - 1]) return bq_h5_broken(h, "an attribute's name");
    return true;
}

static bool get_attribute(bq_h5 *h, const char *name, attribute *a) {
    bq_h5_part m, part[4];
    size_t from = 0;
    int rank = 0;
    const uint8_t *size = NULL;
    if (h->why[0]) return false;
    do {
        m = bq_h5_message(&h->group->object, BQ_H5_ATTRIBUTE, &from);
        if (!m.at) return bq_h5_refuse(h, "attribute '%s' is missing", name);
        if (!split(h, m, part)) return false;
    } while (strcmp((const char *)part[0].at, name));
    if (!get_space(h, part[2], &rank, &size)) return false;
    for (int i = 0; i < rank; i++)
        if (bq_h5_number(size + 8 * i, 8) != 1)
            return bq_h5_refuse(h, "attribute '%s' is not a single value", name);
    if (part[1].bytes < 8 || part[1].at[0] >> 4 != 1) return bq_h5_broken(h, "a type");
    *a = (attribute){part[1], part[3].at, bq_h5_number(part[1].at + 4, 4), part[1].at[0] & 15};
    return part[3].bytes >= a->bytes || bq_h5_broken(h, "an attribute's value");
}

/* Is it an integer of 1 to 8 whole bytes, in either order, signed or not? */
static bool is_integer(const attribute *a) {
    const uint8_t *t = a->type.at;
    return a->kind == INTEGER && a->bytes >= 1 && a->bytes <= 8 && a->type.bytes >= 12 && (t[1] & ~9) == 0 &&
           bq_h5_number(t + 8, 2) == 0 && bq_h5_number(t + 10, 2) == 8 * a->bytes;
}

bool bq_h5_get_int(bq_h5 *h, const char *name, int64_t min, int64_t max, int64_t *value) {
    attribute a;
    uint8_t bytes[8] = {0};
    if (!get_attribute(h, name, &a)) return false;
    if (!is_integer(&a)) return bq_h5_refuse(h, "attribute '%s' is not an integer", name);
    bool swapped = a.type.at[1] & 1, is_signed = a.type.at[1] & 8;
    for (size_t i = 0; i < a.bytes; i++) bytes[i] = a.value[swapped ? a.bytes - 1 - i : i];
    if (is_signed && bytes[a.bytes - 1] & 128) memset(bytes + a.bytes, 255, 8 - a.bytes);
    int64_t got = (int64_t)bq_h5_number(bytes, 8);
    bool huge = !is_signed && got < 0;
    if (huge) got = INT64_MAX;
    if (huge || got < min || got > max)
        return bq_h5_refuse(h, "attribute '%s' is %" PRId64 ", outside %" PRId64 " .. %" PRId64, name, got,
                            min, max);
    *value = got;
    return true;
}

/* No control characters: texts are printed on terminals. */
static bool printable(const char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 32 || *text == 127) return false;
    return true;
}

bool bq_h5_get_text(bq_h5 *h, const char *name, char *out, size_t size) {
    enum { SPACES = 2 };
    char text[MAX_TEXT + 1] = "";
    attribute a;
    if (!get_attribute(h, name, &a)) return false;
    if (a.kind != STRING)
        return bq_h5_refuse(h, "attribute '%s' is not a string of fixed length (in h5py: numpy.bytes_)",
                            name);
    if (a.bytes > MAX_TEXT) return bq_h5_refuse(h, "attribute '%s' is %zu bytes long", name, a.bytes);
    memcpy(text, a.value, a.bytes);
    size_t n = strlen(text);
    for (; (a.type.at[1] & 15) == SPACES && n > 0 && text[n - 1] == ' '; n--) text[n - 1] = 0;
    if (n >= size) return bq_h5_refuse(h, "attribute '%s' is longer than %zu", name, size - 1);
    if (!printable(text)) return bq_h5_refuse(h, "attribute '%s' has control characters", name);
    memcpy(out, text, n + 1);
    return true;
}

bool bq_h5_get_hex(bq_h5 *h, const char *name, uint64_t *value) {
    char text[17] = "";
    if (!bq_h5_get_text(h, name, text, sizeof text)) return false;
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return bq_h5_refuse(h, "attribute '%s' is not 16 hexadecimal digits", name);
    *value = strtoull(text, NULL, 16);
    return true;
}

int bq_h5_get_head(bq_h5 *h, const char *format, int oldest, int version, uint64_t fingerprint) {
    char kind[64];
    int64_t number;
    uint64_t print = 0;
    if (!bq_h5_get_text(h, "format", kind, sizeof kind)) return BQ_H5_TORN;
    if (strcmp(kind, format))
        return bq_h5_refuse(h, "its format is '%s', not '%s'", kind, format), BQ_H5_TORN;
    if (!bq_h5_get_int(h, "version", 1, INT32_MAX, &number)) return BQ_H5_TORN;
    if (number < oldest || number > version)
        return bq_h5_refuse(h, "its version is %" PRId64 ", not %d%s", number, version,
                            number > version ? ": a later blockq made it, and can read it" : ""),
               BQ_H5_FOREIGN;
    if (!bq_h5_get_hex(h, "fingerprint", &print)) return BQ_H5_TORN;
    if (print == fingerprint) return BQ_H5_OK;
    bq_h5_refuse(h, "its fingerprint is %016" PRIx64 ", not %016" PRIx64, print, fingerprint);
    return BQ_H5_FOREIGN;
}

/* Is it HDF5's description of this type: class, order and sign, size, precision, a float's exponent and
 * mantissa? */
static bool is_type(bq_h5_part m, bq_type type) {
    static const uint8_t f32[20] = {0x11, 0x20, 31, 0, 4, [10] = 32, [12] = 23, 8, 0, 23, 127};
    static const uint8_t f64[20] = {0x11, 0x20, 63, 0, 8, [10] = 64, [12] = 52, 11, 0, 52, 255, 3};
    uint8_t size = (uint8_t)bq_type_size(type);
    const uint8_t integer[12] = {0x10, type == BQ_U8 ? 0 : 8, 0, 0, size, [10] = (uint8_t)(8 * size)};
    bool real = type == BQ_F32 || type == BQ_F64;
    const uint8_t *expected = type == BQ_F32 ? f32 : type == BQ_F64 ? f64 : integer;
    size_t bytes = real ? sizeof f32 : sizeof integer;
    return m.bytes >= bytes && memcmp(m.at, expected, bytes) == 0;
}

static bool describe(bq_h5 *h, const bq_h5_object *o, const char *name, bq_type type, int rank,
                     int64_t *shape) {
    size_t from[2] = {0};
    int dims = 0;
    const uint8_t *size = NULL;
    bq_h5_part space = bq_h5_message(o, BQ_H5_SPACE, &from[0]), kind = bq_h5_message(o, BQ_H5_TYPE, &from[1]);
    if (!space.at || !kind.at) return bq_h5_refuse(h, "'%s' is not a dataset", name);
    if (!is_type(kind, type)) return bq_h5_refuse(h, "'%s' is not of type %s", name, bq_type_name(type));
    if (!get_space(h, space, &dims, &size)) return false;
    if (dims != rank) return bq_h5_refuse(h, "'%s' has %d dimensions, not %d", name, dims, rank);
    for (int i = 0; i < rank; i++) shape[i] = (int64_t)bq_h5_number(size + 8 * i, 8);
    return true;
}

bool bq_h5_get_data(bq_h5 *h, const char *name, bq_type type, int rank, int64_t *shape, int64_t *offset) {
    bq_h5_object o;
    size_t from[3] = {0};
    uint64_t at = 0;
    int64_t bytes;
    if (h->why[0] || !linked(h, name, &at) || !bq_h5_load_object(h, at, &o) ||
        !describe(h, &o, name, type, rank, shape))
        return false;
    bq_h5_part layout = bq_h5_message(&o, BQ_H5_LAYOUT, &from[0]);
    if (layout.bytes < 18 || layout.at[0] != 3 || layout.at[1] != 1 ||
        bq_h5_message(&o, BQ_H5_EXTERNAL, &from[1]).at || bq_h5_message(&o, BQ_H5_FILTER, &from[2]).at)
        return bq_h5_refuse(h, "'%s' is not stored contiguously", name);
    if (!bq_h5_shape_bytes(type, rank, shape, &bytes))
        return bq_h5_refuse(h, "'%s' is empty or too large", name);
    if (bq_h5_number(layout.at + 10, 8) != (uint64_t)bytes) return bq_h5_broken(h, "the size of data");
    at = bq_h5_number(layout.at + 2, 8);
    if (at > (uint64_t)h->size || bytes > h->size - (int64_t)at)
        return bq_h5_refuse(h, "'%s' reaches beyond the end of the file", name);
    *offset = (int64_t)at;
    return true;
}

void bq_h5_detach(bq_h5 *h) {
    free(h->group);
    h->group = NULL;
}

bool bq_h5_read(bq_h5 *h, int64_t offset, bq_mat m) {
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    int64_t runs = m.ld == m.cols ? 1 : m.rows;
    if (h->why[0]) return false;
    if (runs == 1) row *= (size_t)m.rows;
    BQ_CHECK(m.place != BQ_DEVICE, "a file is read into host memory");
    for (int64_t r = 0; r < runs; r++)
        if (bq_fault("h5_read") ? (errno = EIO, true)
                                : !bq_raw_read(h->fd, bq_mat_at(m, r, 0), row, offset + r * (int64_t)row))
            return bq_h5_refuse(h, "read failed: %s", strerror(errno));
    return true;
}

void bq_h5_must_read(bq_h5 *h, int64_t offset, bq_mat to) {
    if (!bq_h5_read(h, offset, to)) BQ_DIE("'%s': %s", h->path, h->why);
}
