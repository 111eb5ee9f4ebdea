/* From the struct to JSON, and the page about recipes, by the tables. */
#include "driver/keys.h"

#include "base/die.h"

#include <string.h>

/* ---- JSON ---- */

static json_t *object_of(const bq_recipe *recipe, const bq_key *keys, const char *base, bool loud);

static json_t *list_of(const bq_recipe *recipe, const bq_key *key, const char *base, bool loud) {
    json_t *list = json_array();
    int n = *(const int *)(const void *)(base + key->count), kind = 0;
    for (int i = 0; i < n; i++) {
        const char *element = base + key->at + (size_t)i * key->scope->size;
        if (key->scopes > 1) memcpy(&kind, element + key->scope->key->at, sizeof kind);
        json_array_append_new(list, object_of(recipe, key->scope[kind].key, element, loud));
    }
    return list;
}

static json_t *value_of(const bq_recipe *recipe, const bq_key *key, const char *base, bool loud) {
    const void *at = base + key->at;
    switch (key->type) {
    case BQ_KEY_INT: return json_integer(*(const int *)at);
    case BQ_KEY_I64:
    case BQ_KEY_GROUP: return json_integer(*(const int64_t *)at);
    case BQ_KEY_SEED: return json_integer((json_int_t) * (const uint64_t *)at);
    case BQ_KEY_REAL: return json_real(*(const double *)at);
    case BQ_KEY_BOOL: return json_boolean(*(const bool *)at);
    case BQ_KEY_PATH:
    case BQ_KEY_NAME: return json_string(at);
    case BQ_KEY_OBJECT: return object_of(recipe, key->scope->key, at, loud);
    case BQ_KEY_LIST: return list_of(recipe, key, base, loud);
    case BQ_KEY_CHOICE: break;
    }
    int value;
    memcpy(&value, at, sizeof value);
    const bq_choice *c = key->choice;
    while (c->name && c->value != value) c++;
    return json_string(c->name); /* NULL, and so refused below, for a value that is no choice */
}

static json_t *object_of(const bq_recipe *recipe, const bq_key *keys, const char *base, bool loud) {
    json_t *object = json_object();
    for (const bq_key *k = keys; k->name; k++) {
        if (loud && k->quiet) continue;
        json_t *value = value_of(recipe, k, base, loud);
        if (k->like) {
            json_t *model = object_of(recipe, k->scope->key, (const char *)recipe + k->like, loud);
            bool same = json_equal(value, model);
            json_decref(model);
            if (same) {
                json_decref(value);
                continue;
            }
        }
        BQ_CHECK(json_object_set_new(object, k->name, value) == 0, "key '%s' cannot be written", k->name);
    }
    return object;
}

json_t *bq_keys_json(const bq_recipe *recipe, bool loud) {
    return object_of(recipe, bq_recipe_keys.key, (const char *)recipe, loud);
}

/* ---- docs/recipes.md ---- */

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
    fprintf(out, "| `%s`%s | ", key->name, key->quiet ? " *" : "");
    if (!key->value)
        fputs("required", out);
    else if (*key->value)
        fprintf(out, "`%s`", key->value);
    fprintf(out, " | %s | %s |\n", allowed, key->help);
}

enum { SCOPES = 64 };

/* Every scope once, in the order of first use. */
static void put_scope(FILE *out, const bq_scope *scope, const bq_scope **done, int *ndone) {
    for (int i = 0; i < *ndone; i++) {
        if (done[i] == scope) return;
    }
    BQ_CHECK(*ndone < SCOPES, "the page has room for %d tables of keys", SCOPES);
    done[(*ndone)++] = scope;
    fprintf(out, "\n## %s\n\n%s\n\n| key | default | allowed | meaning |\n| --- | --- | --- | --- |\n",
            scope->title, scope->help);
    for (const bq_key *k = scope->key; k->name; k++) put_row(out, k);
    for (const bq_key *k = scope->key; k->name; k++) {
        int kinds = k->scopes ? k->scopes : k->scope != NULL;
        for (int i = 0; i < kinds; i++) put_scope(out, k->scope + i, done, ndone);
    }
}

void bq_recipe_doc(FILE *out) {
    const bq_scope *done[SCOPES];
    int ndone = 0;
    fputs(head, out);
    put_scope(out, &bq_recipe_keys, done, &ndone);
}
