/* SPDX-License-Identifier: Apache-2.0 */
/* Write a recipe as JSON, and docs/recipes.md, by the tables. */
#include "driver/recipe/keys.h"

#include "base/die.h"

#include <stdlib.h>
#include <string.h>

/* Add the keys to an object, which is returned; NULL: to a new one. */
static json_t *add_keys(json_t *object, const bq_recipe *recipe, const bq_key *keys, const char *base,
                        bool hashed);

static json_t *list_of(const bq_recipe *recipe, const bq_key *key, const char *base, bool hashed) {
    json_t *list = json_array();
    int n = *(const int *)(const void *)(base + key->count), kind;
    for (int i = 0; i < n; i++) {
        const char *element = base + key->at + (size_t)i * key->scope->size;
        json_t *object = add_keys(NULL, recipe, key->scope->key, element, hashed);
        memcpy(&kind, element + key->scope->key->at, sizeof kind);
        if (key->variant) add_keys(object, recipe, key->variant(kind)->key, element + key->inside, hashed);
        json_array_append_new(list, object);
    }
    return list;
}

/* Or its first key's value, where that says it all. */
static json_t *object_of(const bq_recipe *recipe, const bq_key *key, const char *at, bool hashed) {
    json_t *object = add_keys(NULL, recipe, key->scope->key, at, hashed), *first;
    if (!key->bare || json_object_size(object) != 1) return object;
    first = json_incref(json_object_get(object, key->scope->key->name));
    json_decref(object);
    return first;
}

static json_t *value_of(const bq_recipe *recipe, const bq_key *key, const char *base, bool hashed) {
    const void *at = base + key->at;
    switch (key->type) {
    case BQ_KEY_INT: return json_integer(*(const int *)at);
    case BQ_KEY_I64:
    case BQ_KEY_GROUP: return json_integer(*(const int64_t *)at);
    case BQ_KEY_SEED: return json_integer((json_int_t) * (const uint64_t *)at);
    case BQ_KEY_REAL: return json_real(*(const double *)at);
    case BQ_KEY_BOOL: return json_boolean(*(const bool *)at);
    case BQ_KEY_PATH:
    case BQ_KEY_TEXT:
    case BQ_KEY_NAME: return json_string(at);
    case BQ_KEY_OBJECT: return object_of(recipe, key, at, hashed);
    case BQ_KEY_LIST: return list_of(recipe, key, base, hashed);
    case BQ_KEY_BITS:
    case BQ_KEY_CHOICE: break;
    }
    int value, i = 0;
    memcpy(&value, at, sizeof value);
    if (key->type == BQ_KEY_BITS && (value <= key->max || value == (int)key->other))
        return json_integer(value);
    while (bq_key_choice(key, i).name && bq_key_choice(key, i).value != value) i++;
    return json_string(bq_key_choice(key, i).name); /* NULL: not a choice; refused below */
}

static bool is_default(const bq_key *key, const json_t *value) {
    if (json_is_real(value)) return json_real_value(value) == strtod(key->value, NULL);
    if (json_is_string(value)) return strcmp(json_string_value(value), key->value) == 0;
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    bool same = text && strcmp(text, key->value) == 0;
    free(text);
    return same;
}

static json_t *add_keys(json_t *object, const bq_recipe *recipe, const bq_key *keys, const char *base,
                        bool hashed) {
    if (!object) object = json_object();
    for (const bq_key *k = keys; k->name; k++) {
        if (hashed && k->unhashed) continue;
        json_t *value = value_of(recipe, k, base, hashed);
        json_t *model =
            k->like ? add_keys(NULL, recipe, k->scope->key, (const char *)recipe + k->like, hashed) : NULL;
        if (!json_equal(value, model) && !(k->brief && is_default(k, value)))
            BQ_CHECK(json_object_set(object, k->name, value) == 0, "key '%s' cannot be written", k->name);
        json_decref(model);
        json_decref(value);
    }
    return object;
}

json_t *bq_keys_struct(const bq_scope *scope, const void *from) {
    return add_keys(NULL, NULL, scope->key, from, false);
}

json_t *bq_keys_json(const bq_recipe *recipe, bool hashed) {
    return add_keys(NULL, recipe, bq_recipe_keys.key, (const char *)recipe, hashed);
}

