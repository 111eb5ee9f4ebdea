/* SPDX-License-Identifier: Apache-2.0 */
/* json.h - JSON by Jansson, with limits, and with messages that name file and key.
 *
 * The text may be hostile: its size, depth, UTF-8 and duplicate keys are checked, and a refusal is one
 * message.  Errors are bad input (BQ_DATA, or the code that the reader was given); only a lack of memory
 * ends the job.  All calls are local. */
#ifndef BQ_JSON_H
#define BQ_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BQ_JSON_DEPTH 64 /* how deep objects and arrays may be nested */

/* Read the file, at most max_bytes long, which must hold one JSON object; or a text in memory that path names
 * in messages.  BQ_OK, and *out is the caller's (json_decref); or BQ_DATA after a message with file and
 * reason. */
int bq_json_read(const char *path, size_t max_bytes, json_t **out);
int bq_json_parse(const char *path, const char *text, size_t bytes, json_t **out);

/* Reads the values of one object.  The first refusal is printed and kept in status; later calls then do
 * nothing.  So a dozen getters need one check at their end.  It owns nothing: object and texts must outlive
 * it. */
typedef struct {
    const json_t *object;
    const char *file;   /* for messages */
    const char *prefix; /* before each key in messages: "" or "rope_scaling." */
    int code;           /* what a refusal sets status to; 0: BQ_DATA */
    int status;         /* BQ_OK until a value was refused */
} bq_json;

static inline bq_json bq_json_of(const json_t *object, const char *file) {
    return (bq_json){object, file, "", 0, 0};
}

/* Is the key there, with a value other than null?  False, too, after a refusal.  need: refuse unless it
 * is. */
bool bq_json_has(const bq_json *from, const char *key);
void bq_json_need(bq_json *from, const char *key);

/* If the key is absent or null, *value stays as it was: set it to the default first.  A value of another
 * type or outside [low, high] is refused.  int also takes a real without fraction (8192.0) up to 2^53; real
 * also takes an integer. */
void bq_json_int(bq_json *from, const char *key, int64_t low, int64_t high, int64_t *value);
void bq_json_real(bq_json *from, const char *key, double low, double high, double *value);
void bq_json_bool(bq_json *from, const char *key, bool *value);
/* *value points into the object, which owns the text. */
void bq_json_text(bq_json *from, const char *key, const char **value);
/* A list of exactly count numbers in [low, high]; the key must be there. */
void bq_json_reals(bq_json *from, const char *key, double low, double high, int64_t count, double *value);
/* The object under key, as a reader of its own with the prefix "<key>."; its object is NULL if the key is
 * absent or null.  When done with it, hand its status back by join. */
bq_json bq_json_object(bq_json *from, const char *key, char prefix[64]);
void bq_json_join(bq_json *from, const bq_json *inner);

/* Refuse for a reason of the caller's: the message is "<file>: <prefix><key>: <text>". */
void bq_json_refuse(bq_json *from, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The value as text: keys in their order, two spaces a level, reals in their shortest exact form (1e-05,
 * 10000.0), a newline at the end.  Equal values give equal bytes.  *bytes does not count the closing 0;
 * free() the text. */
char *bq_json_text_of(const json_t *value, size_t *bytes);
/* Write that text, whole or not at all.  Ends the job when the disk fails. */
void bq_json_write(const char *path, const json_t *value);

/* Sealed objects: small files of our own that are read back (docs/files.md).  The last key, "check", is
 * the XXH3 of the others, so a damaged file is not believed.
 *   write   adds the key to object, then writes the file whole or not at all.  0, or as files.h
 *   read    the object without the key, which the caller owns; NULL if the file is absent, damaged or not
 *           sealed.  Silent, because what such files say can be found out again */
int bq_json_write_sealed(const char *path, json_t *object);
json_t *bq_json_read_sealed(const char *path, size_t max_bytes);

#endif
