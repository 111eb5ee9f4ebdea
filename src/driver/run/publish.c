/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/publish.h"

#include "base/die.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/traits.h"
#include "driver/run/card.h"
#include "driver/run/result.h"
#include "io/files.h"
#include "io/in/fp8.h"
#include "io/out/publish.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST ((size_t)1 << 20) /* bytes of result.json, of the source's README.md */

/* ---- origin.json ---- */

static void origin_path(const bq_run *s, char path[BQ_PATH_MAX + 32]) {
    snprintf(path, BQ_PATH_MAX + 32, "%s/ckpt/origin.json", s->dir);
}

void bq_publish_origin(const bq_run *s) {
    char path[BQ_PATH_MAX + 32];
    const bq_tokens *t = &s->calibration;
    json_t *origin = json_pack("{s:s}", "numerics", s->numerics);
    if (t->ids) {
        json_object_set_new(origin, "text", json_string(t->text));
        json_object_set_new(origin, "tokenizer", json_string(t->tokenizer));
    }
    origin_path(s, path);
    int error = bq_json_write_sealed(path, origin);
    BQ_CHECK(!error, "write of '%s' failed: %s", path, strerror(error));
    json_decref(origin);
}

/* ---- texts without the machine ---- */

/* The last part of a path. */
static json_t *last_part(const char *path) {
    size_t n = strlen(path), from;
    while (n && path[n - 1] == '/') n--;
    for (from = n; from && path[from - 1] != '/';) from--;
    return json_stringn(path + from, n - from);
}

/* Paths, which are absolute, become their last part. */
static void drop_folders(json_t *in) {
    const char *key;
    json_t *value;
    void *next;
    size_t i;
    json_array_foreach(in, i, value) drop_folders(value);
    json_object_foreach_safe(in, next, key, value) {
        const char *text = json_string_value(value);
        drop_folders(value);
        if (text && *text == '/') json_object_set_new(in, key, last_part(text));
    }
}

/* The recipe with this output alone, which is not named as the folder here. */
static json_t *recipe_of(const bq_run *s, const bq_output *output) {
    json_t *recipe = bq_keys_json(&s->recipe, false), *list = json_object_get(recipe, "outputs");
    json_t *one = json_incref(json_array_get(list, (size_t)(output - s->recipe.output)));
    json_object_del(one, "dir");
    json_array_clear(list);
    json_array_append_new(list, one);
    drop_folders(recipe);
    return recipe;
}

/* ---- the summary ---- */

/* The value of `license:` in the front matter of a README.md, in `out`; "" where there is none. */
static void front_license(const char *text, char out[BQ_LICENSE]) {
    static const char key[] = "license:", letters[] = "abcdefghijklmnopqrstuvwxyz"
                                                      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    out[0] = 0;
    if (strncmp(text, "---\n", 4)) return;
    for (const char *line = text + 4; strncmp(line, "---", 3); line++) {
        if (strncmp(line, key, sizeof key - 1) == 0) {
            const char *value = line + sizeof key - 1;
            value += strspn(value, " \"'");
            size_t n = strspn(value, letters);
            if (n < BQ_LICENSE && value[n + strspn(value + n, " \"'\r")] == '\n')
                snprintf(out, BQ_LICENSE, "%.*s", (int)n, value);
        }
        if (!(line = strchr(line, '\n'))) return;
    }
}

/* From the folder of a model file (GGUF) nothing is taken, as nothing is copied from there. */
static void find_license(const bq_run *s, const bq_output *output, char out[BQ_LICENSE]) {
    char path[BQ_PATH], *text;
    size_t bytes;
    json_t *inside = NULL;
    const char *dir = bq_weights_dir(s->src.weights);
    snprintf(out, BQ_LICENSE, "%s", output->license);
    if (*out || bq_weights_beside(s->src.weights, false, &inside) || inside) {
        json_decref(inside);
        return;
    }
    bq_path_join(path, sizeof path, dir, "README.md");
    if (bq_file_read(path, MOST, &text, &bytes) == 0) front_license(text, out);
    free(text);
    bq_path_join(path, sizeof path, dir, "LICENSE");
    if (!*out && bq_file_exists(path)) snprintf(out, BQ_LICENSE, "other");
}

static void set_text(json_t *to, const char *key, const char *text) {
    if (text && *text) json_object_set_new(to, key, json_string(text));
}

static void set_share(json_t *to, const char *key, int64_t bits, int64_t weights) {
    double share = weights ? (double)bits / (double)weights : 0;
    json_object_set_new(to, key, json_real(round(share * 1e4) / 1e4));
}

