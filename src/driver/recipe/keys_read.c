/* SPDX-License-Identifier: Apache-2.0 */
/* Read a recipe from JSON, by the tables: one message for the first error. */
#include "driver/recipe/keys.h"

#include "base/die.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define PATH 256 /* of a dotted key; longer ones are cut in messages */

/* ---- messages ---- */

const char *bq_origin_set(const bq_origin *from, const char *path) {
    for (int i = from->nset - 1; i >= 0; i--) {
        size_t n = strcspn(from->set[i], "=");
        if (strncmp(path, from->set[i], n) == 0 && (path[n] == 0 || path[n] == '.')) return from->set[i];
    }
    return NULL;
}

int bq_origin_refuse(const bq_origin *from, const char *path, const char *fmt, ...) {
    char why[1024], text[1536];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    const char *set = bq_origin_set(from, path);
    snprintf(text, sizeof text, "%s%.200s: %s%s%s", set ? "--set " : "", set ? set : from->file, path,
             *path ? ": " : "", why);
    for (char *c = text; *c; c++) /* the file's bytes must not reach a terminal as commands */
        if (iscntrl((unsigned char)*c)) *c = '?';
    return bq_refuse(BQ_USAGE, "%s", text);
}

/* The value as JSON, cut to what one line can take. */
static const char *shown(const json_t *value, char text[72]) {
    char *full = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    snprintf(text, 72, "%.60s%s", full ? full : "?", full && strlen(full) > 60 ? "..." : "");
    free(full);
    return text;
}

/* A value that is given for a key, and where. */
typedef struct {
    const bq_origin *from;
    const char *path;
    const bq_key *key;
    const json_t *value;
} given;

static int refuse_value(const given *g) {
    char text[72], allowed[160];
    bq_key_allowed(g->key, allowed, sizeof allowed);
    return bq_origin_refuse(g->from, g->path, "is %s, must be %s", shown(g->value, text), allowed);
}

/* Levenshtein distance; names longer than any key are far from all of them. */
static int distance(const char *a, const char *b) {
    int row[32], n = (int)strlen(b);
    if (strlen(a) > 30 || n > 30) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 0; a[i]; i++) {
        int corner = row[0];
        row[0] = i + 1;
        for (int j = 0; j < n; j++) {
            int swap = corner + (a[i] != b[j]), near = row[j] < row[j + 1] ? row[j] : row[j + 1];
            corner = row[j + 1];
            row[j + 1] = swap < near + 1 ? swap : near + 1;
        }
    }
    return row[n];
}

/* Keys of one object, and where their struct is. */
typedef struct {
    const bq_key *key;
    char *base;
} part;

static int refuse_key(const bq_origin *from, const char *path, const char *name, const part *parts,
                      int count) {
    const char *best = NULL;
    int least = (int)strlen(name) < 5 ? 2 : 3;
    char all[512] = "";
    size_t n = 0;
    for (int p = 0; p < count; p++)
        for (const bq_key *k = parts[p].key; k->name; k++) {
            int d = distance(name, k->name);
            if (d <= least && (!best || d < least)) best = k->name, least = d;
            if (n < sizeof all)
                n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "", k->name);
        }
    if (best) return bq_origin_refuse(from, path, "unknown key; did you mean '%s'?", best);
    return bq_origin_refuse(from, path, "unknown key; known here: %s", all);
}

/* ---- values ---- */

/* Make it absolute and resolve leading dots, which is exact, as the folder has no links. */
static int take_path(const given *g, char *to) {
    const char *text = json_string_value(g->value);
    char folder[BQ_PATH_MAX];
    if (!text || (!*text && !g->key->value)) return refuse_value(g);
    if (!*text) return BQ_OK;
    snprintf(folder, sizeof folder, "%s", g->from->folder);
    if (bq_origin_set(g->from, g->path) && !realpath(".", folder))
        return bq_origin_refuse(g->from, g->path, "the current directory has no name");
    if (*text == '/' || !folder[1]) *folder = 0; /* the folder "/": joint has its slash */
    while (*folder && text[0] == '.') {
        size_t up = text[1] == '.';
        if (text[1 + up] != '/' && text[1 + up]) break;
        if (up) *strrchr(folder, '/') = 0;
        text += 1 + up;
        text += strspn(text, "/");
    }
    const char *joint = *text == '/' || !*text ? "" : "/";
    if (!*folder && !*text) text = "/";
    if (snprintf(to, BQ_PATH_MAX, "%s%s%s", folder, joint, text) >= BQ_PATH_MAX) return refuse_value(g);
    json_t *clean = json_string(to); /* the folder's name comes from the system */
    if (!clean) return bq_origin_refuse(g->from, g->path, "the folder '%s' is not UTF-8", folder);
    json_decref(clean);
    return BQ_OK;
}

