/* SPDX-License-Identifier: Apache-2.0 */
#include "io/json.h"

#include "base/die.h"
#include "base/hash.h"
#include "io/files.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The deepest nesting.  It is counted before Jansson reads the text: Jansson recurses, and its own limit is
 * 2048 levels. */
static int depth_of(const char *text, size_t bytes) {
    int depth = 0, deepest = 0;
    bool quoted = false;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted)
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (depth > deepest) deepest = depth;
    }
    return deepest;
}

int bq_json_parse(const char *path, const char *text, size_t bytes, json_t **out) {
    json_error_t error;
    *out = NULL;
    if (depth_of(text, bytes) > BQ_JSON_DEPTH)
        return bq_refuse(BQ_DATA, "%s: JSON nested deeper than %d levels", path, BQ_JSON_DEPTH);
    if (memchr(text, 0, bytes)) return bq_refuse(BQ_DATA, "%s: not valid JSON: it has a zero byte", path);
    json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        BQ_CHECK(json_error_code(&error) != json_error_out_of_memory, "no memory to read '%s'", path);
        return bq_refuse(BQ_DATA, "%s:%d: not valid JSON: %s", path, error.line, error.text);
    }
    if (json_is_object(value)) return *out = value, BQ_OK;
    json_decref(value);
    return bq_refuse(BQ_DATA, "%s: not a JSON object", path);
}

int bq_json_read(const char *path, size_t max_bytes, json_t **out) {
    char *text;
    size_t bytes;
    *out = NULL;
    int err = bq_file_read(path, max_bytes, &text, &bytes);
    if (err) return bq_refuse(BQ_DATA, "cannot read '%s': %s", path, bq_file_why(err));
    int rc = bq_json_parse(path, text, bytes, out);
    free(text);
    return rc;
}

void bq_json_refuse(bq_json *from, const char *key, const char *fmt, ...) {
    if (from->status) return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    from->status =
        bq_refuse(from->code ? from->code : BQ_DATA, "%s: %s%s: %s", from->file, from->prefix, key, text);
}

static const json_t *value_of(const bq_json *from, const char *key) {
    const json_t *value = from->status ? NULL : json_object_get(from->object, key);
    return json_is_null(value) ? NULL : value;
}

bool bq_json_has(const bq_json *from, const char *key) { return value_of(from, key) != NULL; }

void bq_json_need(bq_json *from, const char *key) {
    if (!from->status && !bq_json_has(from, key)) bq_json_refuse(from, key, "is missing");
}

void bq_json_int(bq_json *from, const char *key, int64_t low, int64_t high, int64_t *value) {
    const json_t *v = value_of(from, key);
    if (!v) return;
    double real = json_real_value(v);
    bool whole = json_is_real(v) && fabs(real) <= 0x1p53 && real == floor(real);
    int64_t x = whole ? (int64_t)real : json_integer_value(v);
    if (!whole && !json_is_integer(v))
        bq_json_refuse(from, key, "is not an integer");
    else if (x < low || x > high)
        bq_json_refuse(from, key, "%ld is not within %ld .. %ld", (long)x, (long)low, (long)high);
    else
        *value = x;
}

/* Written so that NaN is refused, too. */
static void take_real(bq_json *from, const char *key, const json_t *v, double low, double high,
                      double *value) {
    double x = json_number_value(v);
    if (!json_is_number(v))
        bq_json_refuse(from, key, "is not a number");
    else if (!(x >= low && x <= high))
        bq_json_refuse(from, key, "%g is not within %g .. %g", x, low, high);
    else
        *value = x;
}

void bq_json_real(bq_json *from, const char *key, double low, double high, double *value) {
    const json_t *v = value_of(from, key);
    if (v) take_real(from, key, v, low, high, value);
}

void bq_json_bool(bq_json *from, const char *key, bool *value) {
    const json_t *v = value_of(from, key);
    if (!v) return;
    if (!json_is_boolean(v))
        bq_json_refuse(from, key, "is neither true nor false");
    else
        *value = json_is_true(v);
}

void bq_json_text(bq_json *from, const char *key, const char **value) {
    const json_t *v = value_of(from, key);
    if (!v) return;
    if (!json_is_string(v))
        bq_json_refuse(from, key, "is not a text");
    else
        *value = json_string_value(v);
}

