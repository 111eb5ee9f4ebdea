/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/safetensors.h"

#include "base/die.h"
#include "io/json.h"
#include "io/state/raw.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct {
    const char *name;
    int bits;
} dtypes[] = {
    {"F32", 32},        {"BF16", 16}, {"F16", 16},    {"I32", 32},    {"I64", 64},    {"I8", 8},
    {"U8", 8},          {"BOOL", 8},  {"F64", 64},    {"I16", 16},    {"U16", 16},    {"U32", 32},
    {"U64", 64},        {"C64", 64},  {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6},
};

static int dtype_row(const char *dtype) {
    for (int i = 0; i < (int)(sizeof dtypes / sizeof *dtypes); i++) {
        if (strcmp(dtypes[i].name, dtype) == 0) return i;
    }
    return -1;
}

const char *bq_dtype_name(const char *dtype) {
    int row = dtype_row(dtype);
    return row < 0 ? NULL : dtypes[row].name;
}

int bq_dtype_bits(const char *dtype) {
    int row = dtype_row(dtype);
    return row < 0 ? 0 : dtypes[row].bits;
}

bool bq_dtype_float(const char *dtype, bq_type *type) {
    if (strcmp(dtype, "F32") == 0)
        *type = BQ_F32;
    else if (strcmp(dtype, "BF16") == 0)
        *type = BQ_BF16;
    else if (strcmp(dtype, "F16") == 0)
        *type = BQ_F16;
    else
        return false;
    return true;
}

int64_t bq_tensor_count(const bq_tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->dims; i++) count *= t->shape[i];
    return count;
}

