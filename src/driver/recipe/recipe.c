/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/recipe/recipe.h"

#include "base/die.h"
#include "base/hash.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/presets.h"
#include "driver/recipe/traits.h"
#include "driver/recipe/quark_map.h"
#include "io/out/export.h"
#include "io/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RECIPE_BYTES ((size_t)1 << 20) /* a longer file is not a recipe */

/* ---- overrides ---- */

/* The member or element named by a word of a dotted path; the last word sets it to leaf.  Makes missing
 * objects, so that --set reaches keys whose object the file leaves out.  NULL: there is no such place. */
static json_t *enter(json_t *node, const char *word, bool more, json_t *leaf) {
    if (json_is_array(node)) {
        char *end;
        unsigned long i = strtoul(word, &end, 10);
        if (*end || *word < '0' || *word > '9') return NULL;
        if (!more) json_array_set(node, i, leaf); /* does nothing past the end */
        return json_array_get(node, i);
    }
    if (!json_is_object(node)) return NULL;
    if (!more)
        json_object_set(node, word, leaf);
    else if (!json_object_get(node, word))
        json_object_set_new(node, word, json_object());
    return json_object_get(node, word);
}

/* Apply one "a.b.0.c=value"; the tables check the result. */
static int lay(json_t *root, const char *set) {
    const char *equals = strchr(set, '='), *at = set;
    if (!equals || equals == set || equals - set > 200)
        return bq_refuse(BQ_USAGE, "--set %.200s: must be KEY=VALUE, such as calibration.samples=64", set);
    json_t *leaf = bq_keys_loose(equals + 1), *node = root;
    if (!leaf) return bq_refuse(BQ_USAGE, "--set %.*s: the value is not UTF-8", (int)(equals - set), set);
    while (node && at <= equals) {
        char word[208];
        size_t n = strcspn(at, ".=");
        snprintf(word, sizeof word, "%.*s", (int)n, at);
        node = n ? enter(node, word, at + n < equals, leaf) : NULL;
        if (node) at += n + 1;
    }
    json_decref(leaf);
    if (node) return BQ_OK;
    return bq_refuse(BQ_USAGE, "--set %.200s: there is no '%.*s' in the recipe%s", set,
                     (int)(at - set + (ptrdiff_t)strcspn(at, ".=")), set,
                     at == set ? "" : "; lists are set as a whole, or by the number of an element they have");
}

/* Default names, which depend on other keys. */
static void fill_names(bq_recipe *r) {
    for (bq_phase *p = r->phase; p < r->phase + r->nphase; p++)
        if (!p->name[0])
            snprintf(p->name, sizeof p->name, "%s", bq_pass_kind_at(p->pass[p->npass - 1].kind)->name);
    for (bq_output *o = r->output; o < r->output + r->noutput; o++)
        if (!o->dir[0]) snprintf(o->dir, sizeof o->dir, "%s", bq_format_choice(o->format).name);
}

/* ---- reading ---- */

/* autosmoothquant's `map` names a file that stands for other keys of the pass.  These are filled, so that the
 * resolved recipe does not need the file any more. */
static int fill_files(bq_recipe *r) {
    int rc = BQ_OK;
    for (int i = 0; i < r->nphase; i++)
        for (int k = 0; k < r->phase[i].npass && !rc; k++) {
            bq_pass *p = &r->phase[i].pass[k];
            const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
            const bq_key *key = kind->scope.key;
            if (strcmp(kind->name, "autosmoothquant")) continue;
            while (strcmp(key->name, "map")) key++;
            char *path = p->options + key->at;
            if (path[0]) rc = bq_quark_map(path, (void *)p->options);
            memset(path, 0, BQ_PATH_MAX);
        }
    return rc;
}