static int take_name(const given *g, char *to) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const char *text = json_string_value(g->value);
    if (!text || strlen(text) > (size_t)g->key->max || *text == '.' || text[strspn(text, letters)])
        return refuse_value(g);
    strcpy(to, text);
    return BQ_OK;
}

static int take_text(const given *g, char *to) {
    const char *text = json_string_value(g->value);
    if (!text || strlen(text) > (size_t)g->key->max) return refuse_value(g);
    for (const char *c = text; *c; c++)
        if (iscntrl((unsigned char)*c)) return refuse_value(g);
    strcpy(to, text);
    return BQ_OK;
}

static int take_choice(const given *g, void *to) {
    const char *text = json_string_value(g->value);
    bq_choice c;
    for (int i = 0; text && (c = bq_key_choice(g->key, i)).name; i++)
        if (strcmp(text, c.name) == 0) return memcpy(to, &c.value, sizeof(int)), BQ_OK;
    return refuse_value(g);
}

static int take_bits(const given *g, int *to) {
    const bq_key *key = g->key;
    double x = (double)json_integer_value(g->value);
    if (json_is_string(g->value)) return take_choice(g, to);
    bool fits = x >= key->min && x <= key->max && (key->step == 0 || fmod(x - key->min, key->step) == 0);
    if (!json_is_integer(g->value) || !(fits || (key->other != 0 && x == key->other))) return refuse_value(g);
    *to = (int)x;
    return BQ_OK;
}

static int take_integer(const given *g, void *to) {
    const bq_key *key = g->key;
    int64_t x = json_integer_value(g->value);
    bool fits = key->type == BQ_KEY_SEED ? x >= 0
                : key->type == BQ_KEY_GROUP
                    ? x == -1 || (x > 0 && x % 8 == 0 && (double)x <= key->max)
                    : ((double)x >= key->min && (double)x <= key->max &&
                       (key->step == 0 || fmod((double)x - key->min, key->step) == 0)) ||
                          (key->other != 0 && (double)x == key->other);
    if (!json_is_integer(g->value) || !fits) return refuse_value(g);
    if (key->type == BQ_KEY_INT)
        *(int *)to = (int)x;
    else if (key->type == BQ_KEY_SEED)
        *(uint64_t *)to = (uint64_t)x;
    else
        *(int64_t *)to = x;
    return BQ_OK;
}

static int take_real(const given *g, double *to) {
    double x = json_number_value(g->value);
    if (!json_is_number(g->value) || !(x >= g->key->min && x <= g->key->max)) return refuse_value(g);
    *to = x == 0 ? 0 : x; /* -0 and 0 must have the same fingerprint */
    return BQ_OK;
}

/* ---- objects and lists ---- */

typedef struct {
    const bq_origin *from;
    bq_recipe *recipe;
} reader;

static int take_object(reader *r, const char *path, const part *parts, int count, const json_t *value,
                       bool keep);

/* An element of a list.  If there are several kinds, its first key says which, and so the other keys. */
static int take_element(reader *r, const char *path, const bq_key *list, const json_t *value, char *to) {
    part parts[2] = {{list->scope->key, to}};
    int kind = 0;
    if (!list->variant || !json_is_object(value)) return take_object(r, path, parts, 1, value, false);
    const bq_key *first = list->scope->key;
    const json_t *named = json_object_get(value, first->name);
    char deep[PATH + 16];
    snprintf(deep, sizeof deep, "%s.%s", path, first->name);
    if (!named) return bq_origin_refuse(r->from, deep, "is missing");
    if (take_choice(&(given){r->from, deep, first, named}, &kind)) return BQ_USAGE;
    parts[1] = (part){list->variant(kind)->key, to + list->inside};
    return take_object(r, path, parts, 2, value, false);
}

static int take_list(reader *r, const given *g, char *base) {
    const bq_key *key = g->key;
    size_t n = json_array_size(g->value);
    if (!json_is_array(g->value) || n < (size_t)key->min || n > (size_t)key->max) return refuse_value(g);
    *(int *)(void *)(base + key->count) = (int)n;
    for (size_t i = 0; i < n; i++) {
        char inner[PATH];
        snprintf(inner, sizeof inner, "%.200s.%zu", g->path, i);
        int rc =
            take_element(r, inner, key, json_array_get(g->value, i), base + key->at + i * key->scope->size);
        if (rc) return rc;
    }
    return BQ_OK;
}

static int take(reader *r, const char *path, const bq_key *key, const json_t *value, char *base);

