/* json.h - JSON read with care: Jansson, plus limits and messages that name file and key.
 *
 * Everything here treats the text as hostile: size, depth, UTF-8 and duplicate keys are checked, and a
 * refusal is one message.  Errors are bad input (BQ_DATA, or the code the reader asks for); only a lack of
 * memory dies. */
#ifndef BQ_JSON_H
#define BQ_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BQ_JSON_DEPTH 64 /* nested objects and arrays a text may have */

/* Read the file, at most max_bytes long, as one JSON object.  BQ_OK and *out (the caller's: json_decref), or
 * BQ_DATA after a message with file, line and reason. */
int bq_json_read(const char *path, size_t max_bytes, json_t **out);

/* The same from memory; path only names the text in messages. */
int bq_json_parse(const char *path, const char *text, size_t bytes, json_t **out);

/* A reader of one object's values.  The first refusal is printed and kept in status; every later call does
 * nothing, so that a dozen getters need one check at their end.  It owns nothing: object must outlive it. */
typedef struct {
    const json_t *object;
    const char *file;   /* for messages */
    const char *prefix; /* before each key in messages: "" or "rope_scaling." */
    int code;           /* what a refusal returns; 0 means BQ_DATA */
    int status;         /* BQ_OK until a value was refused */
} bq_json;

static inline bq_json bq_json_of(const json_t *object, const char *file) {
    return (bq_json){object, file, "", 0, 0};
}

/* Is the key there with a value other than null? */
bool bq_json_has(const bq_json *from, const char *key);
/* Refuse unless it is. */
void bq_json_need(bq_json *from, const char *key);

/* An absent key, or null, leaves *value as it was: preset it with the default.  A value of another type or
 * outside [low, high] is refused.  int also takes a real without fraction (8192.0), real also takes an
 * integer. */
void bq_json_int(bq_json *from, const char *key, int64_t low, int64_t high, int64_t *value);
void bq_json_real(bq_json *from, const char *key, double low, double high, double *value);
void bq_json_bool(bq_json *from, const char *key, bool *value);
/* The text stays owned by the object. */
void bq_json_text(bq_json *from, const char *key, const char **value);
/* Exactly count numbers in [low, high]; the key must be there. */
void bq_json_reals(bq_json *from, const char *key, double low, double high, int64_t count, double *value);
/* The object under key, as a reader with that prefix; object NULL when absent or null.  Hand its status back
 * with bq_json_join when done. */
bq_json bq_json_object(bq_json *from, const char *key, char prefix[64]);
void bq_json_join(bq_json *from, const bq_json *inner);

/* Refuse for a reason of the caller's own: "<file>: <prefix><key>: <message>". */
void bq_json_refuse(bq_json *from, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Text with keys in their order, two blanks a level, reals in their shortest exact form (1e-05, 10000.0), a
 * newline at the end.  Equal values give equal bytes.  *bytes without the closing 0; free() it. */
char *bq_json_text_of(const json_t *value, size_t *bytes);

/* Small files of our own that are read back: a sealed object's last key, "check", is the XXH3 of the others,
 * so that one that has been damaged is not believed. write   seals the object.  0, or errno: whole or not at
 * all read    the object, the caller's; NULL where there is none, or one that is damaged or not sealed.
 * Silent: what such a file says can be found out again */
int bq_json_write_sealed(const char *path, json_t *object);
json_t *bq_json_read_sealed(const char *path, size_t max_bytes);

#endif