void bq_json_reals(bq_json *from, const char *key, double low, double high, int64_t count, double *value) {
    bq_json_need(from, key);
    const json_t *v = value_of(from, key);
    if (v && (!json_is_array(v) || (int64_t)json_array_size(v) != count))
        bq_json_refuse(from, key, "is not a list of %ld numbers", (long)count);
    if (from->status) return;
    for (int64_t i = 0; i < count; i++)
        take_real(from, key, json_array_get(v, (size_t)i), low, high, value + i);
}

bq_json bq_json_object(bq_json *from, const char *key, char prefix[64]) {
    const json_t *v = value_of(from, key);
    snprintf(prefix, 64, "%.30s%.30s.", from->prefix, key);
    if (v && !json_is_object(v)) {
        bq_json_refuse(from, key, "is not an object");
        v = NULL;
    }
    return (bq_json){v, from->file, prefix, from->code, from->status};
}

void bq_json_join(bq_json *from, const bq_json *inner) {
    if (!from->status) from->status = inner->status;
}

static void put_real(FILE *to, double x) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    fprintf(to, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void put_text(FILE *to, const char *text) {
    json_t *value = json_string(text);
    char *quoted = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    BQ_CHECK(quoted, "no memory for JSON text");
    fputs(quoted, to);
    free(quoted);
    json_decref(value);
}

static void put_value(FILE *to, const json_t *value, int level);

static void put_members(FILE *to, const json_t *value, int level) {
    const char *key;
    json_t *member;
    size_t i;
    int n = 0;
    json_object_foreach((json_t *)(uintptr_t)value, key, member) {
        fprintf(to, "%s\n%*s", n++ ? "," : "", 2 * level + 2, "");
        put_text(to, key);
        fputs(": ", to);
        put_value(to, member, level + 1);
    }
    json_array_foreach(value, i, member) {
        fprintf(to, "%s\n%*s", n++ ? "," : "", 2 * level + 2, "");
        put_value(to, member, level + 1);
    }
    if (n) fprintf(to, "\n%*s", 2 * level, "");
}

static void put_value(FILE *to, const json_t *value, int level) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        fputc(json_is_object(value) ? '{' : '[', to);
        put_members(to, value, level);
        fputc(json_is_object(value) ? '}' : ']', to);
        break;
    case JSON_STRING: put_text(to, json_string_value(value)); break;
    case JSON_INTEGER: fprintf(to, "%" JSON_INTEGER_FORMAT, json_integer_value(value)); break;
    case JSON_REAL: put_real(to, json_real_value(value)); break;
    case JSON_TRUE: fputs("true", to); break;
    case JSON_FALSE: fputs("false", to); break;
    case JSON_NULL: fputs("null", to); break;
    }
}

char *bq_json_text_of(const json_t *value, size_t *bytes) {
    char *text = NULL;
    FILE *to = open_memstream(&text, bytes);
    BQ_CHECK(to, "no memory for JSON text");
    put_value(to, value, 0);
    fputc('\n', to);
    BQ_CHECK(fclose(to) == 0, "no memory for JSON text");
    return text;
}

void bq_json_write(const char *path, const json_t *value) {
    size_t bytes;
    char *text = bq_json_text_of(value, &bytes);
    int err = bq_file_write_atomic(path, text, bytes);
    BQ_CHECK(!err, "write of '%s' failed: %s", path, strerror(err));
    free(text);
}

static const char seal_key[] = "check";

/* XXH3 of the values, whatever their layout in the file.  False: the object cannot be written as text. */
static bool seal_of(const json_t *object, char hex[17]) {
    char *text = json_dumps(object, JSON_COMPACT);
    if (text) snprintf(hex, 17, "%016" PRIx64, bq_hash_text(text));
    free(text);
    return text;
}

int bq_json_write_sealed(const char *path, json_t *object) {
    char hex[17];
    size_t bytes;
    json_object_del(object, seal_key);
    BQ_CHECK(seal_of(object, hex) && json_object_set_new(object, seal_key, json_string(hex)) == 0,
             "no memory for '%s', or a bad name in it", path);
    char *text = bq_json_text_of(object, &bytes);
    int err = bq_file_write_atomic(path, text, bytes);
    free(text);
    return err;
}

json_t *bq_json_read_sealed(const char *path, size_t max_bytes) {
    char *text, hex[17], said[17] = "";
    size_t bytes;
    if (bq_file_read(path, max_bytes, &text, &bytes)) return NULL;
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    const char *seal = json_string_value(json_object_get(object, seal_key));
    if (seal) snprintf(said, sizeof said, "%s", seal);
    json_object_del(object, seal_key);
    if (seal && seal_of(object, hex) && strcmp(said, hex) == 0) return object;
    json_decref(object);
    return NULL;
}