int bq_recipe_parse(const char *text, size_t bytes, const char *name, const char *folder, int nset,
                    char *const *set, bq_recipe *recipe) {
    bq_origin from = {name, folder, nset, set};
    json_error_t error;
    BQ_CHECK(folder[0] == '/', "folder '%s' is not absolute", folder);
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        char where[400];
        snprintf(where, sizeof where, "%.300s:%d:%d", name, error.line, error.column);
        from = (bq_origin){where, folder, 0, NULL};
        return bq_origin_refuse(&from, "", "%s", error.text);
    }
    int rc = BQ_OK;
    for (int i = 0; i < nset && !rc; i++) rc = lay(root, set[i]);
    if (!rc) rc = bq_preset_apply(root, name);
    memset(recipe, 0, sizeof *recipe);
    if (!rc) rc = bq_keys_read(&from, root, recipe);
    json_decref(root);
    if (!rc) rc = fill_files(recipe);
    if (rc) return rc;
    fill_names(recipe);
    return bq_recipe_check(&from, recipe);
}

int bq_recipe_read(const char *path, int nset, char *const *set, bq_recipe *recipe) {
    char *text, *real = realpath(path, NULL);
    size_t bytes;
    int err = real ? bq_file_read(path, RECIPE_BYTES, &text, &bytes) : errno;
    if (err) {
        free(real);
        return bq_refuse(BQ_USAGE, "%s: cannot be read as a recipe: %s", path, bq_file_why(err));
    }
    char *slash = strrchr(real, '/');
    slash[slash == real] = 0;
    int rc = bq_recipe_parse(text, bytes, path, real, nset, set, recipe);
    free(text);
    free(real);
    return rc;
}

/* ---- looking things up ---- */

static int find_linear(const char *name) {
    const char *dot = strrchr(name, '.');
    for (int i = 0; i < BQ_LINEARS; i++)
        if (strcmp(dot ? dot + 1 : name, bq_linear_name(i)) == 0) return i;
    return -1;
}

bq_scheme bq_recipe_scheme(const bq_recipe *recipe, const char *linear) {
    int i = find_linear(linear);
    BQ_CHECK(i >= 0, "no recipe has bits for a linear '%s'", linear);
    return recipe->bits.linear[i];
}

int bq_recipe_fits(const bq_recipe *recipe, int count, const char *const *names) {
    bool there[BQ_LINEARS] = {false};
    char all[256] = "";
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        int k = find_linear(names[i]);
        if (k < 0 || there[k]) continue;
        there[k] = true;
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "", bq_linear_name(k));
    }
    for (int i = 0; i < BQ_LINEARS; i++)
        if (!there[i] && !bq_scheme_equal(recipe->bits.linear[i], recipe->bits.decoder))
            return bq_refuse(BQ_USAGE, "bits.linears.%s: the model has no such linear; it has %s",
                             bq_linear_name(i), all);
    return BQ_OK;
}

/* ---- writing ---- */

void bq_recipe_write(const bq_recipe *recipe, FILE *out) {
    json_t *json = bq_keys_json(recipe, false);
    size_t bytes;
    char *text = bq_json_text_of(json, &bytes);
    fwrite(text, 1, bytes, out);
    free(text);
    json_decref(json);
}

/* bits.activations, which is not hashed, where passes see inputs rounded so; NULL: none does. */
static json_t *seen_by_passes(const bq_recipe *r) {
    bool any = false;
    for (int i = 0; i < r->nphase; i++) any |= r->phase[i].activations;
    if (!any) return NULL;
    json_t *all = bq_keys_json(r, false),
           *seen = json_incref(json_object_get(json_object_get(all, "bits"), "activations"));
    json_decref(all);
    return seen;
}

int bq_recipe_parts(const bq_recipe *recipe, bq_part part[BQ_PARTS]) {
    json_t *json = bq_keys_json(recipe, true), *value, *seen = seen_by_passes(recipe);
    const char *key;
    int n = 0;
    json_object_foreach(json, key, value) {
        json_t *pair = json_pack("{sO}", key, value); /* every part is hashed as an object */
        if (strcmp(key, "phases") == 0 && seen) json_object_set(pair, "activations", seen);
        size_t bytes;
        char *text = bq_json_text_of(pair, &bytes);
        BQ_CHECK(n < BQ_PARTS, "more than %d parts", BQ_PARTS);
        snprintf(part[n].name, sizeof part[n].name, "%s", key);
        part[n++].hash = bq_hash_bytes(text, bytes);
        free(text);
        json_decref(pair);
    }
    json_decref(json);
    json_decref(seen);
    return n;
}
