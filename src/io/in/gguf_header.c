/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf_header.h"

#include "base/die.h"
#include "io/in/gguf_blocks.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP ((size_t)1 << 18) /* bytes of the header that are read at a time */

typedef unsigned long long big; /* for messages */

/* The header while it is read from its start on.  After the first refusal nothing more happens: numbers are 0
 * and names are "". */
typedef struct {
    const char *path;
    int fd, status;
    size_t file, limit; /* bytes of the file; most bytes of its header */
    uint8_t *data;      /* room for limit bytes: it does not move, and costs memory only where it is filled */
    size_t have, at;    /* bytes read; how far they are used */
} cursor;

static void refuse(cursor *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void refuse(cursor *c, const char *fmt, ...) {
    if (c->status) return;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->status = bq_refuse(BQ_DATA, "%s: %s", c->path, text);
}

/* The next n bytes, or NULL.  what: the message says what they are. */
static uint8_t *take(cursor *c, uint64_t n, const char *what) {
    if (!c->status && n > c->file - c->at) {
        refuse(c, "%s at byte %zu has %llu bytes, the file only %zu (truncated?)", what, c->at, (big)n,
               c->file);
    }
    if (!c->status && n > c->limit - c->at) {
        refuse(c, "%s at byte %zu ends beyond byte %zu: the header is too large", what, c->at, c->limit);
    }
    while (!c->status && c->have - c->at < n) {
        size_t want = c->limit - c->have < STEP ? c->limit - c->have : STEP;
        ssize_t got = pread(c->fd, c->data + c->have, want, (off_t)c->have);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) refuse(c, "cannot be read: %s", got < 0 ? strerror(errno) : strerror(ENODATA));
        if (got > 0) c->have += (size_t)got;
    }
    if (c->status) return NULL;
    c->at += (size_t)n;
    return c->data + c->at - n;
}

uint64_t bq_gguf_number(const uint8_t *at, size_t bytes) {
    uint64_t x = 0;
    for (size_t i = bytes; i-- > 0;) x = x << 8 | at[i];
    return x;
}

static uint64_t number(cursor *c, size_t bytes, const char *what) {
    const uint8_t *at = take(c, bytes, what);
    return at ? bq_gguf_number(at, bytes) : 0;
}

/* A name.  Its bytes move one place down, over the length that is known now, to make room for a closing 0. */
static const char *name_of(cursor *c, const char *what) {
    uint64_t n = number(c, 8, what);
    if (n < 1 || n > BQ_GGUF_NAME)
        refuse(c, "%s at byte %zu has %llu bytes, 1 to %d are allowed", what, c->at, (big)n, BQ_GGUF_NAME);
    uint8_t *at = take(c, n, what);
    if (at && memchr(at, 0, (size_t)n)) refuse(c, "%s before byte %zu has a zero byte in it", what, c->at);
    if (c->status) return "";
    memmove(at - 1, at, (size_t)n);
    at[n - 1] = 0;
    return (const char *)at - 1;
}

/* ---- keys ---- */

size_t bq_gguf_value_bytes(uint32_t type) {
    static const uint8_t bytes[] = {
        [BQ_GGUF_U8] = 1,  [BQ_GGUF_I8] = 1,   [BQ_GGUF_U16] = 2,  [BQ_GGUF_I16] = 2, [BQ_GGUF_U32] = 4,
        [BQ_GGUF_I32] = 4, [BQ_GGUF_F32] = 4,  [BQ_GGUF_BOOL] = 1, [BQ_GGUF_U64] = 8, [BQ_GGUF_I64] = 8,
        [BQ_GGUF_F64] = 8, [BQ_GGUF_TEXT] = 0, [BQ_GGUF_LIST] = 0};
    return type < sizeof bytes ? bytes[type] : 0;
}

static void read_value(cursor *c, bq_gguf_value *v) {
    v->key = name_of(c, "the name of a key");
    v->type = (uint32_t)number(c, 4, "a type");
    v->count = 1;
    v->list = v->type == BQ_GGUF_LIST;
    if (v->list) {
        v->type = (uint32_t)number(c, 4, "a type");
        v->count = number(c, 8, "the length of a list");
    }
    if (v->list && v->type == BQ_GGUF_LIST) refuse(c, "key '%.200s': it is a list of lists", v->key);
    if (v->type > BQ_GGUF_F64) refuse(c, "key '%.200s': its type %u is unknown", v->key, v->type);
    if (c->status) return;
    v->data = c->data + c->at;
    size_t bytes = bq_gguf_value_bytes(v->type);
    if (!bytes) { /* every text takes 8 bytes at least, so a count that lies soon meets the end of the file */
        for (uint64_t i = 0; i < v->count && !c->status; i++)
            take(c, number(c, 8, "the length of a text"), "a text");
    } else if (v->count > (c->file - c->at) / bytes) {
        refuse(c, "key '%.200s': %llu values of %zu bytes, the rest of the file has %zu (truncated?)", v->key,
               (big)v->count, bytes, c->file - c->at);
    } else {
        take(c, v->count * bytes, "a value");
    }
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const bq_gguf_value *)a)->key, ((const bq_gguf_value *)b)->key);
}

