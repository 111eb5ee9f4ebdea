/* SPDX-License-Identifier: Apache-2.0 */
/* The differences of two recipes, by the tables. */
#include "driver/recipe/keys.h"

#include "base/log.h"
#include "io/files.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN = 3, PATH = 160 }; /* PATH: longer ones are cut in messages */
#define RECIPE_BYTES ((size_t)1 << 20)

typedef struct {
    char *text;
    size_t size;
    int count;
} report;

/* One line of JSON, short; "nothing" where there is none. */
static void value_text(const json_t *value, char out[64]) {
    size_t bytes = 0;
    bool flat = value && !json_is_object(value) && !json_is_array(value);
    char *text = flat ? bq_json_text_of(value, &bytes) : value ? json_dumps(value, JSON_COMPACT) : NULL;
    if (flat) text[bytes - 1] = 0;
    snprintf(out, 64, "%s", text ? text : "nothing");
    if (text && strlen(text) > 63) memcpy(out + 60, "...", 4);
    free(text);
    bq_log_clean(out, 0);
}

static void say(report *r, const char *path, const char *here, const char *there) {
    size_t at = strlen(r->text);
    if (r->count++ < SHOWN)
        snprintf(r->text + at, r->size - at, "%s%s (%s here, %s in the run)", at ? ", " : "", path, here,
                 there);
}

static void compare(report *r, const bq_key *keys, const json_t *here, const json_t *there, const char *path);

/* Of elements of different kinds only the first key is compared. */
static void compare_lists(report *r, const bq_key *key, const json_t *here, const json_t *there,
                          const char *path) {
    size_t n = json_array_size(here), m = json_array_size(there);
    const bq_key *first = key->scope->key;
    char inner[PATH], more[64], fewer[64];
    snprintf(more, sizeof more, "%zu of them", n), snprintf(fewer, sizeof fewer, "%zu", m);
    if (n != m) say(r, path, more, fewer);
    for (size_t i = 0; i < n && i < m; i++) {
        const json_t *a = json_array_get(here, i), *b = json_array_get(there, i);
        const char *kind = json_string_value(json_object_get(a, first->name));
        snprintf(inner, sizeof inner, "%.130s.%zu", path, i);
        compare(r, first, a, b, inner);
        if (!key->variant || !json_equal(json_object_get(a, first->name), json_object_get(b, first->name)))
            continue;
        bq_choice c;
        for (int k = 0; kind && (c = bq_key_choice(first, k)).name; k++)
            if (strcmp(c.name, kind) == 0) compare(r, key->variant(c.value)->key, a, b, inner);
    }
}

static void compare(report *r, const bq_key *keys, const json_t *here, const json_t *there,
                    const char *path) {
    char inner[PATH], a_text[64], b_text[64];
    for (const bq_key *k = keys; k->name; k++) {
        const json_t *a = json_object_get(here, k->name), *b = json_object_get(there, k->name);
        if (k->unhashed) continue;
        snprintf(inner, sizeof inner, "%.120s%s%.30s", path, *path ? "." : "", k->name);
        if (k->type == BQ_KEY_OBJECT && json_is_object(a) && json_is_object(b))
            compare(r, k->scope->key, a, b, inner);
        else if (k->type == BQ_KEY_LIST && json_is_array(a) && json_is_array(b))
            compare_lists(r, k, a, b, inner);
        else if (a && b ? !json_equal(a, b) : a != b)
            value_text(a, a_text), value_text(b, b_text), say(r, inner, a_text, b_text);
    }
}

int bq_recipe_differences(const char *path, const bq_recipe *recipe, char *text, size_t size) {
    report r = {text, size, 0};
    char *data;
    size_t bytes;
    text[0] = 0;
    if (bq_file_read(path, RECIPE_BYTES, &data, &bytes)) return 0;
    json_t *there = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    json_t *here = there ? bq_keys_json(recipe, false) : NULL;
    if (here) compare(&r, bq_recipe_keys.key, here, there, "");
    json_decref(here);
    json_decref(there);
    free(data);
    size_t at = strlen(text);
    if (r.count > SHOWN) snprintf(text + at, size - at, ", and %d more keys", r.count - SHOWN);
    return r.count;
}
