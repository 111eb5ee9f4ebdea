/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf_keys.h"

#include "base/die.h"
#include "base/num.h"

#include <stdarg.h>
#include <stdio.h>

void bq_gguf_refuse(bq_gguf_keys *k, const char *key, const char *fmt, ...) {
    if (k->status) return;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    k->status = bq_refuse(BQ_DATA, "%s: %s: %s", k->file, key, text);
}

static const bq_gguf_value *value_of(const bq_gguf_keys *k, const char *key) {
    return k->status ? NULL : bq_gguf_value_of(k->header, key);
}

bool bq_gguf_has(const bq_gguf_keys *k, const char *key) { return value_of(k, key) != NULL; }

void bq_gguf_need(bq_gguf_keys *k, const char *key) {
    if (!k->status && !bq_gguf_has(k, key)) bq_gguf_refuse(k, key, "is missing");
}

/* ---- one item ---- */

static void take_int(bq_gguf_keys *k, const char *key, uint32_t type, const uint8_t *at, int64_t low,
                     int64_t high, int64_t *value) {
    size_t bytes = bq_gguf_value_bytes(type);
    if (!bytes || type == BQ_GGUF_F32 || type == BQ_GGUF_F64 || type == BQ_GGUF_BOOL) {
        bq_gguf_refuse(k, key, "is not an integer (type %u)", type);
        return;
    }
    uint64_t u = bq_gguf_number(at, bytes);
    bool sign = type == BQ_GGUF_I8 || type == BQ_GGUF_I16 || type == BQ_GGUF_I32 || type == BQ_GGUF_I64;
    unsigned unused = 64 - 8 * (unsigned)bytes;
    int64_t x = sign ? (int64_t)(u << unused) >> unused : (int64_t)u;
    if ((!sign && u > INT64_MAX) || x < low || x > high) {
        bq_gguf_refuse(k, key, sign ? "%lld is not within %lld .. %lld" : "%llu is not within %lld .. %lld",
                       (long long)x, (long long)low, (long long)high);
        return;
    }
    *value = x;
}

/* Written so that NaN is refused, too. */
static void take_real(bq_gguf_keys *k, const char *key, uint32_t type, const uint8_t *at, double low,
                      double high, double *value) {
    double x = 0;
    if (type == BQ_GGUF_F32) {
        x = (double)bq_float((uint32_t)bq_gguf_number(at, 4));
    } else if (type == BQ_GGUF_F64) {
        uint64_t u = bq_gguf_number(at, 8);
        memcpy(&x, &u, 8);
    } else {
        int64_t n = 0;
        take_int(k, key, type, at, INT64_MIN, INT64_MAX, &n);
        x = (double)n;
    }
    if (!(x >= low && x <= high)) bq_gguf_refuse(k, key, "%g is not within %g .. %g", x, low, high);
    if (!k->status) *value = x;
}

static bq_text text_at(const uint8_t *at) {
    return (bq_text){(const char *)at + 8, (size_t)bq_gguf_number(at, 8)};
}

/* ---- values ---- */

/* The value, unless it is absent or (which is refused) a list. */
static const bq_gguf_value *single(bq_gguf_keys *k, const char *key) {
    const bq_gguf_value *v = value_of(k, key);
    if (v && v->list)
        bq_gguf_refuse(k, key, "is a list of %llu, not one value", (unsigned long long)v->count);
    return k->status ? NULL : v;
}

void bq_gguf_int(bq_gguf_keys *k, const char *key, int64_t low, int64_t high, int64_t *value) {
    const bq_gguf_value *v = single(k, key);
    if (v) take_int(k, key, v->type, v->data, low, high, value);
}

void bq_gguf_real(bq_gguf_keys *k, const char *key, double low, double high, double *value) {
    const bq_gguf_value *v = single(k, key);
    if (v) take_real(k, key, v->type, v->data, low, high, value);
}

void bq_gguf_bool(bq_gguf_keys *k, const char *key, bool *value) {
    const bq_gguf_value *v = single(k, key);
    if (!v) return;
    if (v->type != BQ_GGUF_BOOL || v->data[0] > 1)
        bq_gguf_refuse(k, key, "is neither true nor false (type %u, byte %u)", v->type, v->data[0]);
    else
        *value = v->data[0];
}

void bq_gguf_text(bq_gguf_keys *k, const char *key, bq_text *value) {
    const bq_gguf_value *v = single(k, key);
    if (!v) return;
    if (v->type != BQ_GGUF_TEXT)
        bq_gguf_refuse(k, key, "is not a text (type %u)", v->type);
    else
        *value = text_at(v->data);
}

void bq_gguf_word(bq_gguf_keys *k, const char *key, char value[64]) {
    bq_text text = {NULL, 0};
    bq_gguf_text(k, key, &text);
    if (!text.at) return;
    if (text.bytes > 63 || memchr(text.at, 0, text.bytes)) {
        bq_gguf_refuse(k, key, "'%.63s' (%zu bytes) is longer than 63 bytes, or has a zero byte",
                       text.bytes > 63 ? "" : text.at, text.bytes);
        return;
    }
    memcpy(value, text.at, text.bytes);
    value[text.bytes] = 0;
}

/* ---- lists ---- */

int64_t bq_gguf_length(const bq_gguf_keys *k, const char *key) {
    const bq_gguf_value *v = value_of(k, key);
    return v && v->list && v->count <= INT64_MAX ? (int64_t)v->count : -1;
}

static const bq_gguf_value *list_of(bq_gguf_keys *k, const char *key, int64_t count) {
    bq_gguf_need(k, key);
    const bq_gguf_value *v = value_of(k, key);
    if (v && (!v->list || v->count != (uint64_t)count))
        bq_gguf_refuse(k, key, "is not a list of %lld items: there are %lld", (long long)count,
                       (long long)bq_gguf_length(k, key));
    return k->status ? NULL : v;
}

void bq_gguf_ints(bq_gguf_keys *k, const char *key, int64_t low, int64_t high, int64_t count,
                  int64_t *value) {
    const bq_gguf_value *v = list_of(k, key, count);
    for (int64_t i = 0; i < count && v && !k->status; i++)
        take_int(k, key, v->type, v->data + (size_t)i * bq_gguf_value_bytes(v->type), low, high, value + i);
}

void bq_gguf_reals(bq_gguf_keys *k, const char *key, double low, double high, int64_t count, double *value) {
    const bq_gguf_value *v = list_of(k, key, count);
    for (int64_t i = 0; i < count && v && !k->status; i++)
        take_real(k, key, v->type, v->data + (size_t)i * bq_gguf_value_bytes(v->type), low, high, value + i);
}

void bq_gguf_texts(bq_gguf_keys *k, const char *key, int64_t count, bq_text *value) {
    const bq_gguf_value *v = list_of(k, key, count);
    if (v && v->type != BQ_GGUF_TEXT) bq_gguf_refuse(k, key, "is not a list of texts (type %u)", v->type);
    if (!v || k->status) return;
    const uint8_t *at = v->data;
    for (int64_t i = 0; i < count; i++) {
        value[i] = text_at(at);
        at += 8 + value[i].bytes;
    }
}