static void add_sizes(json_t *to, const bq_run *s, const bq_manifest *list) {
    int64_t all = 0, bits, bytes = 0;
    const int64_t weights = bq_run_quantized(s, &bits);
    for (int i = 0; i < bq_weights_count(s->src.weights); i++) {
        const bq_tensor *t = bq_weights_at(s->src.weights, i);
        all += bq_fp8_scales(s->src.weights, t) ? 0 : bq_tensor_count(t);
    }
    for (int i = 0; i < list->count; i++) {
        const char *suffix = strrchr(list->file[i].name, '.');
        if (suffix && (strcmp(suffix, ".safetensors") == 0 || strcmp(suffix, ".gguf") == 0))
            bytes += list->file[i].size;
    }
    json_object_set_new(to, "parameters", json_integer(all));
    json_object_set_new(to, "parameters_quantized", json_integer(weights));
    set_share(to, "bits_per_weight", bits, weights);
    set_share(to, "bits_per_weight_files", 8 * bytes, all);
}

/* What calibrated it, if something did; the hashes are those of origin.json. */
static void add_calibration(json_t *to, const bq_run *s, const json_t *origin) {
    const bq_recipe *r = &s->recipe;
    if (!(bq_recipe_traits(r) & BQ_PASS_CALIBRATED)) return;
    json_t *of = json_pack("{s:s, s:I, s:I, s:I}", "tokens", r->calibration.tokens, "samples",
                           (json_int_t)r->calibration.samples, "length", (json_int_t)r->calibration.length,
                           "offset", (json_int_t)r->calibration.offset);
    set_text(of, "text", json_string_value(json_object_get(origin, "text")));
    set_text(of, "tokenizer", json_string_value(json_object_get(origin, "tokenizer")));
    json_object_set_new(to, "calibration", of);
}

/* The evaluations of result.json as one list: the object's first.  Not those with inputs, an embedding or a
 * head of other bits than the recipe has now. */
static int add_evaluations(json_t *to, const bq_run *s) {
    char path[BQ_PATH_MAX + 32];
    json_t *result, *list = json_array(), *one = json_pack("{s:s}", "eval", "perplexity");
    snprintf(path, sizeof path, "%s/result.json", s->dir);
    json_object_set_new(to, "evaluations", list);
    int code = bq_file_exists(path) ? bq_json_read(path, MOST, &result) : (result = NULL, BQ_OK);
    json_t *bits = json_incref(json_object_get(result, "bits")), *now = bq_result_bits(s);
    bool same = bits ? json_equal(bits, now) : !json_object_size(now);
    json_t *more = json_incref(json_object_get(result, "evals"));
    json_object_del(result, "evals");
    json_object_del(result, "bits");
    json_object_update(one, result);
    if (same && json_object_size(result)) json_array_append(list, one);
    if (same) json_array_extend(list, more);
    json_decref(more);
    json_decref(bits);
    json_decref(now);
    json_decref(one);
    json_decref(result);
    return code;
}

static int summarize(const bq_run *s, const bq_output *output, const bq_manifest *list, json_t **summary) {
    char path[BQ_PATH_MAX + 32], hex[17], license[BQ_LICENSE], weights[32];
    origin_path(s, path);
    json_t *origin = bq_json_read_sealed(path, MOST), *to;
    snprintf(hex, sizeof hex, "%016" PRIx64, bq_run_tag(s));
    snprintf(weights, sizeof weights, "xxh3:%016" PRIx64, s->model_hash);
    find_license(s, output, license);
    *summary = to =
        json_pack("{s:s, s:s, s:s}", "quantized_by", "blockq", "version", BQ_VERSION, "fingerprint", hex);
    BQ_CHECK(to, "no memory for the summary of a run");
    set_text(to, "numerics", json_string_value(json_object_get(origin, "numerics")));
    set_text(to, "base_model", *output->base_model ? output->base_model : s->recipe.model);
    set_text(to, "base_model_hash", weights);
    set_text(to, "license", license);
    set_text(to, "format", bq_format_choice(output->format).name);
    add_sizes(to, s, list);
    add_calibration(to, s, origin);
    int code = add_evaluations(to, s);
    drop_folders(to);
    json_decref(origin);
    return code;
}

int bq_publish_output(const bq_run *s, const bq_output *output, const char *dir, const bq_manifest *list) {
    json_t *summary, *recipe = recipe_of(s, output);
    size_t bytes;
    int code = summarize(s, output, list, &summary);
    char *card = bq_card(&s->recipe, output, summary), *said = bq_json_text_of(recipe, &bytes),
         *sum = bq_json_text_of(summary, &bytes);
    if (!code) code = bq_publish(dir, list, &(bq_publication){card, said, sum});
    free(card);
    free(said);
    free(sum);
    json_decref(summary);
    json_decref(recipe);
    return code;
}