static void read_values(cursor *c, bq_gguf_header *h) {
    for (int i = 0; i < h->values && !c->status; i++) read_value(c, &h->value[i]);
    if (c->status) return;
    qsort(h->value, (size_t)h->values, sizeof *h->value, by_key);
    for (int i = 1; i < h->values; i++) {
        if (by_key(&h->value[i - 1], &h->value[i]) == 0)
            refuse(c, "key '%.200s' is there twice", h->value[i].key);
    }
}

const bq_gguf_value *bq_gguf_value_of(const bq_gguf_header *h, const char *key) {
    bq_gguf_value wanted = {.key = key};
    return h->values ? bsearch(&wanted, h->value, (size_t)h->values, sizeof wanted, by_key) : NULL;
}

/* ---- tensors ---- */

/* Bytes of a tensor of this type and of t's shape; 0 after a refusal. */
static size_t tensor_bytes(cursor *c, const bq_tensor *t, const bq_gguf_type *type) {
    int64_t count = 1, bytes, row = t->shape[t->dims - 1];
    if (row % type->elements)
        refuse(c, "tensor '%.200s': rows of %lld are no whole blocks of %d, as %s has them", t->name,
               (long long)row, type->elements, type->name);
    for (int i = 0; i < t->dims; i++) {
        if (__builtin_mul_overflow(count, t->shape[i], &count)) {
            refuse(c, "tensor '%.200s': its shape overflows at size %lld", t->name, (long long)t->shape[i]);
            return 0;
        }
    }
    if (__builtin_mul_overflow(count / type->elements, (int64_t)type->bytes, &bytes))
        refuse(c, "tensor '%.200s': its bytes overflow: %lld values", t->name, (long long)count);
    return c->status ? 0 : (size_t)bytes;
}

static void read_tensor(cursor *c, bq_tensor *t) {
    t->name = name_of(c, "the name of a tensor");
    uint64_t dims = number(c, 4, "a number of dimensions"), size;
    if (dims < 1 || dims > BQ_GGUF_DIMS)
        refuse(c, "tensor '%.200s': %llu dimensions, 1 to %d are allowed", t->name, (big)dims, BQ_GGUF_DIMS);
    if (c->status) return;
    t->dims = (int)dims;
    for (int i = t->dims; i-- > 0;) {
        size = number(c, 8, "a size");
        if (size < 1 || size > INT64_MAX)
            refuse(c, "tensor '%.200s': a size of %llu is not allowed", t->name, (big)size);
        t->shape[i] = (int64_t)size;
    }
    uint32_t number_of = (uint32_t)number(c, 4, "a type");
    t->offset = number(c, 8, "a place");
    const bq_gguf_type *type = bq_gguf_type_of(number_of);
    if (!type) refuse(c, "tensor '%.200s': blockq does not read its type, %u", t->name, number_of);
    if (c->status) return;
    t->dtype = type->name;
    t->bytes = tensor_bytes(c, t, type);
}

static size_t alignment(cursor *c, const bq_gguf_header *h) {
    const bq_gguf_value *v = bq_gguf_value_of(h, "general.alignment");
    if (!v) return 32;
    size_t bytes = v->list || v->type == BQ_GGUF_F64 ? 0 : bq_gguf_value_bytes(v->type);
    uint64_t align = bytes ? bq_gguf_number(v->data, bytes) : 0;
    if (v->type != BQ_GGUF_U32 || align < 1 || align > 65536 || (align & (align - 1)))
        refuse(c, "general.alignment: %llu (type %u) is no u32 that is a power of two up to 65536",
               (big)align, v->type);
    return c->status ? 1 : (size_t)align;
}

