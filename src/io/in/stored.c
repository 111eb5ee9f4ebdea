/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/stored.h"

#include "base/die.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to list a model's tensors");
    return memory;
}

int bq_stored_open(bq_weights *w, const char *path, size_t place) {
    bq_stored *s = w->own;
    int rc = bq_weights_safetensors.open(w, path);
    if (rc) return rc;
    s->at = w->at, s->by_name = w->by_name, s->count = w->count, s->size = place;
    w->at = NULL, w->by_name = NULL, w->count = w->room = 0;
    return BQ_OK;
}

void bq_stored_close(void *own) {
    bq_stored *s = own;
    for (int i = 0; i < s->count; i++) free((char *)(uintptr_t)s->at[i].name);
    free(s->at);
    free(s->by_name);
    free(s->place);
    free(s);
}

const bq_tensor *bq_stored_beside(const bq_stored *s, const bq_tensor *t, size_t cut, const char *what) {
    size_t n = strlen(t->name) - cut, all = n + strlen(what) + 1;
    char *name = need(malloc(all));
    snprintf(name, all, "%.*s%s", (int)n, t->name, what);
    const bq_tensor *found = bq_tensors_find(s->by_name, s->count, name);
    free(name);
    return found;
}

void bq_stored_add(bq_weights *w, const bq_tensor *t, const void *place) {
    bq_stored *s = w->own;
    if (w->count == s->room) {
        s->room = s->room ? 2 * s->room : 256;
        s->place = need(realloc(s->place, (size_t)s->room * s->size));
    }
    memcpy(s->place + (size_t)w->count * s->size, place, s->size);
    bq_weights_add(w, t);
}

const void *bq_stored_place(const bq_weights *w, const bq_tensor *t) {
    const bq_stored *s = w->own;
    return s->place + (size_t)(bq_weights_find(w, t->name) - w->at) * s->size;
}