static int compare_names(const void *a, const void *b) {
    const bq_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

void bq_tensors_sort(const bq_tensor **by_name, int count) {
    if (count) qsort(by_name, (size_t)count, sizeof *by_name, compare_names);
}

const bq_tensor *bq_tensors_find(const bq_tensor *const *by_name, int count, const char *name) {
    const bq_tensor wanted = {.name = name}, *key = &wanted;
    if (!count) return NULL;
    const bq_tensor *const *at = bsearch(&key, by_name, (size_t)count, sizeof *by_name, compare_names);
    return at ? *at : NULL;
}

/* A non-negative integer, or -1. */
static int64_t natural(const json_t *v) {
    return json_is_integer(v) && json_integer_value(v) >= 0 ? (int64_t)json_integer_value(v) : -1;
}

/* Fill t->shape.  Returns the bytes of such a tensor, or -1 with *why set. */
static int64_t shape_bytes(bq_tensor *t, const json_t *shape, int bits, const char **why) {
    int64_t count = 1;
    *why = "its shape is not a list of at most 8 sizes";
    if (!json_is_array(shape) || json_array_size(shape) > BQ_TENSOR_DIMS) return -1;
    t->dims = (int)json_array_size(shape);
    for (int i = 0; i < t->dims; i++) {
        int64_t size = natural(json_array_get(shape, (size_t)i));
        if (size < 0) return -1;
        t->shape[i] = size;
        *why = "its shape overflows";
        if (__builtin_mul_overflow(count, size, &count)) return -1;
        *why = "its shape is not a list of at most 8 sizes";
    }
    *why = "its shape overflows";
    if (__builtin_mul_overflow(count, (int64_t)bits, &count)) return -1;
    *why = "it does not fill whole bytes";
    return count % 8 ? -1 : count / 8;
}

/* Fill t from one entry of the header.  data: size of the data buffer, start: its offset in the file.
 * Returns NULL, or what is wrong. */
static const char *entry(bq_tensor *t, const json_t *v, size_t data, size_t start) {
    const char *why, *dtype = json_string_value(json_object_get(v, "dtype"));
    const json_t *range = json_object_get(v, "data_offsets");
    if (!dtype) return "it has no dtype";
    t->dtype = bq_dtype_name(dtype);
    if (!t->dtype) return "its dtype is unknown";
    int64_t bytes = shape_bytes(t, json_object_get(v, "shape"), bq_dtype_bits(dtype), &why);
    if (bytes < 0) return why;
    if (!json_is_array(range) || json_array_size(range) != 2) return "data_offsets is not a pair";
    int64_t begin = natural(json_array_get(range, 0)), end = natural(json_array_get(range, 1));
    if (begin < 0 || end < begin) return "data_offsets is not a range";
    if ((uint64_t)end > data) return "its data lie beyond the end of the file (truncated?)";
    if (end - begin != bytes) return "dtype and shape do not match the length of its data";
    t->offset = start + (size_t)begin;
    t->bytes = (size_t)bytes;
    return NULL;
}

static int by_place(const void *a, const void *b) {
    const bq_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty tensors first */
    return strcmp(x->name, y->name);
}

static int metadata_check(const char *path, const json_t *meta) {
    const char *key;
    json_t *v;
    if (!json_is_object(meta)) return bq_refuse(BQ_DATA, "%s: %s is not an object", path, BQ_METADATA_KEY);
    json_object_foreach((json_t *)(uintptr_t)meta, key, v) {
        if (!json_is_string(v)) {
            return bq_refuse(BQ_DATA, "%s: %s: '%.100s' is not a text", path, BQ_METADATA_KEY, key);
        }
    }
    return BQ_OK;
}

/* List all entries in order of their bytes: without gaps or overlaps from start to the file's end. */
static int list(bq_safetensors *s, const char *path, size_t start) {
    const char *key;
    json_t *v;
    s->at = calloc(json_object_size(s->header) + 1, sizeof *s->at);
    BQ_CHECK(s->at, "no memory for %zu tensors", json_object_size(s->header));
    json_object_foreach(s->header, key, v) {
        if (strcmp(key, BQ_METADATA_KEY) == 0) {
            int rc = metadata_check(path, v);
            if (rc) return rc;
            continue;
        }
        bq_tensor *t = &s->at[s->count++];
        t->name = key;
        const char *why = entry(t, v, s->bytes - start, start);
        if (why) return bq_refuse(BQ_DATA, "%s: tensor '%.200s': %s", path, key, why);
    }
    qsort(s->at, (size_t)s->count, sizeof *s->at, by_place);
    size_t end = start;
    for (int i = 0; i < s->count; i++) {
        const bq_tensor *t = &s->at[i];
        if (t->offset != end) {
            return bq_refuse(BQ_DATA, "%s: tensor '%.200s': %s before its data", path, t->name,
                             t->offset < end ? "an overlap" : "a hole");
        }
        end += t->bytes;
    }
    if (end == s->bytes) return BQ_OK;
    return bq_refuse(BQ_DATA, "%s: %zu bytes after the last tensor", path, s->bytes - end);
}

int bq_safetensors_parse(bq_safetensors *s, const char *path, const char *text, size_t bytes,
                         size_t file_bytes) {
    *s = (bq_safetensors){.bytes = file_bytes};
    BQ_CHECK(file_bytes >= 8 + bytes, "%s: a header of %zu in %zu bytes", path, bytes, file_bytes);
    if (!bytes || text[0] != '{') return bq_refuse(BQ_DATA, "%s: the header does not begin with '{'", path);
    int rc = bq_json_parse(path, text, bytes, &s->header);
    if (!rc) rc = list(s, path, 8 + bytes);
    if (rc) bq_safetensors_close(s);
    return rc;
}

int bq_safetensors_read(bq_safetensors *s, int fd, const char *path) {
    struct stat st;
    uint64_t n;
    *s = (bq_safetensors){0};
    if (fstat(fd, &st)) return bq_refuse(BQ_DATA, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return bq_refuse(BQ_DATA, "cannot read '%s': not a file", path);
    size_t size = (size_t)st.st_size;
    if (size < 8) return bq_refuse(BQ_DATA, "%s: %zu bytes are too few for a safetensors file", path, size);
    if (!bq_raw_read(fd, &n, 8, 0)) return bq_refuse(BQ_DATA, "cannot read '%s': %s", path, strerror(errno));
    n = le64toh(n);
    if (n > BQ_HEADER_MAX || n > size - 8) {
        return bq_refuse(BQ_DATA,
                         "%s: header of %llu bytes, allowed are %zu (not a safetensors file, or truncated?)",
                         path, (unsigned long long)n, size - 8 < BQ_HEADER_MAX ? size - 8 : BQ_HEADER_MAX);
    }
    char *text = malloc((size_t)n + 1);
    BQ_CHECK(text, "no memory for a header of %zu bytes", (size_t)n);
    int rc = bq_raw_read(fd, text, (size_t)n, 8)
                 ? bq_safetensors_parse(s, path, text, (size_t)n, size)
                 : bq_refuse(BQ_DATA, "cannot read '%s': %s", path, strerror(errno));
    free(text);
    return rc;
}

void bq_safetensors_close(bq_safetensors *s) {
    free(s->at);
    json_decref(s->header);
    *s = (bq_safetensors){0};
}

/* A plain name cannot lead out of the directory, whatever it is joined to. */
static bool plain(const char *file) {
    size_t n = file ? strlen(file) : 0;
    return n > 12 && n < 256 && file[0] != '.' && !strchr(file, '/') &&
           strcmp(file + n - 12, ".safetensors") == 0;
}

int bq_index_parse(const char *path, const char *text, size_t bytes, json_t **map) {
    json_t *index, *v;
    const char *key;
    *map = NULL;
    int rc = bq_json_parse(path, text, bytes, &index);
    if (rc) return rc;
    json_t *weights = json_object_get(index, "weight_map");
    if (!json_is_object(weights) || json_object_size(weights) == 0) {
        rc = bq_refuse(BQ_DATA, "%s: weight_map is missing or empty", path);
    }
    json_object_foreach(weights, key, v) {
        if (rc || plain(json_string_value(v))) continue;
        rc = bq_refuse(BQ_DATA, "%s: tensor '%.200s' is not in a file of this directory: '%.200s'", path, key,
                       json_is_string(v) ? json_string_value(v) : "(no text)");
    }
    if (!rc) *map = json_incref(weights);
    json_decref(index);
    return rc;
}
