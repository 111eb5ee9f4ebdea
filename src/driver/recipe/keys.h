/* SPDX-License-Identifier: Apache-2.0 */
/* keys.h - the recipe's keys as tables, and what works by them: checking, writing, docs/recipes.md.
 *
 * To add a key: a field in recipe.h and a row in keys.c, or both in the file of a pass; then `blockq help
 * recipe > docs/recipes.md`. */
#ifndef BQ_KEYS_H
#define BQ_KEYS_H

#include "driver/recipe/recipe.h"
#include "io/json.h"

/* Of the recipe, a scheme, bits.auto; of bits.activations and bits.kv (rounding.c). */
extern const bq_scope bq_recipe_keys, bq_scheme_keys, bq_mixed_keys, bq_activations_keys, bq_cache_keys,
    bq_distill_keys;
extern const bq_choice bq_power_choices[], bq_compute_choices[];
const char *bq_linear_name(int i); /* i < BQ_LINEARS */

/* "blend". */
const char *bq_starved_name(bq_starved starved);

/* "an integer from 1 to 8": for messages and the page. */
void bq_key_allowed(const bq_key *key, char *text, size_t size);

/* Where values come from.  Overrides are already applied to the JSON; they are for messages and paths. */
typedef struct {
    const char *file;   /* for messages */
    const char *folder; /* absolute, without links: where the file's relative paths start */
    int nset;
    char *const *set;
} bq_origin;

/* Print one message about the key at a dotted path, with the file or the override (bq_origin_set, or NULL)
 * that gave its value; returns BQ_USAGE. */
int bq_origin_refuse(const bq_origin *from, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
const char *bq_origin_set(const bq_origin *from, const char *path);

/* Check an object by the table and fill the recipe; or the value of one of the recipe's keys.  BQ_OK, or
 * BQ_USAGE after one message. */
int bq_keys_read(const bq_origin *from, const json_t *object, bq_recipe *recipe);
int bq_keys_read_one(const bq_origin *from, const char *name, const json_t *value, bq_recipe *recipe);

/* The same for one struct of a scope without lists and objects; and the struct as JSON. */
int bq_keys_read_struct(const bq_origin *from, const char *path, const bq_scope *scope, const json_t *object,
                        void *to);
json_t *bq_keys_struct(const bq_scope *scope, const void *from);

/* Check what the keys require of each other.  BQ_OK, or BQ_USAGE after one message. */
int bq_recipe_check(const bq_origin *from, const bq_recipe *recipe);

/* The value of KEY=VALUE: JSON, or else the text itself; NULL: not UTF-8. */
json_t *bq_keys_loose(const char *text);

/* The recipe as JSON, owned by the caller; hashed: only keys that change the result's bytes. */
json_t *bq_keys_json(const bq_recipe *recipe, bool hashed);

#endif