/* The value of the first key of an object. */
static int take_bare(reader *r, const given *g, char *to) {
    json_t *none = json_object();
    int rc = take_object(r, g->path, &(part){g->key->scope->key, to}, 1, none, false);
    json_decref(none);
    return rc ? rc : take(r, g->path, g->key->scope->key, g->value, to);
}

static int take(reader *r, const char *path, const bq_key *key, const json_t *value, char *base) {
    const given g = {r->from, path, key, value};
    void *to = base + key->at;
    switch (key->type) {
    case BQ_KEY_INT:
    case BQ_KEY_I64:
    case BQ_KEY_SEED:
    case BQ_KEY_GROUP: return take_integer(&g, to);
    case BQ_KEY_BITS: return take_bits(&g, to);
    case BQ_KEY_REAL: return take_real(&g, to);
    case BQ_KEY_CHOICE: return take_choice(&g, to);
    case BQ_KEY_PATH: return take_path(&g, to);
    case BQ_KEY_NAME: return take_name(&g, to);
    case BQ_KEY_TEXT: return take_text(&g, to);
    case BQ_KEY_LIST: return take_list(r, &g, base);
    case BQ_KEY_BOOL:
        if (!json_is_boolean(value)) break;
        *(bool *)to = json_is_true(value);
        return BQ_OK;
    case BQ_KEY_OBJECT:
        if (key->bare && !json_is_object(value)) return take_bare(r, &g, to);
        if (!json_is_object(value)) break;
        if (key->like) memcpy(to, (char *)r->recipe + key->like, key->scope->size);
        return take_object(r, path, &(part){key->scope->key, to}, 1, value, key->like != 0);
    }
    return refuse_value(&g);
}

/* The default of an absent key, as a file would have it. */
static json_t *otherwise(const bq_key *key) {
    bool bare = key->type == BQ_KEY_CHOICE || key->type == BQ_KEY_PATH || key->type == BQ_KEY_NAME ||
                key->type == BQ_KEY_TEXT;
    json_t *value = bare ? json_string(key->value) : json_loads(key->value, JSON_DECODE_ANY, NULL);
    BQ_CHECK(value, "the default of '%s' is no JSON: %s", key->name, key->value);
    return value;
}

/* member NULL: the key is absent. */
static int take_member(reader *r, const char *path, const bq_key *key, json_t *member, char *base) {
    if (!member && !key->value) {
        char allowed[160];
        bq_key_allowed(key, allowed, sizeof allowed);
        return bq_origin_refuse(r->from, path, "is missing (%s): write it there or give --set %s=...",
                                allowed, path);
    }
    json_t *filled = member ? json_incref(member) : otherwise(key);
    int rc = take(r, path, key, filled, base);
    json_decref(filled);
    return rc;
}

/* keep: absent keys do not change the struct. */
static int take_object(reader *r, const char *path, const part *parts, int count, const json_t *value,
                       bool keep) {
    if (!json_is_object(value)) return bq_origin_refuse(r->from, path, "is not an object");
    const char *dot = *path ? "." : "", *name;
    char inner[PATH];
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        bool known = false;
        for (int p = 0; p < count; p++)
            for (const bq_key *k = parts[p].key; k->name; k++) known |= strcmp(k->name, name) == 0;
        snprintf(inner, sizeof inner, "%.180s%s%.60s", path, dot, name);
        if (!known) return refuse_key(r->from, inner, name, parts, count);
    }
    for (int p = 0; p < count; p++)
        for (const bq_key *k = parts[p].key; k->name; k++) {
            snprintf(inner, sizeof inner, "%.180s%s%.60s", path, dot, k->name);
            member = json_object_get(value, k->name);
            int rc = member || !keep ? take_member(r, inner, k, member, parts[p].base) : BQ_OK;
            if (rc) return rc;
        }
    return BQ_OK;
}

json_t *bq_keys_loose(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    return value ? value : json_string(text);
}

int bq_keys_read(const bq_origin *from, const json_t *object, bq_recipe *recipe) {
    reader r = {from, recipe};
    return take_object(&r, "", &(part){bq_recipe_keys.key, (char *)recipe}, 1, object, false);
}

int bq_keys_read_one(const bq_origin *from, const char *name, const json_t *value, bq_recipe *recipe) {
    reader r = {from, recipe};
    const bq_key *key = bq_recipe_keys.key;
    while (strcmp(key->name, name)) key++;
    return take(&r, name, key, value, (char *)recipe);
}

int bq_keys_read_struct(const bq_origin *from, const char *path, const bq_scope *scope, const json_t *object,
                        void *to) {
    reader r = {from, NULL};
    return take_object(&r, path, &(part){scope->key, to}, 1, object, false);
}
