/* SPDX-License-Identifier: Apache-2.0 */
/* key.h - keys of JSON objects as tables: what a recipe may say, and what a pass or an evaluation adds; what
 * is read of a model's config.json.
 *
 * A table says where each value goes in a struct, its default, what is allowed, and the help text.  Of
 * recipes, reading, writing, comparing and documenting work by the tables (driver/recipe/keys.h); of models,
 * reading and the fingerprint (io/in/config.h). */
#ifndef BQ_KEY_H
#define BQ_KEY_H

#include <stdbool.h>
#include <stddef.h>

#define BQ_PATH_MAX 1024

typedef enum {
    BQ_KEY_INT,    /* int */
    BQ_KEY_I64,    /* int64_t */
    BQ_KEY_SEED,   /* uint64_t, as far as JSON integers reach: 2^63 - 1 */
    BQ_KEY_GROUP,  /* int64_t: -1, or a multiple of 8 up to max */
    BQ_KEY_BITS,   /* int: a number as of BQ_KEY_INT, or one of the names in choice */
    BQ_KEY_REAL,   /* double */
    BQ_KEY_BOOL,   /* bool */
    BQ_KEY_CHOICE, /* an enum, or an int that is the number of a table's row */
    BQ_KEY_PATH,   /* char[BQ_PATH_MAX], stored absolute; "" only where that is the default */
    BQ_KEY_NAME,   /* char[max + 1]: letters, digits, '_', '-', '.' */
    BQ_KEY_TEXT,   /* char[max + 1]: UTF-8 without control characters */
    BQ_KEY_OBJECT, /* keys of scope */
    BQ_KEY_LIST    /* array of min to max objects */
} bq_key_type;

typedef struct {
    const char *name; /* NULL ends the list */
    int value;
} bq_choice;

typedef struct bq_scope bq_scope;

/* Fields that a type does not use are zero. */
typedef struct {
    const char *name; /* NULL ends the table */
    bq_key_type type;
    size_t at;         /* of the field, in the scope's struct */
    const char *value; /* default: JSON, or the bare text of a choice, path, name or text; NULL: required */
    double min, max;   /* of numbers; how many elements a list has; max: bytes of a name or text */
    const bq_choice *choice;
    bq_choice (*row)(int i);        /* choices that are rows of a table, in the place of choice: row i; */
    const char *(*row_help)(int i); /* and what the page says of it, after the key's own help; or NULL */
    const bq_scope *scope;          /* of objects and lists */
    /* Lists whose elements are of several kinds: the element's first key is a choice, an int, and says which.
     * The further keys of that kind; their struct lies at `inside` in the element. */
    const bq_scope *(*variant)(int kind);
    size_t inside;
    size_t count;  /* lists: where the int with the length is */
    size_t like;   /* objects: unless 0, absent keys are as in the object at that place of the recipe, and an
                      object equal to it is not written */
    double step;   /* integers: min, min + step, ... max; 0: all between */
    double other;  /* unless 0, one more integer that is allowed */
    bool bare;     /* objects: the value of the first key may stand for the object, the other keys left out */
    bool unhashed; /* not part of the fingerprint: it does not change the result's bytes */
    bool brief;    /* not written, nor hashed, where it is the default */
    const char *help;
} bq_key;

struct bq_scope {
    const char *title, *help; /* of its section in docs/recipes.md */
    const bq_key *key;
    size_t size; /* of its struct */
};

/* The size of a struct of options, which must fit the room that a recipe has for it. */
#define BQ_OPTIONS_OF(type, room)                                                                            \
    (sizeof(type) + 0 * sizeof(struct {                                                                      \
                        _Static_assert(sizeof(type) <= (room), "too large");                                 \
                        int x;                                                                               \
                    }))

/* The place of a field, for the tables. */
#define BQ_AT(type, field) .at = offsetof(type, field)
/* The same of a key of config.json that has no field: only its default is supported. */
#define BQ_NOWHERE ((size_t)-1)

/* Choice i of a key; one without a name is behind the last. */
static inline bq_choice bq_key_choice(const bq_key *key, int i) {
    return key->row ? key->row(i) : key->choice[i];
}

#endif
