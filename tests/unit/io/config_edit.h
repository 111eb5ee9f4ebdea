/* SPDX-License-Identifier: Apache-2.0 */
/* config_edit.h - config.json in tests: texts with one key changed, what is read of them, their hash. */
#ifndef BQ_TEST_CONFIG_EDIT_H
#define BQ_TEST_CONFIG_EDIT_H

#include "refuse.h"

#include "base/family.h"
#include "io/in/config.h"

static inline int parse(const char *text, bq_model *m) {
    return bq_config_parse("config.json", text, strlen(text), m);
}

/* `text` with `key` set to `value`, itself JSON; value NULL removes the key. */
static inline char *edited(const char *text, const char *key, const char *value) {
    json_t *object = json_loads(text, 0, NULL), *v = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_non_null(object);
    if (v)
        json_object_set_new(object, key, v);
    else
        json_object_del(object, key);
    char *out = json_dumps(object, 0);
    json_decref(object);
    return out;
}

static inline int parse_edited(const char *text, const char *key, const char *value, bq_model *m) {
    char *changed = edited(text, key, value);
    int rc = parse(changed, m);
    free(changed);
    return rc;
}

static inline uint64_t hash_of(const char *text) {
    bq_model m;
    bq_hash *h = bq_hash_open();
    assert_int_equal(parse(text, &m), BQ_OK);
    bq_config_hash(&m, h);
    return bq_hash_close(h);
}

/* Does the edit change the hash? */
static inline bool hash_moves(const char *text, const char *key, const char *value) {
    char *changed = edited(text, key, value);
    bool moves = hash_of(changed) != hash_of(text);
    free(changed);
    return moves;
}

#endif
