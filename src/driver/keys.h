/* keys.h - the recipe's keys as tables, and what works by them: checking, writing, docs/recipes.md.
 *
 * To add a key: a field in recipe.h and a row in keys.c; then `blockq help recipe > docs/recipes.md`. */
#ifndef BQ_KEYS_H
#define BQ_KEYS_H

#include "driver/recipe.h"
#include "io/json.h"

typedef enum {
    BQ_KEY_INT,    /* int */
    BQ_KEY_I64,    /* int64_t */
    BQ_KEY_SEED,   /* uint64_t, as far as JSON integers reach: 2^63 - 1 */
    BQ_KEY_GROUP,  /* int64_t: -1, or a multiple of 8 up to max */
    BQ_KEY_REAL,   /* double */
    BQ_KEY_BOOL,   /* bool */
    BQ_KEY_CHOICE, /* an enum */
    BQ_KEY_PATH,   /* char[BQ_PATH_MAX], stored absolute; "" only where that is the default */
    BQ_KEY_NAME,   /* char[max + 1]: letters, digits, '_', '-', '.' */
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
    const char *value; /* default: JSON, or the bare text of a choice, path or name; NULL: required */
    double min, max;   /* of numbers; how many elements a list has; max: the length of a name */
    const bq_choice *choice;
    const bq_scope *scope; /* of objects and lists */
    int scopes;            /* lists: above 1, an element's first key is a choice: the scope's number */
    size_t count;          /* lists: where the int with the length is */
    size_t like;           /* objects: unless 0, absent keys are as in the object at that place of the recipe,
                              and an object equal to it is not written */
    double step;           /* integers: min, min + step, ... max; 0: all between */
    bool quiet;            /* does not change the result's bytes */
    const char *help;
} bq_key;

struct bq_scope {
    const char *title, *help; /* of its section in docs/recipes.md */
    const bq_key *key;
    size_t size; /* of its struct */
};

extern const bq_scope bq_recipe_keys, bq_pass_keys[BQ_PASS_KINDS];
extern const char *const bq_linear_names[BQ_LINEARS];

/* "an integer from 1 to 8": for messages and the page. */
void bq_key_allowed(const bq_key *key, char *text, size_t size);

/* Where values come from; the overrides are already laid over the JSON and serve messages and paths. */
typedef struct {
    const char *file;   /* for messages */
    const char *folder; /* absolute, no links: where the file's relative paths start */
    int nset;
    char *const *set;
} bq_origin;

/* Print one message about the key at that dotted path, naming the file or the override; returns BQ_USAGE. */
int bq_origin_refuse(const bq_origin *from, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The override that set the value at path, or NULL. */
const char *bq_origin_set(const bq_origin *from, const char *path);

/* Check the object by the table and fill the recipe; BQ_OK, or BQ_USAGE after one message. */
int bq_keys_read(const bq_origin *from, const json_t *object, bq_recipe *recipe);

/* The recipe as JSON, the caller's; loud: only keys that change the result's bytes. */
json_t *bq_keys_json(const bq_recipe *recipe, bool loud);

#endif
