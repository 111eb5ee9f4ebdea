/* SPDX-License-Identifier: Apache-2.0 */
#include "io/quark.h"

#include "base/log.h"
#include "io/json.h"

#include <stdio.h>
#include <string.h>

#define QUARK_BYTES ((size_t)1 << 20)

/* Can this be a module's name: letters, digits, '_' and '.'?  empty: it may be empty. */
static bool name_fits(const char *text, bool empty) {
    size_t n = strlen(text);
    return n < BQ_QUARK_NAME && (n || empty) &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") == n;
}

static void take_name(bq_json *from, const char *key, bool empty, char out[BQ_QUARK_NAME]) {
    const char *text = NULL;
    bq_json_text(from, key, &text);
    if (text && !name_fits(text, empty)) bq_json_refuse(from, key, "is no module's name");
    if (text && !from->status) snprintf(out, BQ_QUARK_NAME, "%s", text);
}

static void warn_unknown(const bq_json *from, const char *const *known) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)from->object, key, value) {
        const char *const *k = known;
        while (*k && strcmp(*k, key)) k++;
        if (!*k && name_fits(key, true))
            bq_log(BQ_WARN, "%s: %s%s is passed over: Auto-SmoothQuant has no such key", from->file,
                   from->prefix, key);
    }
}

static void take_entry(bq_json *from, bq_quark_entry *e) {
    static const char *const known[] = {"prev_op", "layers", "inp", "module2inspect", NULL};
    bq_json_need(from, "prev_op");
    bq_json_need(from, "layers");
    bq_json_need(from, "inp");
    take_name(from, "prev_op", false, e->prev_op);
    take_name(from, "inp", false, e->inp);
    take_name(from, "module2inspect", true, e->module);
    e->inspects = bq_json_has(from, "module2inspect");
    const json_t *list = json_object_get(from->object, "layers");
    size_t n = json_array_size(list);
    if (n < 1 || n > BQ_QUARK_LAYERS)
        bq_json_refuse(from, "layers", "is not a list of 1 to %d names", BQ_QUARK_LAYERS);
    for (size_t i = 0; i < n && !from->status; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || !name_fits(text, false))
            bq_json_refuse(from, "layers", "element %zu is no module's name", i);
        else
            snprintf(e->layer[i], BQ_QUARK_NAME, "%s", text);
    }
    e->layers = (int)n;
    if (!from->status) warn_unknown(from, known);
}

static void take_entries(bq_json *from, bq_quark *out) {
    const json_t *list = json_object_get(from->object, "scaling_layers");
    size_t n = json_array_size(list);
    bq_json_need(from, "scaling_layers");
    if (n < 1 || n > BQ_QUARK_ENTRIES)
        bq_json_refuse(from, "scaling_layers", "is not a list of 1 to %d objects", BQ_QUARK_ENTRIES);
    for (size_t i = 0; i < n && !from->status; i++) {
        char prefix[40];
        snprintf(prefix, sizeof prefix, "scaling_layers.%zu.", i);
        bq_json inner = {json_array_get(list, i), from->file, prefix, 0, 0};
        if (json_is_object(inner.object))
            take_entry(&inner, &out->entry[i]);
        else
            bq_json_refuse(from, "scaling_layers", "element %zu is not an object", i);
        bq_json_join(from, &inner);
    }
    out->entries = (int)n;
}

static int take(bq_json *from, bq_quark *out) {
    static const char *const known[] = {"name", "model_decoder_layers", "compute_scale_loss",
                                        "scaling_layers", NULL};
    const char *name = "autosmoothquant", *layers = "model.layers", *loss = "MSE";
    bq_json_text(from, "name", &name);
    bq_json_text(from, "model_decoder_layers", &layers);
    bq_json_text(from, "compute_scale_loss", &loss);
    if (from->status) return from->status;
    if (strcmp(name, "autosmoothquant"))
        bq_json_refuse(from, "name", "is not \"autosmoothquant\": a file for something else");
    if (strcmp(layers, "model.layers") != 0)
        bq_json_refuse(from, "model_decoder_layers", "is not \"model.layers\", where blocks are here");
    if (strcmp(loss, "MAE") != 0 && strcmp(loss, "MSE") != 0 && strcmp(loss, "RMSE") != 0)
        bq_json_refuse(from, "compute_scale_loss", "is not \"MAE\", \"MSE\" or \"RMSE\"");
    snprintf(out->loss, sizeof out->loss, "%s", loss);
    take_entries(from, out);
    if (!from->status) warn_unknown(from, known);
    return from->status;
}

static int take_root(const char *path, json_t *root, bq_quark *out) {
    bq_json from = bq_json_of(root, path);
    *out = (bq_quark){0};
    int rc = take(&from, out);
    json_decref(root);
    return rc;
}

int bq_quark_parse(const char *path, const char *text, size_t bytes, bq_quark *out) {
    json_t *root;
    int rc = bq_json_parse(path, text, bytes, &root);
    return rc ? rc : take_root(path, root, out);
}

int bq_quark_read(const char *path, bq_quark *out) {
    json_t *root;
    int rc = bq_json_read(path, QUARK_BYTES, &root);
    return rc ? rc : take_root(path, root, out);
}