static const char *const head =
    "# Recipes\n"
    "\n"
    "<!-- Made by `blockq help recipe`; do not edit. -->\n"
    "\n"
    "A recipe is a JSON file that says everything that changes the result: model, data, bits, method.\n"
    "What changes only time or place (threads, ranks, directories) is an option of `blockq run`. A small\n"
    "one:\n"
    "\n"
    "```json\n"
    "{\n"
    "  \"model\": \"models/SmolLM2-135M-Instruct\",\n"
    "  \"calibration\": {\"tokens\": \"train.h5\", \"samples\": 32, \"length\": 512},\n"
    "  \"phases\": [{\"passes\": [{\"pass\": \"adascale\", \"iterations\": 256}]}],\n"
    "  \"outputs\": [{\"format\": \"compressed-tensors\"}],\n"
    "  \"eval\": {\"tokens\": \"test.h5\"}\n"
    "}\n"
    "```\n"
    "\n"
    "- A key left out has its default. A key that is not in these tables is an error, and so is one given\n"
    "  twice.\n"
    "- `--set KEY=VALUE` overrides a key: `--set calibration.samples=64`, `--set phases.0.inputs=fp`,\n"
    "  `--set bits.linears.v_proj.bits=8`. The value is JSON, or else a text.\n"
    "- Relative paths start at the recipe's folder, those given by `--set` at the current directory.\n"
    "- A run keeps the recipe, all defaults filled in, as `recipe.json`. To resume under one that gives\n"
    "  other bytes is refused, and the keys that changed are named. Keys marked * may change.\n"
    "- AIMET's own setting is 128 `samples` of `length` 2048, `inputs` `mix` and 256 to 2048 `iterations`;\n"
    "  `configs/` has it, and smaller ones.\n";

static void put_row(FILE *out, const bq_key *key) {
    char allowed[160];
    bq_key_allowed(key, allowed, sizeof allowed);
    fprintf(out, "| `%s`%s | ", key->name, key->unhashed ? " *" : "");
    if (!key->value)
        fputs("required", out);
    else if (*key->value)
        fprintf(out, "`%s`", key->value);
    fprintf(out, " | %s | %s", allowed, key->help);
    bq_choice c;
    for (int i = 0; key->row_help && (c = bq_key_choice(key, i)).name; i++)
        fprintf(out, "%s`%s`: %s", i || *key->help ? " " : "", c.name, key->row_help(i));
    fputs(" |\n", out);
}

enum { SCOPES = 64 };

/* docs/recipes.md, and the scopes written so far. */
typedef struct {
    FILE *out;
    const bq_scope *done[SCOPES];
    int count;
} page;

static void put_scope(page *p, const bq_scope *scope, const bq_key *first);

static void put_inner(page *p, const bq_key *keys) {
    for (const bq_key *k = keys; k->name; k++) {
        bool common = k->scope && (!k->variant || k->scope->key[1].name); /* has keys of all kinds */
        if (common) put_scope(p, k->scope, NULL);
        for (int i = 0; k->variant && bq_key_choice(k->scope->key, i).name; i++)
            put_scope(p, k->variant(bq_key_choice(k->scope->key, i).value), common ? NULL : k->scope->key);
    }
}

/* Every scope that has a title once, in the order of first use.  first: the key that says which kind of
 * element it is. */
static void put_scope(page *p, const bq_scope *scope, const bq_key *first) {
    for (int i = 0; i < p->count; i++)
        if (p->done[i] == scope) return;
    if (!scope->title) return;
    BQ_CHECK(p->count < SCOPES, "the page has room for %d tables of keys", SCOPES);
    p->done[p->count++] = scope;
    fprintf(p->out, "\n## %s\n\n%s\n\n| key | default | allowed | meaning |\n| --- | --- | --- | --- |\n",
            scope->title, scope->help);
    if (first) put_row(p->out, first);
    for (const bq_key *k = scope->key; k->name; k++) put_row(p->out, k);
    put_inner(p, scope->key);
}

void bq_recipe_doc(FILE *out) {
    page p = {.out = out};
    fputs(head, out);
    put_scope(&p, &bq_recipe_keys, NULL);
}