static int by_place(const void *a, const void *b) {
    const bq_tensor *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Make places relative to the file, and check them. */
static void place(cursor *c, bq_gguf_header *h) {
    size_t align = alignment(c, h), start = (c->at + align - 1) / align * align;
    for (int i = 0; i < h->tensors && !c->status; i++) {
        bq_tensor *t = &h->tensor[i];
        if (t->offset % align)
            refuse(c, "tensor '%.200s': its place %zu is no multiple of %zu", t->name, t->offset, align);
        if (start > c->file || t->offset > c->file - start || t->bytes > c->file - start - t->offset)
            refuse(c,
                   "tensor '%.200s': %zu bytes at %zu + %zu lie beyond the end of the file, %zu (truncated?)",
                   t->name, t->bytes, start, t->offset, c->file);
        t->offset += start;
    }
    if (c->status) return;
    qsort(h->tensor, (size_t)h->tensors, sizeof *h->tensor, by_place);
    for (int i = 1; i < h->tensors; i++) {
        const bq_tensor *t = &h->tensor[i - 1], *next = t + 1;
        if (next->offset < t->offset + t->bytes)
            refuse(c, "tensor '%.200s': its data begin at byte %zu, those of '%.200s' end at %zu", next->name,
                   next->offset, t->name, t->offset + t->bytes);
    }
}

/* ---- */

/* A count, each of which takes at least this many bytes of the file. */
static int count_of(cursor *c, int most, size_t bytes, const char *what) {
    uint64_t n = number(c, 8, "a count");
    if (n > (uint64_t)most) refuse(c, "%llu %s, at most %d are allowed", (big)n, what, most);
    if (n > c->file / bytes) refuse(c, "%llu %s in a file of %zu bytes (truncated?)", (big)n, what, c->file);
    return c->status ? 0 : (int)n;
}

static void read_all(cursor *c, bq_gguf_header *h) {
    const uint8_t *magic = take(c, 4, "the word GGUF");
    if (magic && memcmp(magic, "GGUF", 4) != 0)
        refuse(c, "it does not begin with 'GGUF', so it is no GGUF file");
    uint32_t version = (uint32_t)number(c, 4, "the version");
    if (version != 2 && version != 3) refuse(c, "version %u of GGUF, only 2 and 3 are read", version);
    h->tensors = count_of(c, BQ_GGUF_TENSORS, 33, "tensors");
    h->values = count_of(c, BQ_GGUF_KEYS, 14, "keys");
    if (c->status) return;
    h->value = calloc((size_t)h->values + 1, sizeof *h->value);
    h->tensor = calloc((size_t)h->tensors + 1, sizeof *h->tensor);
    BQ_CHECK(h->value && h->tensor, "no memory for %d keys and %d tensors", h->values, h->tensors);
    read_values(c, h);
    for (int i = 0; i < h->tensors && !c->status; i++) read_tensor(c, &h->tensor[i]);
    if (!c->status) place(c, h);
}

/* Move the header to memory of its own size: a model may have hundreds of parts. */
static void fit(const cursor *c, bq_gguf_header *h) {
    uint8_t *exact = malloc(c->at + 1);
    BQ_CHECK(exact, "no memory for a header of %zu bytes", c->at);
    memcpy(exact, h->bytes, c->at);
    for (int i = 0; i < h->values; i++) {
        bq_gguf_value *v = &h->value[i];
        v->key = (const char *)exact + ((const uint8_t *)v->key - h->bytes);
        v->data = exact + (v->data - h->bytes);
    }
    for (int i = 0; i < h->tensors; i++)
        h->tensor[i].name = (const char *)exact + ((const uint8_t *)h->tensor[i].name - h->bytes);
    free(h->bytes);
    h->bytes = exact;
}

int bq_gguf_header_read(bq_gguf_header *h, int fd, const char *path) {
    struct stat st;
    *h = (bq_gguf_header){0};
    if (fstat(fd, &st)) return bq_refuse(BQ_DATA, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return bq_refuse(BQ_DATA, "cannot read '%s': not a file", path);
    cursor c = {.path = path, .fd = fd, .file = (size_t)st.st_size};
    c.limit = c.file < BQ_HEADER_MAX ? c.file : BQ_HEADER_MAX;
    c.data = h->bytes = malloc(c.limit + 1);
    BQ_CHECK(c.data, "no memory for a header of %zu bytes", c.limit);
    h->file_bytes = c.file;
    read_all(&c, h);
    if (c.status)
        bq_gguf_header_close(h);
    else
        fit(&c, h);
    return c.status;
}

void bq_gguf_header_close(bq_gguf_header *h) {
    free(h->bytes);
    free(h->value);
    free(h->tensor);
    *h = (bq_gguf_header){0};
}
